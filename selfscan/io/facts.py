"""What a clip's file says about itself: codecs, rates, colours, fields and sound tracks. Read in a child process."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import av.stream
from av.error import FFmpegError

from selfscan.errors import UnreadableVideo
from selfscan.io import dolby, isolation, pictures
from selfscan.io.colour import HDR, OTHER_LIGHT, PRIMARIES, tags_of
from selfscan.io.opening import opened
from selfscan.io.tracks import track_used

MEMORY, CPU, SECONDS, MAX_ANSWER = 2 << 30, 120, 120.0, 1 << 18
MAX_PACKETS = 20_000  # whose time stamps are compared
TRIED = 12  # frames that are decoded to see their flags
UNEVEN, UNEVEN_SECONDS = 0.2, 0.003  # share of the usual step, and s: both more, and a step is another one
MANY, LEAST = 0.02, 2  # share, and number, of other steps in a clip of a variable rate


@dataclass(frozen=True)
class SoundTrack:
    """One sound track of a clip."""

    codec: str
    channels: int
    rate: int  # Hz
    language: str  # as tagged; empty = not tagged
    default: bool


@dataclass(frozen=True)
class ClipFacts:
    """The facts of a clip's file; words are empty where the file says nothing."""

    container: str  # FFmpeg's name of the format, the first of several
    codec: str = ""  # of the pictures
    pixels: str = ""  # FFmpeg's name of the pixel format
    light: str = ""  # name of the HDR or otherwise unusual transfer; empty = SDR
    primaries: str = ""  # name of the primaries
    interlaced: bool = False  # by its flags
    variable: bool = False  # the steps between its frames differ
    sounds: tuple[SoundTrack, ...] = ()
    sound_used: int = 0  # number of the track that results take, from 1: the default or the first that is not silent


def read_facts(path: str | Path) -> ClipFacts:
    """Read the facts of a clip; a few frames are decoded.

    Raises: UnreadableVideo: it cannot be opened, or the child crashes or takes too long.
    """
    if pictures.is_picture(path):
        return ClipFacts("pictures" if Path(path).is_dir() else "picture")
    rations = isolation.Rations(MEMORY, CPU)
    answer = isolation.ask("selfscan.io.facts:serve", {"path": str(path)}, rations, SECONDS, MAX_ANSWER)
    if answer is None:
        raise UnreadableVideo(f"{path}: reading its header crashed or took too long; export it again")
    said = json.loads(answer)
    if "failed" in said:
        raise UnreadableVideo(said["failed"])
    sounds = tuple(SoundTrack(**track) for track in said.pop("sounds"))
    return ClipFacts(**said, sounds=sounds)


def serve(request: dict) -> None:
    """Entry point of the child: write the facts of ``path`` to stdout as JSON."""
    try:
        said = asdict(_facts(request["path"]))
        said["sound_used"] = track_used(request["path"])
    except (UnreadableVideo, FFmpegError, OSError, ValueError) as error:
        said = {"failed": str(error)}
    json.dump(said, sys.stdout)


def _facts(path: str) -> ClipFacts:
    with opened(path) as clip:
        container = clip.format.name.split(",")[0]
        default = av.stream.Disposition.default
        sounds = tuple(
            SoundTrack(
                s.codec_context.codec.canonical_name,
                s.codec_context.channels,
                s.codec_context.sample_rate or 0,
                s.metadata.get("language", "").replace("und", "")[:20],
                bool(s.disposition & default),
            )
            for s in clip.streams.audio
            if s.codec_context is not None
        )
        covers = av.stream.Disposition.attached_pic
        found = [s for s in clip.streams.video if s.codec_context is not None and not s.disposition & covers]
        if not found:
            return ClipFacts(container, sounds=sounds)
        context = found[0].codec_context
        stamps, frames = _first(clip, found[0])
        ipt = dolby.is_ipt(path, clip.format.name, found[0].codec_tag, int(context.color_trc))
        tags = tags_of(frames[0], context, ipt) if frames else None
        return ClipFacts(
            container,
            context.codec.canonical_name,
            context.format.name if context.format else "",
            (HDR | OTHER_LIGHT).get(tags.transfer, "") if tags else "",
            PRIMARIES[tags.primaries][0] if tags else "",
            any(frame.interlaced_frame for frame in frames),
            varies(stamps),
            sounds,
        )


def _first(clip, stream) -> tuple[list[float], list]:
    """The time stamps, s, of the first packets, and the first frames."""
    stamps, frames = list[float](), []
    try:
        for packet in islice(clip.demux(stream), MAX_PACKETS):
            stamps += [float(packet.pts * packet.time_base)] if packet.pts is not None else []
            frames += packet.decode() if len(frames) < TRIED else []
    except FFmpegError:  # a damaged tail
        pass
    return stamps, frames


def varies(stamps: list[float]) -> bool:
    """Whether the steps between time stamps, s, differ by more than containers' rounding, at more than a few places."""
    order = sorted(stamps)
    steps = [float(b - a) for a, b in zip(order, order[1:]) if b > a]
    if len(steps) < 3:
        return False
    usual = statistics.median(steps)
    other = sum(abs(step - usual) > max(UNEVEN * usual, UNEVEN_SECONDS) for step in steps)
    return other >= max(LEAST, MANY * len(steps))
