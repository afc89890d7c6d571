"""Files that were joined end to end (``cat a.ts b.ts``), and streams whose programme changes: where each part begins.

FFmpeg keeps the codecs of the first part, and passes over streams that begin later. So each part is opened on its own.
A part of an MPEG transport stream begins where its programme map names other streams (ISO/IEC 13818-1, 2.4.4). A part
of a Matroska or Flash file begins with a header.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

BLOCK = 8 << 20  # bytes read at once
OVERLAP = 1024  # bytes of a block that are searched again with the next one
MOST = 1000  # parts
TABLES = 20  # whose descriptors are read
SYNC, STRIDES = 0x47, (188, 192, 204)  # first byte of a packet, and distance between packets, bytes
PAYLOAD = 188  # bytes of a packet
VIDEO_TYPES = {0x01, 0x02, 0x10, 0x1B, 0x20, 0x24, 0x33, 0x42, 0xD1, 0xD2, 0xEA}
AUDIO_TYPES = {0x03, 0x04, 0x0F, 0x11, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x8A}
PRIVATE = 0x06  # stream type; descriptors say what it holds
VIDEO_NAMES = {b"AV01", b"HEVC", b"VC-1", b"VP09", b"drac"}  # in the registration descriptor
REGISTRATION, AUDIO_TAGS = 0x05, {0x6A, 0x7A, 0x7B, 0x7C, 0x81, 0xCC}
HEADERS = {
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3.{1,48}?\x42\x82.(?:matroska|webm)", re.DOTALL),
    "flv": re.compile(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09\x00\x00\x00\x00"),
}
Streams = tuple[tuple, ...]  # of a programme: packet identifier, type and names of each


@dataclass(frozen=True)
class Part:
    """A part of a file that can be opened on its own."""

    start: int  # byte
    end: int  # byte after the last
    head: bytes = b""  # bytes to be read before it: the table that names its programme map


def parts(path: str | Path, form: str, kind: str) -> list[Part]:
    """Find the parts of a file whose streams of one kind differ.

    Args:
        form: FFmpeg's name of the format. kind: "video", "audio", or "" for both.
    Returns: the parts in order; empty if the file is one whole.
    """
    state = os.stat(path)
    return _parts(str(path), state.st_size, state.st_mtime_ns, form, kind)


@lru_cache(maxsize=8)
def _parts(path: str, size: int, modified: int, form: str, kind: str) -> list[Part]:
    """See ``parts``; the size and the time, ns, at which the file was modified tell whether it is the same file."""
    names = set(form.split(","))
    with open(path, "rb") as file:
        if "mpegts" in names:
            starts = list(_changes(file, kind))
        else:
            pattern = next((HEADERS[name] for name in HEADERS if name in names), None)
            starts = [(at, b"") for at in _found(file, pattern)] if pattern else []
            starts = starts[1:] if starts and starts[0][0] == 0 else []
    starts = [(0, b""), *starts[: MOST - 1]]
    ends = [at for at, _ in starts[1:]] + [size]
    return [Part(at, end, head) for (at, head), end in zip(starts, ends)] if len(starts) > 1 else []


def descriptors(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The descriptors, tag and data, of all streams in the first programme maps of a transport stream."""
    stride = _stride(file)
    for _, packet in islice(_table_packets(file, stride), TABLES) if stride else ():
        section = _section(packet)
        if section is not None and section[0] == 2:
            for _, _, data in _entries(section):
                yield from _split(data)


