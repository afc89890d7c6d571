"""Open an untrusted clip: read its header and check it against the limits. Nothing is decoded here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import av.stream
from av.error import FFmpegError

from selfscan.errors import UnreadableVideo, VideoTooLarge
from selfscan.io import gif
from selfscan.io.clock import Clock
from selfscan.io.joined import Part, Slice, parts
from selfscan.span import WHOLE, Span

#: allowed demuxers; playlists and network formats are excluded because they open other files
VIDEO_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,mxf,gif,ivf,dv,nut,"
    "mjpeg,obu,vvc,vc1,h261,h263,cavsvideo,dirac,yuv4mpegpipe"
)
RAW = {*"h264,hevc,vvc,m4v,mpegvideo,mjpeg,obu,vc1,h261,h263,cavsvideo,dirac".split(",")}  # streams without a container
#: allowed only so that the error message can name the file's kind
PICTURE_FORMATS = "image2,png_pipe,apng,jpeg_pipe,jpegls_pipe,webp_pipe,bmp_pipe,tiff_pipe,psd_pipe,svg_pipe"
AUDIO_FORMATS = "mp3,wav,flac,aac,ac3,aiff,caf,amr"
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # pictures in an mp4-like box
PICTURE_BRANDS = ("avif",)
RAW_SUFFIXES = {".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raf"}  # of cameras
BROADCAST = {"mpegts", "mpeg"}  # formats without a length or an index, whose stamps may jump
WALKED = 256 << 20  # bytes: such a file up to this size is read once to know its length
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


def opened(path: str | Path, part: Part | None = None):
    """Open a container, or a part of it, that can open no other files or addresses. Raises UnreadableVideo."""
    try:
        return av.open(
            Slice(path, part) if part else f"file:{path}",  # the prefix: a name such as "concat:a" selects no protocol
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


def can_jump(container) -> bool:
    """Whether the time stamps of a container can jump; the pauses of an animated picture are meant."""
    return not {"gif", "apng", "webp"} & {name.split("_")[0] for name in container.format.name.split(",")}


@contextmanager
def checked(
    path: str,
    limits: Limits,
    pulse: Callable[[int], None] = lambda number: None,
    warn: Callable[[str], None] = lambda text: None,
    span: Span = WHOLE,
):
    """Open a clip and check its limits: yields container, picture stream, frames a second, number of frames, seconds.

    Args:
        pulse: called every PULSE packets with their number, while the packets of a clip without a length are counted.
        warn: called with sentences about what the clip leaves out.
        span: the part that is used: the number and the seconds are those of the part, and so are the limits.
    Raises: UnreadableVideo, VideoTooLarge.
    """
    _check_file(Path(path))
    with opened(path) as container:
        stream = _video_stream(path, container)
        # packets may declare a larger picture than the header; the decoder checks this before it allocates
        stream.codec_context.options = {"max_pixels": str(2 * limits.pixels + 65536)}
        yield container, stream, *_check_limits(path, container, stream, limits, pulse, warn, span)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UnreadableVideo(f"{path}: there is no such file; check the path")
    if not path.is_file():
        raise UnreadableVideo(f"{path}: expected a video file, got a device; name a file")
    if path.stat().st_size == 0:
        raise UnreadableVideo(f"{path}: the file is empty (0 bytes); copy or record it again")
    refuse_unread(path)


def refuse_unread(path: Path) -> None:
    """Raise UnreadableVideo for a HEIC, JPEG XL or raw camera picture: what would be read is one tile or a preview."""
    with open(path, "rb") as file:
        head = file.read(64)
    heic = head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and b"avif" not in head
    jxl = head[:2] == b"\xff\x0a" or head[4:12] == b"JXL \r\n\x87\n"
    raw = path.suffix.lower() in RAW_SUFFIXES and head[:2] in (b"II", b"MM", b"FU") or head[4:11] == b"ftypcrx"
    if heic or jxl or raw:
        kind = "HEIC" if heic else "JPEG XL" if jxl else "raw camera"
        raise UnreadableVideo(f"{path}: {kind} pictures are not read; export it as JPEG or PNG")


def _video_stream(path: str, container):
    names = set(container.format.name.split(","))
    brand = container.metadata.get("major_brand", "").strip()
    if names & set(PICTURE_FORMATS.split(",")) or brand in PICTURE_BRANDS:
        raise UnreadableVideo(f"{path}: expected a video, got a picture; record a clip of 20 to 30 seconds instead")
    stream = pictures_of(container)
    if stream is not None:
        if stream.codec_context is None:
            raise UnreadableVideo(f"{path}: its codec is unknown or its header damaged; export the video again")
        stream.thread_type = "AUTO"
        return stream
    what = "only sound" if container.streams.audio else "no picture stream"
    raise UnreadableVideo(f"{path}: expected a video, but the file holds {what}; choose a file with moving pictures")


def pictures_of(container):
    """The stream of moving pictures, or None; a cover picture is none."""
    cover = av.stream.Disposition.attached_pic
    found = [s for s in container.streams.video if s.codec_context is None or not s.disposition & cover]
    if container.metadata.get("major_brand") == "avis":  # its first stream is the still picture beside the animation
        found.sort(key=lambda stream: -stream.frames)
    return found[0] if found else None


def frames_a_second(stream) -> float:
    """Frames a second as the header says, 25 if it does not."""
    return float(stream.average_rate or 0) or 25.0


def _check_limits(path: str, container, stream, limits: Limits, pulse, warn, span: Span) -> tuple[float, int, float]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.pixels:
        raise VideoTooLarge(
            f"{path}: {width}x{height} px a frame is more than {limits.pixels} px; export it in 4K or smaller"
        )
    count, seconds = max(stream.frames, 0), _header_seconds(container, stream)
    rate = float(stream.average_rate or 0)
    delays = gif.delays(path) if container.format.name == "gif" else []
    if delays:
        count, seconds, rate = len(delays), sum(gif.shown(delays)) / 100, 0.0
        short = sum(delay < gif.SHORTEST for delay in delays)
        if short and count > 1:
            warn(gif.told(short, count))
    fps = rate or (count / seconds if seconds and count else 0) or 25.0
    too_long = seconds > limits.seconds or max(count, seconds * fps) > limits.frames
    formats = set(container.format.name.split(","))
    jumping = container.size <= WALKED and bool(BROADCAST & formats or parts(path, container.format.name, "video"))
    if not seconds or jumping or too_long:  # no length, or one from stamps that may jump: count without decoding
        count, seconds = _walk(path, fps, limits, pulse)
    if count and (RAW & formats or not seconds and not container.duration):
        fps = float(stream.guessed_rate or 0) or 25.0
        warn(f"The clip has no time stamps; it is played at {fps:g} frames a second.")
        seconds = span.length(count / fps)
        return fps, max(1, min(count, round(seconds * fps))), seconds
    fps = rate or (count / seconds if seconds else 0) or 25.0
    count, part = count or max(1, round(seconds * fps)), span.length(seconds)
    if span != WHOLE:
        count, seconds = max(1, round(count * part / seconds)) if seconds else 1, part
    if seconds > limits.seconds or count > limits.frames:
        raise VideoTooLarge(f"{path}: {seconds:.0f} s, about {count} frames, are more than {in_words(limits)}; cut it")
    return fps, count, seconds


def _header_seconds(container, stream) -> float:
    """Length in s as the header says; 0 if it does not."""
    seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / av.time_base
    if not stream.duration and "matroska" in container.format.name:  # counted from 0, not from the first picture
        seconds -= max(container.start_time or 0, 0) / av.time_base
    return max(seconds, 0.0)


def in_words(limits: Limits) -> str:
    """The limits as words of an error message."""
    return f"the limit of {limits.seconds:.0f} s, {limits.frames} frames and {limits.pixels} px a frame"


def _walk(path: str, fps: float, limits: Limits, pulse) -> tuple[int, float]:
    """Number of pictures and their length in s, 0 without stamps; the file is opened anew, some cannot be sought in."""
    with opened(path) as container:
        count, clock = 0, Clock(fps, can_jump(container))
        for number, packet in enumerate(moving(path, container, pictures_of(container))):
            if number % PULSE == 0:
                pulse(number)
            if packet.stream.type == "audio":
                clock.sound(packet)
            elif packet.size:
                clock.picture(packet)
                count += 1
            if count > limits.frames or clock.seconds() > limits.seconds:
                break
        return count, clock.seconds()


def moving(path: str | Path, container, stream, kind: str = "video"):
    """Yield the packets of a clip's pictures and of its first sound in file order, over all parts of a joined file.

    Args:
        path: the file. container, stream: of the file as a whole.
        kind: of the streams whose change begins a part (``joined.parts``): "video", so that the decoder of the
            pictures goes on where the sound alone changes, or "" for each change.
    """
    pieces = parts(path, container.format.name, kind)
    if container.format.name == "gif":
        yield from gif.paced(packets(container, stream), path)
    elif not pieces:
        yield from packets(container, stream, *container.streams.audio[:1])
    for part in pieces:
        with suppress(UnreadableVideo), opened(path, part) as piece:
            own = pictures_of(piece)
            if own is not None and own.codec_context is not None:
                own.codec_context.options, own.thread_type = stream.codec_context.options, "AUTO"
                yield from packets(piece, own, *piece.streams.audio[:1])


def packets(container, *streams):
    """Yield the packets of some streams in file order, up to the first unreadable one."""
    try:
        yield from container.demux(*streams)
    except FFmpegError:  # a damaged tail: keep what came before
        return
