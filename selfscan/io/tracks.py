"""The sound tracks of an untrusted clip: which one is used, and its packets. Runs in a child process.

A track may go on in another one: in the next part of a joined file, or where the next track begins as it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av.stream
from av.error import FFmpegError

from selfscan.errors import UnreadableVideo
from selfscan.io import samples
from selfscan.io.joined import parts
from selfscan.io.opening import opened, packets

TRIED = 200  # packets
MEETS = 0.1  # s by which a track may begin before the one that it continues ends


@dataclass(frozen=True)
class Track:
    """One sound track that can be decoded."""

    index: int  # of its stream
    codec: str
    default: bool


class NoSuchTrack(Exception):
    """The clip has no sound track of that number; the message says how many it has."""


def tracks_of(path: str | Path) -> list[Track]:
    """The sound tracks of a clip; of a joined file, those of the part with most."""
    most: list[Track] = []
    for clip in _opened(path):
        found = _tracks(clip)
        most = found if len(found) > len(most) else most
    return most


def track_used(path: str | Path) -> int:
    """Number, from 1, of the sound track that results take unless another one is asked for; 0 = the clip has none."""
    tracks = tracks_of(path)
    return chosen(path, None, tracks)[0] if tracks else 0


def chosen(path: str | Path, number: int | None, tracks: list[Track]) -> tuple[int, tuple[int, ...]]:
    """The number of the track to use, from 1, and the numbers of silent ones that were passed over.

    Args:
        number: of the track that is asked for; None = the default or the first that is not silent.
        tracks: at least one, of ``tracks_of``.
    Raises: NoSuchTrack.
    """
    if number is not None:
        if not 1 <= number <= len(tracks):
            raise NoSuchTrack(f"expected a sound track from 1 to {len(tracks)}, got {number}")
        return number, ()
    order = _by_default(tracks)
    silent = []
    for k in order if len(tracks) > 1 else []:
        if not all(map(_is_silent, packets_of(path, (k + 1,)))):
            return k + 1, tuple(silent)
        silent.append(k + 1)
    return order[0] + 1, ()


def chain(path: str | Path, number: int) -> tuple[int, ...]:
    """The numbers of the tracks that follow each other without overlap, one of which is ``number``; in their order."""
    spans = dict[int, _Extent]()
    for clip in _opened(path):
        tracks = _tracks(clip)
        if len(tracks) < 2:
            continue
        numbers = {track.index: k for k, track in enumerate(tracks, start=1)}
        for order, packet in enumerate(packets(clip, *(clip.streams[track.index] for track in tracks))):
            if packet.dts is not None:
                spans.setdefault(numbers[packet.stream.index], _Extent(order)).take(order, packet)
        if parts(path, clip.format.name, "audio"):  # its parts are put in order by themselves
            return (number,)
    found = [number]
    for k in sorted(spans, key=lambda k: spans[k].first):
        if number in spans and all(k != n and spans[k].apart(spans[n]) for n in found):
            found.append(k)
    return tuple(sorted(found, key=lambda k: spans[k].first if k in spans else 0))


def packets_of(path: str | Path, numbers: tuple[int, ...]) -> Iterator[Any]:
    """The packets of some tracks in file order; a part that lacks the first of them gives its default track."""
    for clip in _opened(path):
        tracks = _tracks(clip)
        wanted = [tracks[n - 1].index for n in numbers if n <= len(tracks)]
        if not wanted and tracks:
            wanted = [tracks[_by_default(tracks)[0]].index]
        if wanted:
            yield from packets(clip, *(clip.streams[index] for index in wanted))


def is_steady(path: str | Path, number: int) -> bool:
    """Whether a track is one stream whose codec, rate and channels stay, so that its packets can be copied."""
    known, streams = None, set()
    for packet in packets_of(path, (number,)):
        if packet.size == 0:
            continue
        streams.add(id(packet.stream))
        now = _signature(packet)
        if len(streams) > 1 or known is not None and now is not None and now != known:
            return False
        known = known if now is None else now
    return True


def can_be_decoded(path: str | Path, number: int) -> bool:
    """Whether one of the first packets of a track gives sound; a track that is damaged throughout is not copied."""
    return any(bool(_decoded(packet)) for packet in islice(packets_of(path, (number,)), TRIED))


class _Extent:
    """Where in a file, and when, a track begins and ends."""

    def __init__(self, order: int):
        self.first, self.last, self.start, self.end = order, order, float("inf"), -float("inf")

    def take(self, order: int, packet) -> None:
        self.last = order
        self.start = min(self.start, float(packet.dts * packet.time_base))
        self.end = max(self.end, float((packet.dts + (packet.duration or 0)) * packet.time_base))

    def apart(self, other: _Extent) -> bool:
        """Whether one of the two ends before the other one begins."""
        if self.last < other.first or other.last < self.first:
            return True
        return self.end <= other.start + MEETS or other.end <= self.start + MEETS


def _opened(path: str | Path) -> Iterator[Any]:
    """The open file, or the open parts of a joined one."""
    with opened(path) as clip:
        pieces = parts(path, clip.format.name, "audio")
        if not pieces:
            yield clip
            return
    for part in pieces:
        with suppress(UnreadableVideo), opened(path, part) as piece:
            yield piece


def _tracks(clip) -> list[Track]:
    default = av.stream.Disposition.default
    return [
        Track(stream.index, stream.codec_context.codec.canonical_name, bool(stream.disposition & default))
        for stream in clip.streams.audio
        if stream.codec_context is not None
    ]


def _by_default(tracks: list[Track]) -> list[int]:
    return sorted(range(len(tracks)), key=lambda k: not tracks[k].default)


def _decoded(packet) -> list[Any]:
    try:
        return packet.decode()
    except FFmpegError:
        return []


def _is_silent(packet) -> bool:
    return all(samples.is_quiet(frame) for frame in _decoded(packet))


def _signature(packet) -> tuple | None:
    """What a packet's own header says of rate and channels; None if it has no such header."""
    codec, data = packet.stream.codec_context.codec.canonical_name, bytes(packet)[:8]
    if packet.has_sidedata("new_extradata"):
        return "new", id(packet)
    if len(data) < 8:
        return None
    if codec == "aac" and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:  # ADTS: profile, rate, channels
        return data[2] & 0xFD, data[3] & 0xC0
    if codec in ("mp1", "mp2", "mp3") and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:  # layer, rate, mono
        return data[1] & 0xFE, data[2] & 0x0C, data[3] >> 6 == 3
    if codec == "ac3" and data[:2] == b"\x0b\x77":  # rate, channels
        return data[4] >> 6, data[6] >> 5
    if codec == "eac3" and data[:2] == b"\x0b\x77":
        return data[4] >> 6, data[4] >> 1 & 7
    return None
