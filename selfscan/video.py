"""Video in and out with PyAV: rotation, variable frame rate, audio copy, limits; RGB only from here on.

Reading streams frame by frame in constant memory. Writing is all or nothing: the target appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from selfscan import mux
from selfscan.errors import UnreadableVideo, VideoTooLarge

record = mux.record  # like write, for a stream whose length nobody knows yet

#: demuxers that hold videos; playlists and network formats are left out on purpose, they open other files
VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,mxf,gif,ivf,dv,nut"
#: known only so that the error can say what the file is
PICTURE_FORMATS = "image2,png_pipe,apng,jpeg_pipe,jpegls_pipe,webp_pipe,bmp_pipe,tiff_pipe,psd_pipe,svg_pipe"
AUDIO_FORMATS = "mp3,wav,flac,aac,ac3,aiff,caf,amr"
PICTURE_BRANDS = ("heic", "heix", "mif1", "avif")  # pictures in an mp4-like box
HD_HEIGHT = 720  # px; untagged video of at least this height is BT.709, below it BT.601, as players assume
ITU709, ITU601, UNSPECIFIED = 1, 5, 2  # FFmpeg's AVColorSpace / SWS_CS numbers


@dataclass(frozen=True)
class Limits:
    """What is refused before anything is decoded."""

    pixels: int = 4096 * 4096  # a frame: 8K is refused, 4K in any orientation is not
    seconds: float = 3600.0  # a self-scan is half a minute, a performance some minutes
    frames: int = 250_000  # an hour at 60 frames a second, with room


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video says, as it will be seen after rotation."""

    width: int  # px
    height: int  # px
    fps: float  # mean frames a second; means little for variable frame rate
    frames_estimate: int
    duration: float  # s
    rotation: int  # degrees clockwise that read() applies: 0, 90, 180 or 270
    has_audio: bool


def probe(path: str | Path, limits: Limits = Limits()) -> VideoInfo:  # noqa: B008 - frozen
    """Look at a video without decoding more than its first frame.

    Args:
        path: the video file.
        limits: what to refuse.
    Returns:
        Size, rate, length, rotation and whether there is sound.
    Raises:
        UnreadableVideo: the file is missing, empty, damaged, or holds no video.
        VideoTooLarge: a limit is exceeded.
    """
    with _opened(path, limits) as (container, stream, fps, count, seconds):
        frame = next(_frames(container, stream), None)
        if frame is None:
            raise UnreadableVideo(f"{path}: no frame could be decoded; the file is damaged, record or export it again")
        size = _square_pixels(frame, stream)
        size = size[::-1] if _orientation(frame)[0] else size
        return VideoInfo(*size, fps, count, seconds, _clockwise(frame), bool(container.streams.audio))


def read(path: str | Path, limits: Limits = Limits()) -> Iterator[tuple[float, np.ndarray]]:  # noqa: B008 - frozen
    """Stream the frames of a video, upright, in RGB; a damaged tail ends the stream.

    Args:
        path: the video file.
        limits: what to refuse, before and while decoding.
    Returns:
        Pairs of time in s (the source's own, strictly increasing) and image [H, W, 3] uint8 RGB.
    Raises:
        UnreadableVideo: no frame can be decoded.
        VideoTooLarge: a limit is exceeded.
    """
    with _opened(path, limits) as (container, stream, fps, _, _):
        origin, last, count, size = mux.origin(container), -math.inf, 0, None
        for count, frame in enumerate(_frames(container, stream), start=1):
            size = size or _square_pixels(frame, stream)
            time = _time(frame, origin, last, fps)
            if count > limits.frames or time > limits.seconds or frame.width * frame.height > limits.pixels:
                raise VideoTooLarge(f"{path}: goes on beyond {_in_words(limits)}; cut it or raise the limits")
            yield time, _upright_rgb(frame, size)
            last = time
        if not count:
            raise UnreadableVideo(f"{path}: no frame could be decoded; the file is damaged, record or export it again")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write(
    path: str | Path,
    frames: Iterable[np.ndarray],
    times: Sequence[float],
    audio_from: str | Path | None = None,
    crf: float = 18,
    finish: Callable[[Path], None] | None = None,
) -> int:
    """Write an H.264 mp4 from a stream of frames, with exact times and the source's sound.

    Odd sizes are padded by one repeated row or column. While it runs, ``<name>.part.mp4`` beside the target can
    be played up to its last second; the target itself is replaced only when everything is written.

    Args:
        path: target .mp4.
        frames: images [H, W, 3] uint8 RGB, all of one size; consumed one by one.
        times: [T] s, strictly increasing, one a frame.
        audio_from: clip whose sound is copied (sound that mp4 cannot hold is encoded as AAC).
        crf: x264 quality, 0 best to 51; 18 is visually lossless.
        finish: told the path of the whole temporary file before it gets the target's name; may change the file.
    Returns:
        Number of frames written.
    Raises:
        OSError: disk full, no permission, ...; an existing target is untouched and temporary files are gone.
        ValueError: no frames, other sizes, or times that do not fit the frames.
    """
    times = np.asarray(times, np.float64)
    if len(times) == 0 or not np.isfinite(times).all() or (np.diff(times) <= 0).any() or times[0] < 0:
        raise ValueError("times: expected at least one time stamp, not negative and strictly increasing")
    rate = 1 / float(np.median(np.diff(times))) if len(times) > 1 else 25.0
    return record(path, _stamped(frames, times), rate, audio_from, crf, finish)