class Slice(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, path: str | Path, part: Part):
        super().__init__()
        self.name = f"file:{path}"
        self._file, self._part, self._at = open(path, "rb"), part, 0  # noqa: SIM115
        self._size = len(part.head) + part.end - part.start

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte of the part; see ``io.IOBase.seek``."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        """The byte of the part that is read next."""
        return self._at

    def readinto(self, buffer) -> int:
        """Read into a buffer; returns the number of bytes."""
        count, head = min(len(buffer), max(self._size - self._at, 0)), self._part.head
        if self._at < len(head):
            data = head[self._at : self._at + count]
        else:
            self._file.seek(self._part.start + self._at - len(head))
            data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _found(file: BinaryIO, pattern: re.Pattern[bytes]) -> Iterator[int]:
    """Bytes at which a pattern begins, rising."""
    start, kept, last = 0, b"", -1
    file.seek(0)
    while block := file.read(BLOCK):
        data = kept + block
        for match in pattern.finditer(data):
            if start + match.start() > last:
                last = start + match.start()
                yield last
        kept = data[-OVERLAP:]
        start += len(data) - len(kept)


@dataclass
class _Tables:
    """What the tables of a transport stream said last."""

    programmes: dict[int, int] = field(default_factory=dict)  # number -> packet identifier of its map
    maps: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # number -> that identifier, and the map

    def complete(self) -> bool:
        return bool(self.programmes) and self.programmes.keys() == self.maps.keys()

    def streams(self, kind: str) -> Streams:
        listed = {entry for _, body in self.maps.values() for entry in _listed(body)}
        return tuple(sorted(entry for entry in listed if entry[0].startswith(kind)))


def _changes(file: BinaryIO, kind: str) -> Iterator[tuple[int, bytes]]:
    """Bytes at which the streams of one kind change, and the packet with the table of programmes at that time."""
    stride, tables, known, head, seen = _stride(file), _Tables(), None, b"", {}
    if not stride:
        return
    for at, packet in _table_packets(file, stride):
        number = (packet[1] & 0x1F) << 8 | packet[2]
        head = packet if number == 0 else head
        if seen.get(number) == packet[4:]:
            continue
        section = _section(packet)
        if section is None:
            continue
        seen[number] = packet[4:]
        if number == 0 and section[0] == 0:
            tables.programmes = {int.from_bytes(e[:2], "big"): _pid(e[2:]) for e in _programmes(section) if any(e[:2])}
            tables.maps = {n: m for n, m in tables.maps.items() if tables.programmes.get(n) == m[0]}
            seen = {0: packet[4:]}
        elif section[0] == 2 and tables.programmes.get(int.from_bytes(section[3:5], "big")) == number:
            tables.maps[int.from_bytes(section[3:5], "big")] = number, section
        if tables.complete():
            now = tables.streams(kind)
            if known is not None and now != known:
                yield at, head
            known = now


def _stride(file: BinaryIO) -> int:
    """Bytes from packet to packet; 0 = none is found."""
    file.seek(0)
    data = file.read(204 * 12)
    for stride in STRIDES:
        for first in range(min(stride, len(data))):
            places = range(first, min(len(data), first + 5 * stride), stride)
            if len(places) > 1 and all(data[k] == SYNC for k in places):
                return stride
    return 0


def _table_packets(file: BinaryIO, stride: int) -> Iterator[tuple[int, bytes]]:
    """The packets with a table of programmes or a programme map, and the byte at which each begins."""
    wanted, seen, start, kept, last = {0}, set[bytes](), 0, b"", -1
    file.seek(0)
    while True:
        block = file.read(BLOCK)
        data = kept + block
        for place in _places(data, wanted):
            packet, following = data[place : place + PAYLOAD], place + stride
            if len(packet) < PAYLOAD:
                break
            if start + place <= last or following < len(data) and data[following] != SYNC:
                continue
            last = start + place
            if packet[4:] not in seen:  # tables are repeated, with another counter before them
                seen.add(packet[4:])
                wanted |= set(_maps(packet))
            yield last, packet
        if not block:
            return
        kept = data[-OVERLAP:]
        start += len(data) - len(kept)


def _places(data: bytes, wanted: set[int]) -> Iterator[int]:
    """Bytes, rising, at which packets of some identifiers may begin; more identifiers may be added in the meantime."""
    at, places = 0, dict[int, int]()
    while at < len(data):
        for number in wanted:
            if places.get(number, -1) < at:
                found = data.find(bytes((SYNC, 0x40 | number >> 8, number & 0xFF)), at)
                places[number] = len(data) if found < 0 else found
        at = min(places.values())
        if at < len(data):
            yield at
        at += 1


def _maps(packet: bytes) -> list[int]:
    """Packet identifiers of the programme maps that a table of programmes names."""
    section = _section(packet) if packet[1:3] == b"\x40\x00" else None
    return [_pid(entry[2:]) for entry in _programmes(section) if any(entry[:2])] if section else []


def _programmes(section: bytes) -> list[bytes]:
    return [section[k : k + 4] for k in range(8, len(section) - 3, 4)]


def _pid(data: bytes) -> int:
    return int.from_bytes(data[:2], "big") & 0x1FFF


def _section(packet: bytes) -> bytes | None:
    """The table of a packet without its checksum; None if it is damaged, or goes on in another packet."""
    at = 4
    if packet[3] & 0x20:  # an adaptation field
        at += 1 + packet[4]
    if not packet[3] & 0x10 or at >= len(packet):
        return None
    at += 1 + packet[at]
    if at + 3 > len(packet):
        return None
    end = at + 3 + (int.from_bytes(packet[at + 1 : at + 3], "big") & 0xFFF)
    section = packet[at:end]
    return section[:-4] if 12 <= len(section) == end - at and checksum(section) == 0 else None


def checksum(data: bytes) -> int:
    """CRC-32 of ISO/IEC 13818-1, annex A; 0 for data that ends with its own."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def _listed(section: bytes) -> Iterator[tuple]:
    """The streams of a programme map: kind, packet identifier, type, names."""
    for kind, number, data in _entries(section):
        tags = dict(_split(data))
        name = tags.get(REGISTRATION, b"")[:4]
        if kind in VIDEO_TYPES or kind == PRIVATE and name in VIDEO_NAMES:
            yield "video", number, kind, name
        elif kind in AUDIO_TYPES or kind == PRIVATE and (name or AUDIO_TAGS & tags.keys()):
            yield "audio", number, kind, name, *sorted(AUDIO_TAGS & tags.keys())


def _entries(section: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, packet identifier and descriptors of each stream of a programme map."""
    at = 12 + (int.from_bytes(section[10:12], "big") & 0xFFF)
    while at + 5 <= len(section):
        length = int.from_bytes(section[at + 3 : at + 5], "big") & 0xFFF
        yield section[at], _pid(section[at + 1 : at + 3]), section[at + 5 : at + 5 + length]
        at += 5 + length


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 2 <= len(data):
        yield data[at], data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
