"""The child process of ``video``: open an untrusted clip, check it, decode it and return its pictures.

FFmpeg's demuxers and decoders run only in this process, with limits on memory, time and files (``isolation``).
Pictures go to the parent through shared memory; each other message is a line of JSON. Only PyAV is imported, to keep
the start short.
"""

from __future__ import annotations

import gc
import json
import math
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from av.error import FFmpegError

from selfscan.errors import UnreadableVideo, VideoTooLarge
from selfscan.io import clock, dolby, interlace, pictures, transparency
from selfscan.io.colour import Converter, tags_of, told
from selfscan.io.geometry import Canvas, Turned, clockwise, orientation
from selfscan.io.opening import Limits, VideoInfo, can_jump, checked, in_words, moving
from selfscan.span import WHOLE, Span

SLOTS = 3  # pictures in shared memory: one is read, one waits, one is written
MAX_WARNINGS = 20  # sentences about one clip
UNDECODABLE = "no frame could be decoded; the file is damaged, record or export it again"

Shown = tuple[float, Any, Turned]  # time, s; picture, a frame of format rgb24; how to turn it


def serve(request: dict) -> None:
    """Entry point of the child of ``video.probe`` and ``video.read``: describe the clip, then send frames on request.

    Args:
        request: path, limits and span (dicts), and memory: descriptor of the shared memory, or None to describe only.
    """
    path, limits = request["path"], Limits(**request["limits"])
    try:
        _serve(path, limits, Span(**request["span"]), request["memory"])
    except (UnreadableVideo, VideoTooLarge) as error:
        _say(failed=type(error).__name__, text=str(error))
    except MemoryError:
        _say(failed="UnreadableVideo", text=f"{path}: decoding it needs more memory than is allowed; export it again")
    except Exception as error:  # of a library, or a fault of this package: the user learns what failed
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        _say(failed="UnreadableVideo", text=f"{path}: it could not be read ({what}); export it as mp4 and try again")


def _say(**message) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


class _Warnings:
    """Sentences about the clip: those before ``begin`` go with its description, later ones at once; each once."""

    def __init__(self):
        self._said: list[str] = []
        self._begun = False

    def __call__(self, text: str) -> None:
        if text not in self._said and len(self._said) < MAX_WARNINGS:
            self._said.append(text)
            if self._begun:
                _say(warning=text)

    def begin(self) -> tuple[str, ...]:
        """Return the sentences so far."""
        self._begun = True
        return tuple(self._said)


