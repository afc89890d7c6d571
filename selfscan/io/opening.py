"""Open an untrusted clip: read its header and check it against the limits. Nothing is decoded here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import av.stream
from av.error import FFmpegError

from selfscan.errors import UnreadableVideo, VideoTooLarge

#: allowed demuxers; playlists and network formats are excluded because they open other files
VIDEO_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,mxf,gif,ivf,dv,nut,"
    "mjpeg,obu,vvc,vc1,h261,h263,cavsvideo,dirac,yuv4mpegpipe"
)
RAW = {*"h264,hevc,vvc,m4v,mpegvideo,mjpeg,obu,vc1,h261,h263,cavsvideo,dirac".split(",")}  # streams without a container
#: allowed only so that the error message can name the file's kind
PICTURE_FORMATS = "image2,png_pipe,apng,jpeg_pipe,jpegls_pipe,webp_pipe,bmp_pipe,tiff_pipe,psd_pipe,svg_pipe"
AUDIO_FORMATS = "mp3,wav,flac,aac,ac3,aiff,caf,amr"
PICTURE_BRANDS = ("heic", "heix", "mif1", "avif")  # pictures in an mp4-like box
PULSE = 2000  # packets read between two calls of ``pulse``


@dataclass(frozen=True)
class Limits:
    """Limits on a clip, checked in the header before decoding, and again while decoding since headers can lie."""

    pixels: int = 4096 * 4096  # a frame; accepts 4K in any orientation, rejects 8K
    seconds: float = 3600.0  # a self-scan is half a minute, a performance some minutes
    frames: int = 250_000  # an hour at 60 frames a second, with room
    patience: float = 60.0  # s without a frame after which the decoder counts as hung


@dataclass(frozen=True)
class VideoInfo:
    """The header of a video; sizes are those after rotation."""

    width: int  # px
    height: int  # px
    fps: float  # mean frames a second; only approximate for a variable frame rate
    frames_estimate: int
    duration: float  # s
    has_audio: bool
    rotation: int = 0  # degrees clockwise that read() applies: 0, 90, 180 or 270
    stills: bool = False  # single photos, one a second, not moving pictures
    warnings: tuple[str, ...] = ()  # sentences on what was changed while reading: colours, fields, rate


def opened(path: str | Path):
    """Open a container that cannot open further files or network addresses. Raises UnreadableVideo."""
    try:
        return av.open(
            f"file:{path}",  # the prefix prevents that a name such as "concat:a" selects a protocol
            options={
                "protocol_whitelist": "file",
                "format_whitelist": ",".join((VIDEO_FORMATS, PICTURE_FORMATS, AUDIO_FORMATS)),
            },
            metadata_errors="replace",
        )
    except (FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(
            f"{path}: expected a video (mp4, mov, mkv, webm, avi, ...), but it cannot be read "
            f"({getattr(error, 'strerror', None) or error}); it may be cut off or damaged, record or export it again"
        ) from error


def origin(container) -> float:
    """Start time in s, subtracted from all times: broadcast streams start at any time, other files at 0."""
    broadcast = container.format.name in ("mpegts", "mpeg")
    return (container.start_time or 0) / av.time_base if broadcast else 0.0


@contextmanager
def checked(
    path: str,
    limits: Limits,
    pulse: Callable[[int], None] = lambda number: None,
    warn: Callable[[str], None] = lambda text: None,
):
    """Open a clip and check its limits: yields container, picture stream, frames a second, number of frames, seconds.

    Args:
        pulse: called every PULSE packets with their number, while the packets of a clip without a length are counted.
        warn: called with sentences about what the clip leaves out.
    Raises: UnreadableVideo, VideoTooLarge.
    """
    _check_file(Path(path))
    with opened(path) as container:
        stream = _video_stream(path, container)
        # packets may declare a larger picture than the header; the decoder checks this before it allocates
        stream.codec_context.options = {"max_pixels": str(2 * limits.pixels + 65536)}
        yield container, stream, *_check_limits(path, container, stream, limits, pulse, warn)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UnreadableVideo(f"{path}: there is no such file; check the path")
    if not path.is_file():
        raise UnreadableVideo(f"{path}: expected a video file, got a device; name a file")
    if path.stat().st_size == 0:
        raise UnreadableVideo(f"{path}: the file is empty (0 bytes); copy or record it again")


def _video_stream(path: str, container):
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


def _check_limits(path: str, container, stream, limits: Limits, pulse, warn) -> tuple[float, int, float]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.pixels:
        raise VideoTooLarge(
            f"{path}: {width}x{height} px a frame is more than {limits.pixels} px; export it in 4K or smaller"
        )
    seconds = stream.duration and float(stream.duration * stream.time_base)
    seconds = max(seconds or (container.duration or 0) / av.time_base, 0.0)
    count = max(stream.frames, 0)
    if not seconds:  # browsers' recordings have no length: count the packets without decoding
        count, seconds = _walk(path, stream.index, limits, pulse)
    if count and (RAW & set(container.format.name.split(",")) or not seconds and not container.duration):
        fps = float(stream.guessed_rate or 0) or 25.0
        warn(f"The clip has no time stamps; it is played at {fps:g} frames a second.")
        return fps, count, count / fps
    fps = float(stream.average_rate or 0) or (count / seconds if seconds else 0) or 25.0
    count = count or max(1, round(seconds * fps))
    if seconds > limits.seconds or count > limits.frames:
        raise VideoTooLarge(f"{path}: {seconds:.0f} s, about {count} frames, are more than {in_words(limits)}; cut it")
    return fps, count, seconds


def in_words(limits: Limits) -> str:
    """The limits as words of an error message."""
    return f"the limit of {limits.seconds:.0f} s, {limits.frames} frames and {limits.pixels} px a frame"


def _walk(path: str, index: int, limits: Limits, pulse) -> tuple[int, float]:
    """Number of packets and their length in s, 0 without stamps; the file is opened anew, some cannot be sought in."""
    count, first, last = 0, None, 0.0
    with opened(path) as container:
        for number, packet in enumerate(packets(container, container.streams[index])):
            if number % PULSE == 0:
                pulse(number)
            if packet.size:
                count += 1
            if packet.pts is not None:
                last = float(packet.pts * packet.time_base)
                first = last if first is None else min(first, last)
            if count > limits.frames:
                break
    return count, last - (first or 0.0)


def packets(container, stream):
    """Yield the packets of a stream up to the first unreadable one."""
    try:
        yield from container.demux(stream)
    except FFmpegError:  # a damaged tail: keep what came before
        return
