"""Join the sound of an untrusted clip with new pictures, in a child process that parses the clip's packets.

The sound runs on the clip's own clock (``clock``). It is copied where the container can hold it and its stamps do not
jump. Otherwise it is decoded and encoded again, on an even clock.
"""

from __future__ import annotations

import errno
import heapq
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from selfscan.errors import UnreadableVideo
from selfscan.io import clock, isolation, samples, tracks
from selfscan.io.containers import Container
from selfscan.io.opening import can_jump, frames_a_second, moving, opened, pictures_of

MEMORY = 2 << 30  # bytes of address space
CPU = 1800  # s; an hour of sound is encoded in half a minute
SECONDS = 1800.0
MAX_ANSWER = 1 << 14
LEAD = 0.1  # s of copied sound before the first picture that is kept, because decoders need it to start
NOTHING = "none of it can be decoded"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the target disk fails, not the sound


@dataclass(frozen=True)
class SoundOf:
    """The sound that a new clip takes from another one."""

    path: str | Path  # the clip
    start: float = 0.0  # s of the clip at which the new clip has its time 0
    track: int | None = None  # number of the sound track, from 1; None = the default or the first that is not silent


@dataclass(frozen=True)
class Heard:
    """What became of a clip's sound."""

    tracks: int = 0  # sound tracks of the clip
    track: int | None = None  # number of the one used, from 1; None = the result has no sound
    silent: tuple[int, ...] = ()  # numbers of the tracks that were passed over because they are silent
    others: tuple[int, ...] = ()  # numbers of the tracks that are used before it begins or after it ends
    how: str = "none"  # copied, encoded or none
    lost: str = ""  # why the result has no sound although the clip has some
    damaged: float = 0.0  # s of the sound that could not be decoded


class NoSound(Exception):
    """The sound could not be joined; the message says why."""


def join_apart(pictures: Path, path: Path, times: tuple[float, float], sound: SoundOf, container: Container) -> Heard:
    """Run ``join`` in a child process with limits; a copy that crashes it is tried again by encoding.

    Raises:
        NoSound: the clip cannot be read, or the child crashes or takes too long.
        OSError: the disk is full.
    """
    request = {"pictures": str(pictures), "path": str(path), "times": times, "container": asdict(container)}
    request |= {"sound": asdict(sound) | {"path": str(sound.path)}}
    rations = isolation.Rations(MEMORY, CPU, written=None)
    for copy in (True, False):
        asked = request | {"copy": copy}
        answer = isolation.ask("selfscan.io.sound:serve", asked, rations, SECONDS, MAX_ANSWER)
        if answer is not None:
            break
    else:
        raise NoSound("reading it crashed or took too long")
    said = json.loads(answer)
    if said.get("errno") in FULL:
        raise OSError(said["errno"], os.strerror(said["errno"]))
    if "failed" in said:
        raise NoSound(said["failed"])
    return Heard(**said | {"silent": tuple(said["silent"]), "others": tuple(said["others"])})


def tracks_apart(path: str | Path) -> int:
    """The number of a clip's sound tracks, found in a child process; 0 if it cannot be read."""
    answer = isolation.ask(
        "selfscan.io.sound:serve", {"count": str(path)}, isolation.Rations(MEMORY, 60), 60, MAX_ANSWER
    )
    said = json.loads(answer) if answer is not None else {}
    return int(said.get("tracks", 0))


def serve(request: dict[str, Any]) -> None:
    """Entry point of the child: run ``join`` and write its result, or its error, to stdout as JSON."""
    try:
        if "count" in request:
            json.dump({"tracks": len(tracks.tracks_of(request["count"]))}, sys.stdout)
            return
        holds = request["container"]
        container = Container(**holds | {"copied": holds["copied"] and tuple(holds["copied"])})
        files = Path(request["pictures"]), Path(request["path"])
        said = asdict(join(*files, request["times"], SoundOf(**request["sound"]), container, request["copy"]))
    except (FFmpegError, UnreadableVideo, OSError, ValueError, NoSound, tracks.NoSuchTrack) as error:
        said = {"failed": getattr(error, "strerror", None) or str(error), "errno": getattr(error, "errno", None)}
    json.dump(said, sys.stdout)


def join(
    pictures: Path, path: Path, times: tuple[float, float], sound: SoundOf, container: Container, copy: bool = True
) -> Heard:
    """Write encoded pictures and the sound of a clip into one file.

    Args:
        pictures: mp4 written by ``mux.encode``.
        path: file to write.
        times: s, time of the first picture, and time after which sound is dropped.
        sound: clip and track.
        container: of ``path``.
        copy: whether the sound may be copied; if that fails, it is encoded.
    Raises:
        NoSound: it can be neither copied nor encoded. NoSuchTrack. FFmpegError, ValueError, OSError: the sound cannot
            be encoded, or the file cannot be written.
    """
    found = tracks.tracks_of(sound.path)
    if not found:
        _write(pictures, path, times[0], container)
        return Heard()
    number, silent = tracks.chosen(sound.path, sound.track, found)
    numbers = tracks.chain(sound.path, number) if sound.track is None else (number,)
    heard = Heard(len(found), number, silent, tuple(n for n in numbers if n != number))
    known, start = _clock(sound.path)
    copied = copy and len(known.runs) <= 1 and len(numbers) == 1 and _holds(container, found[number - 1].codec)
    copied = copied and tracks.is_steady(sound.path, number) and tracks.can_be_decoded(sound.path, number)
    for how, way in [("copied", _copied), ("encoded", samples.encoded)][not copied :]:
        damaged = list[float]()
        try:
            shift = _Shift(known, -start - sound.start, len(numbers) > 1)
            packets = tracks.packets_of(sound.path, numbers)
            count = _write(pictures, path, times[0], container, way, (packets, shift, times[1], container, damaged))
            if count or how == "encoded":
                heard = replace(heard, how=how, damaged=sum(damaged))
                return heard if count else replace(heard, track=None, how="none", lost=NOTHING)
        except (FFmpegError, ValueError, OSError) as error:
            if getattr(error, "errno", None) in FULL or how == "encoded":
                raise
    raise NoSound("it can be neither copied nor encoded")