def _serve(path: str, limits: Limits, span: Span, memory: int | None) -> None:
    warn = _Warnings()
    opened = _picture if pictures.is_picture(path) else _opened
    with opened(path, limits, warn, span) as (facts, shown):
        first = next(shown, None)
        if first is None:
            raise UnreadableVideo(f"{path}: {UNDECODABLE}")
        _, picture, turned = first
        row = max(abs(picture.planes[0].line_size), -(-3 * picture.width // 256) * 256)
        size = (picture.height, picture.width) if turned[0] else (picture.width, picture.height)
        info = VideoInfo(*size, **facts, rotation=clockwise(turned), warnings=warn.begin())
        _say(info=asdict(info), slot=row * picture.height)
        if memory is not None:
            _hand_over(path, first, shown, memory, row * picture.height, limits)


@contextmanager
def _picture(path: str, limits: Limits, warn: _Warnings, span: Span):
    """Open a picture or a folder of pictures; see ``_opened``."""
    with pictures.opened(path, limits, warn) as (facts, shown):
        if span == WHOLE:
            yield facts, shown
            return
        seconds = span.length(facts["duration"])
        count = max(1, round(seconds * facts["fps"]))
        yield facts | {"duration": seconds, "frames_estimate": count}, clock.within(shown, span, 1 / facts["fps"], path)


@contextmanager
def _opened(path: str, limits: Limits, warn: _Warnings, span: Span):
    """Open a video: yields the facts of ``VideoInfo``, and its pictures."""
    with checked(path, limits, lambda number: _say(alive=number), warn, span) as opened:
        container, stream, fps, count, seconds = opened
        facts = {"fps": fps, "frames_estimate": count, "duration": seconds, "has_audio": bool(container.streams.audio)}
        timed = clock.within(_timed(path, container, stream, fps, span.start), span, 1 / fps, path)
        yield facts, _pictures(path, container, stream, timed, limits, warn)


def _hand_over(path: str, first: Shown, rest: Iterator[Shown], memory: int, slot: int, limits: Limits) -> None:
    """Write each picture into the next free slot and announce it; the parent frees slots by writing to our stdin."""
    free, ring, count = 0, None, 0
    time, picture, turned = first
    del first
    gc.freeze()  # exclude present objects from collection, which then takes microseconds
    while True:
        count += 1
        if count > limits.frames or time > limits.seconds:
            raise VideoTooLarge(f"{path}: it is longer or larger than {in_words(limits)}; cut it or raise the limits")
        if not free:
            free = len(os.read(0, SLOTS))
        if not free:  # the parent has ended
            return
        ring = ring or mmap.mmap(memory, SLOTS * slot)
        at = (count - 1) % SLOTS
        row = _put(ring, at * slot, slot, picture)
        free -= 1
        _say(time=time, slot=at, row=row, size=[picture.width, picture.height], turned=turned)
        _renew(limits)
        del picture
        gc.collect()  # PyAV's frames and their side data form reference cycles
        following = next(rest, None)
        if following is None:
            _say(end=count)
            return
        time, picture, turned = following


def _put(ring: mmap.mmap, start: int, slot: int, picture) -> int:
    """Copy a picture's rows into the memory; return the row stride in bytes, negative if stored bottom to top."""
    plane, tight = picture.planes[0], 3 * picture.width
    row, data = plane.line_size, memoryview(plane).cast("B")
    if len(data) <= slot:
        ring[start : start + len(data)] = data
        return row
    for y in range(picture.height):  # row padding larger than the first picture's
        ring[start + y * tight : start + (y + 1) * tight] = data[y * abs(row) : y * abs(row) + tight]
    return tight if row > 0 else -tight


def _renew(limits: Limits) -> None:
    """Raise the limit on processor time by the allowance of one frame."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + cpu_seconds(limits)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def cpu_seconds(limits: Limits) -> int:
    """Allowed processor time of one frame, s: all processors for ``limits.patience`` seconds, and 10 s."""
    return math.ceil(limits.patience * (os.cpu_count() or 1)) + 10


def _pictures(path: str, container, stream, timed: Iterator, limits: Limits, warn: _Warnings) -> Iterator[Shown]:
    """The pictures of a clip, progressive, in SDR BT.709, and all of the display size of the first."""
    canvas, convert, context, seen = Canvas(stream, limits, warn), Converter(), stream.codec_context, None
    ipt = dolby.is_ipt(path, container.format.name, stream.codec_tag, int(context.color_trc))
    for time, frame in interlace.progressive(timed, warn) if can_jump(container) else timed:  # a gif has no fields
        turned = orientation(frame)
        width, height = canvas.size(path, time, frame, turned)
        tags = tags_of(frame, context, ipt)
        if tags != seen:
            seen = tags
            for text in told(tags):
                warn(text)
        try:
            picture = convert(frame, tags, width, height)
        except (FFmpegError, ValueError):  # skip a frame that cannot be converted, as a damaged one
            continue
        yield time, canvas.filled(picture, turned), turned


def _timed(path: str, container, stream, fps: float, start: float) -> Iterator[tuple[float, Any]]:
    """Pairs of time, s, and decoded frame; those well before ``start`` s may be left out."""
    known = clock.Clock(fps, can_jump(container))
    return clock.frames(moving(path, container, stream), known, start, transparency.Decoder())