def _stamped(frames: Iterable[np.ndarray], times: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    count = 0
    for count, frame in enumerate(frames, start=1):
        if count > len(times):
            break
        yield times[count - 1], frame
    if count != len(times):
        raise ValueError(f"frames: expected {len(times)}, one a time stamp, got {count}")


@contextmanager
def _opened(path: str | Path, limits: Limits):
    path = Path(path)
    _check_file(path)
    try:
        container = av.open(
            f"file:{path}",  # the prefix keeps a name such as "concat:a" from being a protocol
            options={
                "protocol_whitelist": "file",
                "format_whitelist": ",".join((VIDEO_FORMATS, PICTURE_FORMATS, AUDIO_FORMATS)),
            },
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(
            f"{path}: expected a video (mp4, mov, mkv, webm, avi, ...), but it cannot be read "
            f"({getattr(error, 'strerror', None) or error}); it may be cut off or damaged, record or export it again"
        ) from error
    with container:
        stream = _video_stream(path, container)
        yield container, stream, *_check_limits(path, container, stream, limits)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UnreadableVideo(f"{path}: there is no such file; check the path")
    if not path.is_file():
        raise UnreadableVideo(f"{path}: expected a video file, got a folder or a device; name the file itself")
    if path.stat().st_size == 0:
        raise UnreadableVideo(f"{path}: the file is empty (0 bytes); copy or record it again")


def _video_stream(path: Path, container):
    names = set(container.format.name.split(","))
    brand = container.metadata.get("major_brand", "").strip()
    if names & set(PICTURE_FORMATS.split(",")) or brand in PICTURE_BRANDS:
        raise UnreadableVideo(f"{path}: expected a video, got a picture; record a clip of 20 to 30 seconds instead")
    attached = getattr(av.stream, "Disposition", None)
    for stream in container.streams.video:
        if stream.codec_context is None:
            raise UnreadableVideo(f"{path}: its codec is unknown or its header damaged; export the video again")
        if attached is None or not stream.disposition & attached.attached_pic:
            stream.thread_type = "AUTO"
            return stream
    what = "only sound" if container.streams.audio else "no picture stream"
    raise UnreadableVideo(f"{path}: expected a video, but the file holds {what}; choose a file with moving pictures")


def _check_limits(path: Path, container, stream, limits: Limits) -> tuple[float, int, float]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.pixels:
        raise VideoTooLarge(
            f"{path}: {width}x{height} px a frame is more than {limits.pixels} px; export it in 4K or smaller"
        )
    seconds = stream.duration and float(stream.duration * stream.time_base)
    seconds = seconds or (container.duration or 0) / av.time_base
    count = stream.frames
    if not seconds:  # browsers' recordings carry no length: walk the packets, nothing is decoded
        count, seconds = _walk(container, stream, limits)
    fps = float(stream.average_rate or 0) or (count / seconds if seconds else 0) or 25.0
    count = count or max(1, round(seconds * fps))
    if seconds > limits.seconds or count > limits.frames:
        raise VideoTooLarge(f"{path}: {seconds:.0f} s, about {count} frames, are more than {_in_words(limits)}; cut it")
    return fps, count, seconds


def _in_words(limits: Limits) -> str:
    return f"the limit of {limits.seconds:.0f} s, {limits.frames} frames and {limits.pixels} px a frame"


def _walk(container, stream, limits: Limits) -> tuple[int, float]:
    count, first, last = 0, None, 0.0
    for packet in _packets(container, stream):
        if packet.pts is None:
            continue
        count, last = count + 1, float(packet.pts * packet.time_base)
        first = last if first is None else min(first, last)
        if count > limits.frames:
            break
    container.seek(0)
    return count, last - (first or 0.0)


def _packets(container, stream):
    try:
        yield from container.demux(stream)
    except av.FFmpegError:  # a damaged tail: what came before counts
        return


def _frames(container, stream):
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:  # one damaged packet costs its frames, not the clip
            continue
        yield from frames


def _time(frame, origin: float, last: float, fps: float) -> float:
    if frame.pts is None:
        return last + 1 / fps if math.isfinite(last) else 0.0
    time = float(frame.pts * frame.time_base) - origin
    return time if time > last else last + 0.1 / fps  # repeated or backward stamps of damaged files


def _orientation(frame) -> tuple[bool, bool, bool]:
    """Whether to transpose, then flip up-down, then left-right, to bring a frame upright."""
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
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


def _upright_rgb(frame, size: tuple[int, int]) -> np.ndarray:
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED:
        matrix = ITU709 if frame.height >= HD_HEIGHT else ITU601
    rgb = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], src_colorspace=matrix)
    transposed, up_down, left_right = _orientation(frame)
    rgb = rgb.transpose(1, 0, 2) if transposed else rgb
    rgb = rgb[::-1] if up_down else rgb
    rgb = rgb[:, ::-1] if left_right else rgb
    return np.ascontiguousarray(rgb)
