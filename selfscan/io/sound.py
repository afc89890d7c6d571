"""Join the sound of an untrusted clip with new pictures, in a child process that parses the clip's packets.

The sound runs on the clip's own clock (``clock``). It is copied where the container can hold it and its stamps do not
jump. Otherwise it is decoded and encoded again, on an even clock.
"""

from __future__ import annotations

import errno
import heapq
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import av.stream
from av.error import FFmpegError

from selfscan.errors import UnreadableVideo
from selfscan.io import clock, isolation, samples
from selfscan.io.containers import Container
from selfscan.io.opening import can_jump, frames_a_second, opened, packets, pictures_of

MEMORY = 2 << 30  # bytes of address space
CPU = 1800  # s; an hour of sound is encoded in half a minute
SECONDS = 1800.0
MAX_ANSWER = 1 << 14
LEAD = 0.1  # s of copied sound before the first picture that is kept, because decoders need it to start
TRIED = 200  # packets
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
    how: str = "none"  # copied, encoded or none
    lost: str = ""  # why the result has no sound although the clip has some


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
    return Heard(**said | {"silent": tuple(said["silent"])})


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
            json.dump({"tracks": len(_tracks(request["count"]))}, sys.stdout)
            return
        holds = request["container"]
        container = Container(**holds | {"copied": holds["copied"] and tuple(holds["copied"])})
        files = Path(request["pictures"]), Path(request["path"])
        said = asdict(join(*files, request["times"], SoundOf(**request["sound"]), container, request["copy"]))
    except (FFmpegError, UnreadableVideo, OSError, ValueError, NoSound) as error:
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
        NoSound: the clip has no such track. FFmpegError, ValueError, OSError: the sound can be neither copied nor
            encoded, or the file cannot be written.
    """
    tracks = _tracks(sound.path)
    if not tracks:
        _write(pictures, path, times[0], container)
        return Heard()
    number, silent = _chosen(sound, tracks)
    heard = Heard(len(tracks), number, silent)
    known, start = _clock(sound.path)
    copied = copy and len(known.runs) <= 1 and _holds(container, tracks[number - 1])
    copied = copied and _can_be_decoded(sound.path, tracks[number - 1][0])
    ways = [("copied", _copied)] if copied else []
    ways += [("encoded", samples.encoded)]
    for how, way in ways:
        try:
            with opened(sound.path) as clip:
                source = clip.streams[tracks[number - 1][0]]
                shift = _Shift(clock.SoundClock(known), -start - sound.start)
                count = _write(pictures, path, times[0], container, way, (clip, source, shift, times[1], container))
            if count or how == "encoded":
                return replace(heard, how=how) if count else replace(heard, track=None, lost=NOTHING)
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
    """The shift of each packet of the sound to the new clip's time, s."""

    def __init__(self, sound_clock: clock.SoundClock, more: float):
        self._clock, self._more = sound_clock, more

    def __call__(self, stamp: float, length: float) -> float:
        return self._clock(stamp, length) + self._more

    def window(self) -> tuple[float, float]:
        """The times of the new clip, s, outside of which the last packet's run of sound is cut."""
        start, end = self._clock.window()
        return start + self._more, end + self._more


def _tracks(path: str | Path) -> list[tuple[int, str, bool]]:
    """Index, codec and default mark of each sound track that can be decoded."""
    with opened(path) as clip:
        default = av.stream.Disposition.default
        return [
            (stream.index, stream.codec_context.codec.canonical_name, bool(stream.disposition & default))
            for stream in clip.streams.audio
            if stream.codec_context is not None
        ]


def track_used(path: str | Path) -> int:
    """Number, from 1, of the sound track that results take unless another one is asked for; 0 = the clip has none.

    It decodes sound, so call it in a child process.
    """
    tracks = _tracks(path)
    return _chosen(SoundOf(path), tracks)[0] if tracks else 0


def _chosen(sound: SoundOf, tracks: list[tuple[int, str, bool]]) -> tuple[int, tuple[int, ...]]:
    """The number of the track to use, from 1, and the numbers of silent ones that come before it."""
    if sound.track is not None:
        if not 1 <= sound.track <= len(tracks):
            raise NoSound(f"expected a sound track from 1 to {len(tracks)}, got {sound.track}")
        return sound.track, ()
    order = sorted(range(len(tracks)), key=lambda k: not tracks[k][2])
    silent = []
    for k in order if len(tracks) > 1 else []:
        if not _is_silent(sound.path, tracks[k][0]):
            return k + 1, tuple(silent)
        silent.append(k + 1)
    return order[0] + 1, ()


def _is_silent(path: str | Path, index: int) -> bool:
    with opened(path) as clip:
        try:
            return all(samples.is_quiet(frame) for frame in clip.decode(clip.streams[index]))
        except FFmpegError:  # a damaged tail
            return True


def _can_be_decoded(path: str | Path, index: int) -> bool:
    """Whether one of the first packets of a track gives sound; a track that is damaged throughout is not copied."""
    with opened(path) as clip:
        return any(map(_decodes, islice(packets(clip, clip.streams[index]), TRIED)))


def _decodes(packet) -> bool:
    try:
        return bool(packet.decode())
    except FFmpegError:
        return False


def _clock(path: str | Path) -> tuple[clock.Clock, float]:
    """The clock of a clip after all its packets, and the shifted stamp of its first picture, s."""
    with opened(path) as clip:
        stream = pictures_of(clip)
        if stream is None:
            return clock.Clock(25.0), 0.0
        known, streams = clock.Clock(frames_a_second(stream), can_jump(clip)), (stream, *clip.streams.audio[:1])
        for packet in packets(clip, *streams):
            known.sound(packet) if packet.stream.type == "audio" else known.picture(packet)
    with opened(path) as clip:
        stream = pictures_of(clip)
        first = clock.Clock(frames_a_second(stream), can_jump(clip))
        next(clock.frames(packets(clip, stream, *clip.streams.audio[:1]), first), None)
    return known, 0.0 if first.origin != first.origin else first.origin


def _holds(container: Container, track: tuple[int, str, bool]) -> bool:
    return container.copied is None or track[1] in container.copied


def _copied(out, clip, source, shift: _Shift, until: float, container: Container) -> Iterator:
    target, last = out.add_stream_from_template(source), None
    for packet in packets(clip, source):
        if packet.dts is None or packet.pts is None:
            continue
        length = float((packet.duration or 0) * packet.time_base)
        offset = round(shift(float(packet.dts * packet.time_base), length) / packet.time_base)
        time = float((packet.pts + offset) * packet.time_base)
        if time > until or time + length < -LEAD:
            continue
        if last is not None and packet.dts + offset <= last:  # containers do not allow equal times
            continue
        packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, target
        last = packet.dts
        yield packet
