"""Writing a video in two passes, all or nothing: encode pictures, then join them with the sound."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from selfscan import sound

TIME_BASE = Fraction(1, 720_000)  # s; whole multiples: 24, 25, 30, 50, 60 fps, their 1000/1001, 1/1000, 1/90000
ITU709 = 1  # FFmpeg's number of the BT.709 matrix, primaries and transfer curve
LIMITED_RANGE = 1
log = logging.getLogger(__name__)


def record(
    path: str | Path,
    timed: Iterable[tuple[float, np.ndarray]],
    rate: float,
    audio_from: str | Path | None = None,
    crf: float = 18,
    finish: Callable[[Path], None] | None = None,
) -> int:
    """Write an H.264 mp4 from a stream whose length nobody knows yet; see ``video.write``.

    Args:
        path: target .mp4.
        timed: pairs of time in s (not negative, strictly increasing) and image [H, W, 3] uint8 RGB, all of one size.
        rate: frames a second, about; the times are exact whatever it is.
        audio_from: clip whose sound is copied.
        crf: x264 quality.
        finish: told the path of the whole temporary file before it gets the target's name; may change the file.
    Returns:
        Number of frames written.
    Raises:
        OSError: disk full, no permission, ...; an existing target is untouched and temporary files are gone.
        ValueError: no frames, other sizes, or times that do not increase.
    """
    path = Path(path)
    part, whole = path.with_name(f"{path.stem}.part.mp4"), path.with_name(f"{path.stem}.mux.part.mp4")
    try:
        times = encode(part, timed, rate, crf)
        join(part, whole, times, audio_from)
        if finish is not None:
            finish(whole)
        with open(whole, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(whole, path)
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"the video could not be written ({reason}); free some space or choose another folder",
            str(path),
        ) from error
    finally:
        for leftover in (part, whole):
            with suppress(OSError):  # the folder itself is gone or closed: the first error says why
                leftover.unlink(missing_ok=True)
    return len(times)


def encode(path: Path, timed: Iterable[tuple[float, np.ndarray]], rate: float, crf: float) -> np.ndarray:
    """Encode frames into a fragmented mp4, which stays playable if the program is killed.

    Args:
        path: file to write.
        timed: pairs of time in s and image [H, W, 3] uint8 RGB.
        rate: frames a second, about.
        crf: x264 quality.
    Returns:
        times [T] s.
    Raises:
        ValueError: no frames, another size, or a time that is not later than the last.
    """
    options = {"movflags": "frag_keyframe+delay_moov"}
    stream, shape, times = None, None, []
    with av.open(f"file:{path}", "w", format="mp4", options=options) as container:
        for time, frame in timed:
            if stream is None:
                shape, stream = frame.shape, _video_stream(container, frame.shape, rate, crf)
            if frame.shape != shape or frame.dtype != np.uint8:
                raise ValueError(
                    f"frames: expected uint8 images of shape {shape}, got {frame.dtype} {frame.shape} as number "
                    f"{len(times) + 1}"
                )
            if not (times[-1] if times else -TIME_BASE) < time < np.inf:
                raise ValueError(f"times: expected a time after {times[-1:]} s, got {time} s")
            container.mux(stream.encode(_yuv(frame, time)))
            times.append(time)
        if stream is None:
            raise ValueError("frames: expected at least one, got none")
        container.mux(stream.encode(None))
    return np.array(times)


def join(pictures: Path, path: Path, times: np.ndarray, audio_from: str | Path | None) -> None:
    """Copy encoded pictures and the sound of a clip into one mp4 with its index in front.

    A clip whose sound cannot be joined costs the sound, not the pictures: a warning says so.

    Args:
        pictures: mp4 written by ``encode``.
        path: mp4 to write.
        times: [T] s of the pictures; sound after the last picture is dropped.
        audio_from: clip whose first audio stream is taken, or None.
    """
    first, until = float(times[0]), float(times[-1] + (np.diff(times).mean() if len(times) > 1 else 0.04))
    if audio_from is not None:
        try:
            return sound.join_apart(pictures, path, first, until, audio_from)
        except sound.NoSound as error:
            log.warning("%s: its sound could not be copied (%s); the result has none", audio_from, error)
    sound.join(pictures, path, first, until, None)


def _video_stream(container, shape: tuple[int, ...], rate: float, crf: float):
    rate = Fraction(min(rate, 240.0)).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "g": str(max(1, round(2 * rate)))})
    stream.height, stream.width = (n + n % 2 for n in shape[:2])
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = TIME_BASE
    context.colorspace = context.color_primaries = context.color_trc = ITU709
    context.color_range = LIMITED_RANGE
    return stream


def _yuv(image: np.ndarray, time: float):
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=ITU709, dst_color_range=LIMITED_RANGE)
    frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
    return frame
