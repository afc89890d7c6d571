"""Dolby Vision: whether a clip's pictures are IPT-PQ-C2, by the configuration record of its container.

Profiles 4, 7, 8 and 9 have a base layer that is HDR10, HLG or SDR; its tags are right. Profiles 5, 10 and 20 can be
without one (compatibility 0): their pictures are IPT-PQ-C2 of full range, whatever their tags say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from selfscan.io.joined import descriptors

ALONE = {5, 10, 20}  # profiles that can be without a compatible base layer
TAGS = {"dvh1", "dvhe"}  # of streams that a decoder of HEVC alone should not play
RECORD = re.compile(rb"\0\0\0\x20dv[cvw]C(.{24})", re.DOTALL)  # a box of ISO media
MAPPING = re.compile(rb"dv[cvw]C\x41\xed(?:\x98|\x40\x18)(.{24})", re.DOTALL)  # BlockAddIDExtraData of Matroska
DESCRIPTOR = 0xB0  # of a programme map
DEPENDS = 2  # bytes that name the base layer of a stream without its own
HEAD, INDEX = 4 << 20, 64 << 20  # bytes that are searched, of a Matroska file and of an index


def is_ipt(path: str | Path, form: str, codec_tag: str, transfer: int) -> bool:
    """Whether the pictures of a clip are IPT-PQ-C2.

    Args:
        form: FFmpeg's name of the format. codec_tag: of the stream of pictures.
        transfer: that the stream is tagged with (ITU-T H.273), 2 = none; it decides where the record is missing.
    """
    with open(path, "rb") as file:
        record = next(_records(file, form), None)
    if record is None:
        return codec_tag in TAGS and transfer in (0, 2)
    profile, compatible = record
    return profile in ALONE and compatible == 0


def _records(file: BinaryIO, form: str) -> Iterator[tuple[int, int]]:
    """Profile and compatibility of each configuration record."""
    names = set(form.split(","))
    if "mp4" in names:
        yield from (_parsed(match[1]) for part in _indexes(file) for match in RECORD.finditer(part))
    elif "matroska" in names:
        yield from (_parsed(match[1]) for match in MAPPING.finditer(file.read(HEAD)))
    elif "mpegts" in names:
        for tag, data in descriptors(file):
            if tag == DESCRIPTOR and len(data) >= 5:
                own = data[3] & 1  # whether the stream has its own base layer
                yield _parsed(data if own else data[:4] + data[4 + DEPENDS :])


def _parsed(record: bytes) -> tuple[int, int]:
    """Version, version, then 7 bits of profile, 6 of level, 3 flags, 4 bits of compatibility."""
    return record[2] >> 1, record[4] >> 4 if len(record) > 4 else 0


def _indexes(file: BinaryIO) -> Iterator[bytes]:
    """The moov boxes of ISO media."""
    at, end = 0, file.seek(0, os.SEEK_END)
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size, start = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), 16
        size = end - at if size == 0 else size
        if size < start:
            return
        if head[4:8] == b"moov":
            file.seek(at + start)
            yield file.read(min(size - start, INDEX))
        at += size
