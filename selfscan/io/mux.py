"""Write a video in two passes, all or nothing: encode the pictures, then join them with the sound.

The input is raw pictures (``write_stream``), or segments that were encoded and stored separately (``encode_segment``,
``assemble``).
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError

from selfscan.io import sound
from selfscan.types import Array

TIME_BASE = Fraction(1, 720_000)  # s; divides 1/24, 1/25, 1/30, 1/50, 1/60 s, their 1001/1000, 1/1000 and 1/90000 s
ITU709 = 1  # FFmpeg's number of the BT.709 matrix, primaries and transfer curve
LIMITED_RANGE = 1
KEY_SECONDS = 2  # s between key frames
SAME_BITS = "cpu-independent=1"  # x264's AVX-512 code reads uninitialised memory unless the width is a multiple
#   of 128; equal pictures then gave different files
HELD_BACK = 2  # pictures by which x264 may delay its output to reorder them: two, for its B-pyramid
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segment:
    """A run of encoded pictures that can be decoded without any other."""

    data: Array  # [sum of sizes] uint8: the packets, in decoding order
    sizes: Array  # [T] int64 bytes of each packet
    shown: Array  # [T] int64 presentation time of each, in units of TIME_BASE
    keys: Array  # [T] bool: True = a key frame
    shape: Array  # [2] int64 height and width of the pictures, px


def write_stream(
    path: str | Path,
    timed: Iterable[tuple[float, Array]],
    rate: float,
    audio_from: str | Path | None = None,
    crf: float = 18,
    finish: Callable[[Path], None] | None = None,
) -> int:
    """Write an H.264 mp4 from a stream of unknown length; see ``video.write``.

    Args:
        path: target .mp4.
        timed: pairs of time in s (not negative, strictly increasing) and image [H, W, 3] uint8 RGB, all of one size.
        rate: approximate frames a second; the times are exact in any case.
        audio_from: clip whose sound is copied.
        crf: x264 quality.
        finish: called with the path of the complete temporary file, before it replaces the target; may change the file.
    Returns:
        Number of frames written.
    Raises:
        OSError: disk full, no permission, ...; an existing target is untouched and temporary files are deleted.
        ValueError: no frames, different sizes, or times that do not increase.
    """
    return len(_whole(Path(path), lambda part: encode(part, timed, rate, crf), audio_from, finish))


def assemble(
    path: str | Path,
    segments: Iterable[Segment],
    rate: float,
    audio_from: str | Path | None = None,
    crf: float = 18,
    finish: Callable[[Path], None] | None = None,
) -> int:
    """Like ``write_stream``, from encoded segments.

    Args:
        path: target .mp4.
        segments: made by ``encode_segment`` with the same rate and crf, in order; consumed one by one.
        rate, audio_from, crf, finish: see ``write_stream``.
    Returns:
        Number of frames written.
    Raises:
        OSError, ValueError: see ``write_stream``.
    """
    return len(_whole(Path(path), lambda part: _chain(part, segments, rate, crf), audio_from, finish))


def _whole(path: Path, fill: Callable[[Path], Array], audio_from, finish) -> Array:
    """Let ``fill`` write the pictures, add the sound, call ``finish``, then rename to ``path``; returns the times."""
    part, whole = path.with_name(f"{path.stem}.part.mp4"), path.with_name(f"{path.stem}.mux.part.mp4")
    try:
        times = fill(part)
        join(part, whole, times, audio_from)
        if finish is not None:
            finish(whole)
        with open(whole, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(whole, path)
    except (OSError, FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"the video could not be written ({reason}); free some space or choose another folder",
            str(path),
        ) from error
    finally:
        for leftover in (part, whole):
            with suppress(OSError):  # the folder is missing or not writable: the first error says why
                leftover.unlink(missing_ok=True)
    return times


def encode(path: Path, timed: Iterable[tuple[float, Array]], rate: float, crf: float) -> Array:
    """Encode frames into a fragmented mp4, which stays playable if the program is killed.

    Args:
        path: file to write.
        timed: pairs of time in s and image [H, W, 3] uint8 RGB.
        rate: approximate frames a second.
        crf: x264 quality.
    Returns:
        times [T] s.
    Raises:
        ValueError: no frames, different sizes, or a time that is not later than the one before.
    """
    options = {"movflags": "frag_keyframe+delay_moov"}
    stream, times = None, []
    with av.open(f"file:{path}", "w", format="mp4", options=options) as container:
        for time, frame in _checked(timed):
            if stream is None:
                stream = _video_stream(container, frame.shape, rate, crf)
            container.mux(stream.encode(_yuv(frame, time)))
            times.append(time)
        if stream is not None:  # always true here: _checked raises if there is no picture
            container.mux(stream.encode(None))
    return np.array(times)


def encode_segment(timed: Iterable[tuple[float, Array]], rate: float, crf: float) -> Segment:
    """Encode frames as one independent segment, which ``assemble`` joins with others.

    Equal frames, times, rate and crf give an equal segment, independent of earlier segments.

    Args:
        timed: pairs of time in s and image [H, W, 3] uint8 RGB. rate: approximate frames a second.
        crf: x264 quality.
    Raises:
        ValueError: no frames, different sizes, or a time that is not later than the one before.
    """
    context, packets, shape = None, [], ()
    for time, frame in _checked(timed):
        if context is None:
            context, shape = av.CodecContext.create("libx264", "w"), frame.shape
            context.framerate, context.options = _rate(rate), _options(rate, crf)
            context.flags |= Flags.global_header  # mp4 stores the codec's header once, before all segments
            _prepare(context, shape)
        packets += context.encode(_yuv(frame, time))
    packets += [] if context is None else context.encode(None)
    return Segment(
        np.frombuffer(b"".join(map(bytes, packets)), np.uint8),
        np.array([p.size for p in packets]),
        np.array([p.pts for p in packets]),
        np.array([p.is_keyframe for p in packets]),
        np.array(shape[:2]),
    )


def _chain(path: Path, segments: Iterable[Segment], rate: float, crf: float) -> Array:
    """Write segments in order into a fragmented mp4; returns the times [T] s.

    The decoding time of a packet is the presentation time HELD_BACK pictures earlier. Decoding times then increase, as
    mp4 requires, also across segments, and never exceed the presentation times.
    """
    stream, shape, shown, written = None, [], [], 0
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "frag_keyframe+delay_moov"}) as container:
        for segment in segments:
            if stream is None:
                shape, stream = (
                    segment.shape.tolist(),
                    _video_stream(container, (*map(int, segment.shape), 3), rate, crf),
                )
            if segment.shape.tolist() != shape:
                raise ValueError(f"frames: expected images of shape {shape}, got {segment.shape.tolist()}")
            if shown and segment.shown.min() <= shown[-1]:
                raise ValueError(f"times: expected a segment after {shown[-1] * TIME_BASE} s")
            shown += np.sort(segment.shown).tolist()
            ends = np.cumsum(segment.sizes)
            for end, size, when, key in zip(ends, segment.sizes, segment.shown, segment.keys):
                packet = av.Packet(segment.data[end - size : end].tobytes())
                packet.stream, packet.time_base, packet.is_keyframe = stream, TIME_BASE, bool(key)
                packet.pts, packet.dts = int(when), _decoded(shown, written)
                container.mux(packet)
                written += 1
        if stream is None:
            raise ValueError("frames: expected at least one, got none")
    return np.array(shown) * float(TIME_BASE)


def _decoded(shown: list[int], number: int) -> int:
    """Decoding time of packet ``number``, from the sorted presentation times up to its segment's end (TIME_BASE)."""
    return shown[number - HELD_BACK] if number >= HELD_BACK else shown[0] - (HELD_BACK - number)


