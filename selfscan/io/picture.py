"""Decode one untrusted picture in a child process with limits."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from selfscan.errors import UnreadablePicture
from selfscan.io import isolation

MAX_PIXELS = 1 << 26  # the largest own picture, an edit sheet at 1024 px, has 5e7
MAX_BYTES = 256 << 20  # of the file
SECONDS = 60.0
PNG = b"\x89PNG\r\n\x1a\n"
SIZE = struct.Struct("<II")


def read(path: str | Path) -> np.ndarray:
    """Decode a PNG or JPEG.

    Args:
        path: the file.
    Returns:
        [H, W, 3] uint8 RGB.
    Raises:
        UnreadablePicture: it cannot be decoded, exceeds the limits, or crashes the decoder.
    """
    rations = isolation.Rations(memory=3 << 30, cpu=int(SECONDS))
    answer = isolation.ask(
        "selfscan.io.picture:serve", {"path": str(path)}, rations, SECONDS, SIZE.size + 3 * MAX_PIXELS
    )
    height, width = SIZE.unpack(answer[: SIZE.size]) if answer else (0, 0)
    if answer is None or not height * width or len(answer) != SIZE.size + 3 * height * width:
        raise UnreadablePicture(
            f"{path}: expected a PNG or JPEG of at most {MAX_PIXELS} px, got one that is larger or "
            "damaged; export it again"
        )
    return np.frombuffer(answer, np.uint8, offset=SIZE.size).reshape(height, width, 3)


def png_fits(file: BinaryIO) -> bool:
    """Whether a PNG is whole: pixels, then IEND, and every chunk up to there fits into the file and has its checksum.

    OpenCV allocates up to 2 GB for a chunk that declares that length, even in a file of 90 bytes. It also reads on
    behind an IEND that is damaged, or that comes before any pixels.
    """
    end, pixels = file.seek(0, 2), False
    at = len(PNG)
    while at + 12 <= end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        at += 12 + length  # length, kind and checksum around the data
        if at > end or zlib.crc32(file.read(length), zlib.crc32(kind)) != int.from_bytes(file.read(4), "big"):
            return False
        pixels |= kind == b"IDAT"
        if kind == b"IEND":
            return pixels and length == 0
    return False


def serve(request: dict) -> None:
    """Entry point of the child: write height, width and pixels to stdout; nothing if the picture is unreadable."""
    import os

    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # checked against the header before allocation
    import cv2

    if os.path.getsize(request["path"]) > MAX_BYTES:
        return
    with open(request["path"], "rb") as file:
        if file.read(len(PNG)) == PNG and not png_fits(file):
            return
    image = cv2.imdecode(np.fromfile(request["path"], np.uint8), cv2.IMREAD_COLOR)
    if image is not None:
        sys.stdout.buffer.write(SIZE.pack(*image.shape[:2]))
        sys.stdout.buffer.write(np.ascontiguousarray(image[..., ::-1]).data)
