"""Size of a JPEG or PNG file from its header, and a check that the file is complete; no pixel is decoded."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from mystudio.errors import BadData
from selfscan.io.picture import PNG, png_fits

_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})  # SOF markers
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers that have no length field
_TAIL = 1 << 16  # bytes searched for the end marker: cameras append some data after it
LARGEST = 16384  # px a side: more is a decompression bomb, not a portrait


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, px.

    Raises:
        BadData: it cannot be read, is not a JPEG or PNG, is incomplete, or is larger than ``LARGEST``.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            size = _png_size(file) if start == PNG else _jpeg_size(file) if start[:3] == b"\xff\xd8\xff" else None
            file.seek(max(file.seek(0, 2) - _TAIL, 0))
            whole = (b"IEND" if start == PNG else b"\xff\xd9") in file.read()
    except OSError as error:
        raise BadData(f"{path}: expected a readable image, got {error.strerror}; remove it or correct it") from error
    except struct.error:
        size, whole = None, False
    if size is None or not whole:
        what = "no whole JPEG or PNG (another kind, empty or cut short)"
        raise BadData(f"{path}: expected a JPEG or PNG image, got {what}; remove it or copy it again")
    if not 0 < min(size) <= max(size) <= LARGEST:
        raise BadData(f"{path}: expected an image of 1 to {LARGEST} px a side, got {size[0]} x {size[1]}; remove it")
    return size


def _png_size(file: BinaryIO) -> tuple[int, int] | None:
    if not png_fits(file):
        return None
    file.seek(16)
    return struct.unpack(">II", file.read(8))


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(2)
    while True:
        lead, marker = struct.unpack("BB", file.read(2))
        if lead != 0xFF:
            return None
        if marker == 0xFF:  # fill byte
            file.seek(-1, 1)
        elif marker in _FRAMES:
            _, _, height, width = struct.unpack(">HBHH", file.read(7))
            return width, height
        elif marker not in _BARE:
            (length,) = struct.unpack(">H", file.read(2))
            file.seek(max(length, 2) - 2, 1)