def _checked(timed: Iterable[tuple[float, Array]]) -> Iterable[tuple[float, Array]]:
    shape, count, last = None, 0, -TIME_BASE
    for count, (time, frame) in enumerate(timed, start=1):
        shape = shape or frame.shape
        if frame.shape != shape or frame.dtype != np.uint8:
            raise ValueError(
                f"frames: expected uint8 images of shape {shape}, got {frame.dtype} {frame.shape} as number {count}"
            )
        if not last < time < np.inf:
            raise ValueError(f"times: expected a time after {last} s, got {time} s")
        last = time
        yield time, frame
    if not count:
        raise ValueError("frames: expected at least one, got none")


def join(pictures: Path, path: Path, times: Array, audio_from: str | Path | None) -> None:
    """Copy encoded pictures and the sound of a clip into one mp4 with its index in front.

    If the sound cannot be joined, the result is silent and a warning is logged.

    Args:
        pictures: mp4 written by ``encode``.
        path: mp4 to write.
        times: [T] s of the pictures; sound after the last picture is dropped.
        audio_from: clip whose first audio stream is copied, or None.
    """
    first, until = float(times[0]), float(times[-1] + (np.diff(times).mean() if len(times) > 1 else 0.04))
    if audio_from is not None:
        try:
            return sound.join_apart(pictures, path, first, until, audio_from)
        except sound.NoSound as error:
            log.warning("%s: its sound could not be copied (%s); the result has none", audio_from, error)
    sound.join(pictures, path, first, until, None)


def _video_stream(container, shape: tuple[int, ...], rate: float, crf: float):
    stream = container.add_stream("libx264", rate=_rate(rate), options=_options(rate, crf))
    _prepare(stream.codec_context, shape)
    return stream


def _rate(rate: float) -> Fraction:
    return Fraction(min(rate, 240.0)).limit_denominator(1001)


def _options(rate: float, crf: float) -> dict[str, str]:
    return {"crf": str(crf), "g": str(max(1, round(KEY_SECONDS * _rate(rate)))), "x264-params": SAME_BITS}


def _prepare(context, shape: tuple[int, ...]) -> None:
    context.height, context.width = (n + n % 2 for n in shape[:2])
    context.pix_fmt = "yuv420p"
    context.time_base = TIME_BASE
    context.colorspace = context.color_primaries = context.color_trc = ITU709
    context.color_range = LIMITED_RANGE


def _yuv(image: Array, time: float):
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=ITU709, dst_color_range=LIMITED_RANGE)
    frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
    return frame
