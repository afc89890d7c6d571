"""How long each frame of an animated gif is shown: as in browsers, delays of less than 20 ms count as 100 ms."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

SHORTEST, INSTEAD = 2, 10  # hundredths of a second: a shorter delay than the first is replaced by the second
EXTENSION, CONTROL, IMAGE = 0x21, 0xF9, 0x2C


def delays(path: str | Path) -> list[int]:
    """The delay of each frame as it is stored, in hundredths of a second; up to a damaged place."""
    with open(path, "rb") as file:
        head = file.read(13)
        if head[:3] != b"GIF" or len(head) < 13:
            return []
        _skip_table(file, head[10])
        return list(_delays(file))


def shown(stored: list[int]) -> list[int]:
    """How long each frame is shown, in hundredths of a second."""
    return [delay if delay >= SHORTEST else INSTEAD for delay in stored]


def told(short: int, count: int) -> str:
    """The sentence about so many short delays of an animation, in any format."""
    return f"{short} of {count} frames ask for 10 ms or less; they are shown for 100 ms, as in browsers."


def paced(packets: Iterator, path: str | Path) -> Iterator:
    """Give the packets of a gif the stamps of the times at which they are shown."""
    lengths, at = iter(shown(delays(path))), 0
    for packet in packets:
        length = next(lengths, INSTEAD) if packet.size else 0
        if packet.size:
            packet.pts = packet.dts = round(Fraction(at, 100) / packet.time_base)
        at += length
        yield packet


def _delays(file: BinaryIO) -> Iterator[int]:
    delay = 0
    while kind := file.read(1):
        if kind[0] == EXTENSION:
            label, data = file.read(1), _blocks(file)
            if label == bytes((CONTROL,)) and len(data) >= 4:
                delay = int.from_bytes(data[1:3], "little")
        elif kind[0] == IMAGE:
            place = file.read(9)
            if len(place) < 9:
                return
            _skip_table(file, place[8])
            file.read(1)
            yield delay
            _blocks(file)
            delay = 0
        else:
            return


def _skip_table(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << (flags & 7) + 1, 1)


def _blocks(file: BinaryIO) -> bytes:
    """Read blocks up to the empty one; returns the first."""
    first = data = _block(file)
    while data:
        data = _block(file)
    return first


def _block(file: BinaryIO) -> bytes:
    size = file.read(1)
    return file.read(size[0]) if size else b""