def write_silent(pictures: Path, path: Path, first: float, container: Container) -> None:
    """Write encoded pictures into one file without sound; see ``join``."""
    _write(pictures, path, first, container)


def _write(pictures: Path, path: Path, first: float, container: Container, way=None, how=()) -> int:
    """Write the file; return the number of its packets of sound."""
    count = 0
    with av.open(f"file:{path}", "w", format=container.format, options=dict(container.options)) as out:
        with av.open(f"file:{pictures}") as source:
            stream = out.add_stream_from_template(source.streams.video[0])
            moving = _shifted(source.demux(source.streams.video[0]), stream, first)
            heard = way(out, *how) if way else iter(())
            first_heard = next(heard, None)  # opens the encoder before the header is written
            heard = iter(()) if first_heard is None else chain([first_heard], heard)
            if container.format == "matroska":  # it has no edit list to cut what comes before the first picture
                heard = (packet for packet in heard if not _is_before(packet))
            for packet in heapq.merge(moving, heard, key=lambda packet: packet.dts * packet.time_base):
                count += packet.stream.type == "audio"
                out.mux(packet)
    return count


def _is_before(packet) -> bool:
    """Whether a packet of sound begins before time 0; an Opus packet may, its container stores the delay."""
    opus = packet.stream.codec_context.codec.canonical_name == "opus"
    return not opus and packet.pts * packet.time_base < -0.001


def _shifted(packets: Iterator, stream, first_time: float) -> Iterator:
    """Shift packets so that the first picture is shown at first_time; fragmented mp4 loses the encoder's delay."""
    shift = None
    for packet in packets:
        if packet.dts is None:
            continue
        if shift is None:
            shift = round(first_time / packet.time_base) - packet.pts
        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
        yield packet


class _Shift:
    """The shift of each packet of the sound to the new clip's time, s.

    Args:
        known: the clip's clock. more: s to add.
        apart: whether the packets are those of several tracks. The last packet of a track that has ended may come at
            the end of the file, so each then has its own clock.
    """

    def __init__(self, known: clock.Clock, more: float, apart: bool):
        self._known, self._more, self._apart = known, more, apart
        self._clocks, self._at = dict[int, clock.SoundClock](), 0

    def __call__(self, packet, stamp: float, length: float) -> float:
        self._at = packet.stream.index if self._apart else 0
        if self._at not in self._clocks:
            self._clocks[self._at] = clock.SoundClock(self._known)
        return self._clocks[self._at](stamp, length) + self._more

    def window(self) -> tuple[float, float]:
        """The times of the new clip, s, outside of which the last packet's run of sound is cut."""
        if self._at not in self._clocks:
            return -math.inf, math.inf
        start, end = self._clocks[self._at].window()
        return start + self._more, end + self._more


def _clock(path: str | Path) -> tuple[clock.Clock, float]:
    """The clock of a clip after all its packets, and the shifted stamp of its first picture, s."""
    with opened(path) as clip:
        stream = pictures_of(clip)
        if stream is None:
            return clock.Clock(25.0), 0.0
        known = clock.Clock(frames_a_second(stream), can_jump(clip))
        for packet in moving(path, clip, stream, ""):
            known.sound(packet) if packet.stream.type == "audio" else known.picture(packet)
    with opened(path) as clip:
        stream = pictures_of(clip)
        first = clock.Clock(frames_a_second(stream), can_jump(clip))
        next(clock.frames(moving(path, clip, stream), first), None)
    return known, 0.0 if first.origin != first.origin else first.origin


def _holds(container: Container, codec: str) -> bool:
    return container.copied is None or codec in container.copied


def _copied(out, packets: Iterator, shift: _Shift, until: float, container: Container, damaged: list) -> Iterator:
    target, last = None, None
    for packet in packets:
        if packet.dts is None or packet.pts is None:
            continue
        target = target or out.add_stream_from_template(packet.stream)
        length = float((packet.duration or 0) * packet.time_base)
        offset = round(shift(packet, float(packet.dts * packet.time_base), length) / packet.time_base)
        time = float((packet.pts + offset) * packet.time_base)
        if time > until or time + length < -LEAD:
            continue
        if last is not None and packet.dts + offset <= last:  # containers do not allow equal times
            continue
        packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, target
        last = packet.dts
        yield packet
