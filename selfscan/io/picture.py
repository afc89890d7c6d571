"""One picture from a stranger, decoded in a process of its own with limits."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from selfscan.errors import UnreadablePicture
from selfscan.io import isolation

MAX_PIXELS = 1 << 26  # an edit sheet of an avatar of 1024 px has 5e7
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
        UnreadablePicture: it cannot be decoded, is absurdly large, or crashes what decodes it.
    """
    rations = isolation.Rations(memory=3 << 30, cpu=int(SECONDS))
    answer = isolation.ask(
        "selfscan.io.picture:serve", {"path": str(path)}, rations, SECONDS, SIZE.size + 3 * MAX_PIXELS
    )
    height, width = SIZE.unpack(answer[: SIZE.size]) if answer else (0, 0)
    if answer is None or not height * width or len(answer) != SIZE.size + 3 * height * width:
        raise UnreadablePicture(
            f"{path}: expected a PNG or JPEG of at most {MAX_PIXELS} px, got one that cannot be "
            "decoded; it is damaged, or made to be unreadable"
        )
    return np.frombuffer(answer, np.uint8, offset=SIZE.size).reshape(height, width, 3)


def png_fits(file: BinaryIO) -> bool:
    """Whether a PNG's parts fit into the file, up to its end mark.

    OpenCV takes up to 2 GB and some seconds for a part that says it is that long, in a file of 90 bytes.
    """
    end = file.seek(0, 2)
    at = len(PNG)
    while at + 8 <= end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        at += 12 + length  # length, kind and checksum around the data
        if kind == b"IEND":
            return at <= end
    return False


def serve(request: dict) -> None:
    """Be the child: write height, width and pixels; nothing where there are none."""
    import os

    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # compared with the header, before memory is taken
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
