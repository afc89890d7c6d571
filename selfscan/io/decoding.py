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
from dataclasses import asdict
from fractions import Fraction

from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from selfscan.errors import UnreadableVideo, VideoTooLarge
from selfscan.io.opening import Limits, VideoInfo, checked, in_words, origin, packets

HD_HEIGHT = 720  # px; as in players, untagged video of at least this height is BT.709, smaller video BT.601
ITU709, ITU601, UNSPECIFIED = 1, 5, 2  # FFmpeg's AVColorSpace / SWS_CS numbers
SLOTS = 3  # pictures in shared memory: one is read, one waits, one is written
LEAST_STEP = 1e-5  # s, minimum between two frames; damaged files repeat times or go back; no container resolves less
UNDECODABLE = "no frame could be decoded; the file is damaged, record or export it again"


def serve(request: dict) -> None:
    """Entry point of the child of ``video.probe`` and ``video.read``: describe the clip, then send frames on request.

    Args:
        request: path, limits (a dict), and memory: descriptor of the shared memory, or None to describe only.
    """
    path, limits = request["path"], Limits(**request["limits"])
    try:
        _serve(path, limits, request["memory"])
    except (UnreadableVideo, VideoTooLarge) as error:
        _say(failed=type(error).__name__, text=str(error))
    except MemoryError:
        _say(failed="UnreadableVideo", text=f"{path}: decoding it needs more memory than is allowed; export it again")


def _say(**message) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _serve(path: str, limits: Limits, memory: int | None) -> None:
    with checked(path, limits, lambda number: _say(alive=number)) as (container, stream, fps, count, seconds):
        frames = _pictures(container, stream, limits)
        first = next(frames, None)
        if first is None:
            raise UnreadableVideo(f"{path}: {UNDECODABLE}")
        frame, picture = first
        row = max(abs(picture.planes[0].line_size), -(-3 * picture.width // 256) * 256)
        transposed, _, _ = _orientation(frame)
        size = (picture.height, picture.width) if transposed else (picture.width, picture.height)
        info = VideoInfo(*size, fps, count, seconds, _clockwise(frame), bool(container.streams.audio))
        _say(info=asdict(info), slot=row * picture.height)
        if memory is not None:
            _hand_over(path, first, frames, (origin(container), fps), memory, row * picture.height, limits)


def _hand_over(
    path: str, first, rest: Iterator, clock: tuple[float, float], memory: int, slot: int, limits: Limits
) -> None:
    """Write each picture into the next free slot and announce it; the parent frees slots by writing to our stdin."""
    free, ring, last, count = 0, None, -math.inf, 0
    frame, picture = first
    del first
    gc.freeze()  # exclude present objects from collection, which then takes microseconds
    while True:
        time = _time(frame, *clock, last)
        count += 1
        if count > limits.frames or time > limits.seconds or frame.width * frame.height > limits.pixels:
            raise VideoTooLarge(f"{path}: it is longer or larger than {in_words(limits)}; cut it or raise the limits")
        if not free:
            free = len(os.read(0, SLOTS))
        if not free:  # the parent has ended
            return
        ring = ring or mmap.mmap(memory, SLOTS * slot)
        at = (count - 1) % SLOTS
        row = _put(ring, at * slot, slot, picture)
        free -= 1
        _say(time=time, slot=at, row=row, size=[picture.width, picture.height], turned=_orientation(frame))
        last = time
        _renew(limits)
        del frame, picture
        gc.collect()  # PyAV's frames and their side data form reference cycles
        following = next(rest, None)
        if following is None:
            _say(end=count)
            return
        frame, picture = following


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


def _frames(container, stream):
    for packet in packets(container, stream):
        try:
            frames = packet.decode()
        except FFmpegError:  # skip the frames of a damaged packet, keep the rest
            continue
        yield from frames


def _pictures(container, stream, limits: Limits) -> Iterator[tuple]:
    """Pairs of decoded frame and RGB picture; all pictures have the display size of the first."""
    reformatter, size = VideoReformatter(), None
    for frame in _frames(container, stream):
        size = size or _square_pixels(frame, stream)
        if size[0] * size[1] > limits.pixels:
            raise VideoTooLarge(
                f"{container.name.removeprefix('file:')}: shown at {size[0]}x{size[1]} px, more than "
                f"{limits.pixels} px; export it in 4K or smaller"
            )
        matrix = int(frame.colorspace)
        if matrix == UNSPECIFIED:
            matrix = ITU709 if frame.height >= HD_HEIGHT else ITU601
        try:
            yield frame, reformatter.reformat(frame, size[0], size[1], "rgb24", src_colorspace=matrix)
        except (FFmpegError, ValueError):  # skip a frame that cannot be converted, as a damaged one
            continue


def _time(frame, origin: float, fps: float, last: float) -> float:
    step = max((0.1 if frame.pts is not None else 1) / fps, LEAST_STEP)
    if frame.pts is None:
        return last + step if math.isfinite(last) else 0.0
    time = float(frame.pts * frame.time_base) - origin
    if not math.isfinite(last):
        return max(time, 0.0)
    return time if time >= last + LEAST_STEP else last + step  # repeated or backward stamps of damaged files


def _orientation(frame) -> tuple[bool, bool, bool]:
    """Whether to transpose, then flip up-down, then flip left-right, so that the frame is upright."""
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None or len(bytes(side)) < 20:
        return False, False, False
    a, b, _, c, d = memoryview(bytes(side)[:20]).cast("i").tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


def _clockwise(frame) -> int:
    transposed, up_down, left_right = _orientation(frame)
    if transposed:
        return 90 if left_right else 270
    return 180 if up_down else 0


def _square_pixels(frame, stream) -> tuple[int, int]:
    """Width and height, px, that show the stored frame without distortion."""
    ratio = stream.sample_aspect_ratio or Fraction(1)
    return max(1, round(frame.width * float(ratio))), frame.height
