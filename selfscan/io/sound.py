"""Join the sound of an untrusted clip with new pictures, in a child process that parses the clip's packets."""

from __future__ import annotations

import errno
import heapq
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import av
from av.error import FFmpegError

from selfscan.errors import UnreadableVideo
from selfscan.io import isolation
from selfscan.io.opening import opened, origin

MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # codecs copied unchanged; others are encoded as AAC
MEMORY = 2 << 30  # bytes of address space
CPU = 1800  # s; an hour of sound is encoded in half a minute
SECONDS = 1800.0
MAX_ANSWER = 1 << 14
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the target disk fails, not the sound


class NoSound(Exception):
    """The sound could not be joined; the message says why."""


def join_apart(pictures: Path, path: Path, first: float, until: float, sound: str | Path) -> None:
    """Run ``join`` in a child process with limits.

    Raises:
        NoSound: the clip cannot be read, or the child crashes or takes too long.
        OSError: the disk is full.
    """
    request = {"pictures": str(pictures), "path": str(path), "first": first, "until": until, "sound": str(sound)}
    rations = isolation.Rations(MEMORY, CPU, written=None)
    answer = isolation.ask("selfscan.io.sound:serve", request, rations, SECONDS, MAX_ANSWER)
    if answer is None:
        raise NoSound("reading it crashed or took too long")
    said = json.loads(answer)
    if said.get("errno") in FULL:
        raise OSError(said["errno"], os.strerror(said["errno"]))
    if "failed" in said:
        raise NoSound(said["failed"])


def serve(request: dict) -> None:
    """Entry point of the child: run ``join`` and write its error, if any, to stdout as JSON."""
    try:
        join(Path(request["pictures"]), Path(request["path"]), request["first"], request["until"], request["sound"])
        said = {}
    except (FFmpegError, UnreadableVideo, OSError, ValueError) as error:
        said = {"failed": getattr(error, "strerror", None) or str(error), "errno": getattr(error, "errno", None)}
    json.dump(said, sys.stdout)


def join(pictures: Path, path: Path, first: float, until: float, sound: str | Path | None) -> None:
    """Copy encoded pictures and the sound of a clip into one mp4 with its index in front.

    Args:
        pictures: mp4 written by ``mux.encode``.
        path: mp4 to write.
        first: s, time of the first picture. until: s, time after which sound is dropped.
        sound: clip whose first audio stream is copied, or None.
    """
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "faststart"}) as out:
        with av.open(f"file:{pictures}") as source:
            stream = out.add_stream_from_template(source.streams.video[0])
            moving = _shifted(source.demux(source.streams.video[0]), stream, first)
            if sound is None:
                out.mux(moving)
                return
            with opened(sound) as clip:
                _interleave(out, moving, _sound_packets(out, clip, until))


def _interleave(out, *streams: Iterator) -> None:
    for packet in heapq.merge(*streams, key=lambda packet: packet.dts * packet.time_base):
        out.mux(packet)


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


def _sound_packets(out, clip, until: float) -> Iterator:
    if not clip.streams.audio:
        return iter(())
    source, start = clip.streams.audio[0], origin(clip)
    if source.codec_context is None:
        return iter(())
    if source.codec_context.name in MP4_SOUND:
        return _copied(clip, source, out.add_stream_from_template(source), start, until)
    target = out.add_stream("aac", rate=source.codec_context.sample_rate)
    target.codec_context.layout = "mono" if source.codec_context.channels == 1 else "stereo"
    return _encoded(clip, source, target, start, until)


def _copied(clip, source, target, start: float, until: float) -> Iterator:
    offset, last = round(start / source.time_base), None
    for packet in _demuxed(clip, source):
        stamped = packet.dts is not None and packet.pts is not None
        if not stamped or packet.dts - offset > until / packet.time_base:
            continue
        if last is not None and packet.dts <= last:  # mp4 does not allow equal times
            continue
        last = packet.dts
        packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, target
        yield packet


def _encoded(clip, source, target, start: float, until: float) -> Iterator:
    written = target.codec_context
    resampler = av.AudioResampler(format=written.format.name, layout=written.layout, rate=written.sample_rate)
    for frame in _decoded(clip, source):
        if frame.pts is None or frame.time - start > until:
            continue
        frame.pts -= round(start / frame.time_base)
        for piece in resampler.resample(frame):
            yield from target.encode(piece)
    yield from target.encode(None)


def _demuxed(clip, source) -> Iterator:
    try:
        yield from clip.demux(source)
    except FFmpegError:  # a damaged tail: keep the sound before it
        return


def _decoded(clip, source) -> Iterator:
    try:
        yield from clip.decode(source)
    except FFmpegError:  # a damaged tail: keep the sound before it
        return
