"""The child process of ``video``: open a clip from a stranger, check it, decode it, and hand over its pictures.

FFmpeg's demuxers and decoders run in this process alone, with limits on its memory, time and files (``isolation``).
Pictures go to the parent through memory that both share; everything else is a line of JSON. Only PyAV is imported.
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
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.stream
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from selfscan.errors import UnreadableVideo, VideoTooLarge

#: demuxers that hold videos; playlists and network formats are left out on purpose, they open other files
VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,mxf,gif,ivf,dv,nut"
#: known only so that the error can say what the file is
PICTURE_FORMATS = "image2,png_pipe,apng,jpeg_pipe,jpegls_pipe,webp_pipe,bmp_pipe,tiff_pipe,psd_pipe,svg_pipe"
AUDIO_FORMATS = "mp3,wav,flac,aac,ac3,aiff,caf,amr"
PICTURE_BRANDS = ("heic", "heix", "mif1", "avif")  # pictures in an mp4-like box
HD_HEIGHT = 720  # px; untagged video of at least this height is BT.709, below it BT.601, as players assume
ITU709, ITU601, UNSPECIFIED = 1, 5, 2  # FFmpeg's AVColorSpace / SWS_CS numbers
SLOTS = 3  # pictures in the shared memory: one being read, one waiting, one being written
PULSE = 2000  # packets read between two messages to the parent
LEAST_STEP = 1e-5  # s between two frames; damaged files repeat a time or go back, and no container tells less apart
UNDECODABLE = "no frame could be decoded; the file is damaged, record or export it again"


@dataclass(frozen=True)
class Limits:
    """What is refused: before anything is decoded where the header says it, while decoding where it lies."""

    pixels: int = 4096 * 4096  # a frame: 8K is refused, 4K in any orientation is not
    seconds: float = 3600.0  # a self-scan is half a minute, a performance some minutes
    frames: int = 250_000  # an hour at 60 frames a second, with room
    patience: float = 60.0  # s of running time without a frame


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


def serve(request: dict) -> None:
    """Be the child of ``video.probe`` and ``video.read``: say what the clip is, then give frames as they are asked for.

    Args:
        request: path, limits (a dict), memory (descriptor of the shared memory) or None to look only.
    """
    path, limits = request["path"], Limits(**request["limits"])
    try:
        _serve(path, limits, request["memory"])
    except (UnreadableVideo, VideoTooLarge) as error:
        _say(failed=type(error).__name__, text=str(error))
    except MemoryError:
        _say(failed="UnreadableVideo", text=f"{path}: decoding it takes more memory than a clip may; export it anew")


def opened(path: str | Path):
    """A container that opens no other file, over no protocol. Raises UnreadableVideo."""
    try:
        return av.open(
            f"file:{path}",  # the prefix keeps a name such as "concat:a" from being a protocol
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
    """Time in s that counts as zero: broadcast streams start their clock anywhere, files at 0."""
    broadcast = container.format.name in ("mpegts", "mpeg")
    return (container.start_time or 0) / av.time_base if broadcast else 0.0


def _say(**message) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _serve(path: str, limits: Limits, memory: int | None) -> None:
    with _opened(path, limits) as (container, stream, fps, count, seconds):
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
    """Write each picture into the next free slot and say so; the parent frees slots by writing to our stdin."""
    free, ring, last, count = 0, None, -math.inf, 0
    frame, picture = first
    del first
    gc.freeze()  # what there is now stays: looking for garbage then takes microseconds
    while True:
        time = _time(frame, *clock, last)
        count += 1
        if count > limits.frames or time > limits.seconds or frame.width * frame.height > limits.pixels:
            raise VideoTooLarge(f"{path}: goes on beyond {_in_words(limits)}; cut it or raise the limits")
        if not free:
            free = len(os.read(0, SLOTS))
        if not free:  # the parent is gone
            return
        ring = ring or mmap.mmap(memory, SLOTS * slot)
        at = (count - 1) % SLOTS
        row = _put(ring, at * slot, slot, picture)
        free -= 1
        _say(time=time, slot=at, row=row, size=[picture.width, picture.height], turned=_orientation(frame))
        last = time
        _renew(limits)
        del frame, picture
        gc.collect()  # PyAV's frames and their side data hold each other
        following = next(rest, None)
        if following is None:
            _say(end=count)
            return
        frame, picture = following


def _put(ring: mmap.mmap, start: int, slot: int, picture) -> int:
    """Copy a picture's rows into the memory; return bytes from row to row, negative where the last one comes first."""
    plane, tight = picture.planes[0], 3 * picture.width
    row, data = plane.line_size, memoryview(plane).cast("B")
    if len(data) <= slot:
        ring[start : start + len(data)] = data
        return row
    for y in range(picture.height):  # wider rows than the first picture's
        ring[start + y * tight : start + (y + 1) * tight] = data[y * abs(row) : y * abs(row) + tight]
    return tight if row > 0 else -tight


def _renew(limits: Limits) -> None:
    """Give the next frame as much processor time as the last one was allowed."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + cpu_seconds(limits)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def cpu_seconds(limits: Limits) -> int:
    """Processor time of one frame: all processors as long as the parent is patient."""
    return math.ceil(limits.patience * (os.cpu_count() or 1)) + 10


@contextmanager
def _opened(path: str, limits: Limits):
    _check_file(Path(path))
    with opened(path) as container:
        stream = _video_stream(path, container)
        # a decoder may be told of a larger picture than the header names: it looks before it takes the memory
        stream.codec_context.options = {"max_pixels": str(2 * limits.pixels + 65536)}
        yield container, stream, *_check_limits(path, container, stream, limits)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UnreadableVideo(f"{path}: there is no such file; check the path")
    if not path.is_file():
        raise UnreadableVideo(f"{path}: expected a video file, got a folder or a device; name the file itself")
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


def _check_limits(path: str, container, stream, limits: Limits) -> tuple[float, int, float]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.pixels:
        raise VideoTooLarge(
            f"{path}: {width}x{height} px a frame is more than {limits.pixels} px; export it in 4K or smaller"
        )
    seconds = stream.duration and float(stream.duration * stream.time_base)
    seconds = max(seconds or (container.duration or 0) / av.time_base, 0.0)
    count = max(stream.frames, 0)
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
    for number, packet in enumerate(_packets(container, stream)):
        if number % PULSE == 0:
            _say(alive=number)
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
    except FFmpegError:  # a damaged tail: what came before counts
        return


def _frames(container, stream):
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except FFmpegError:  # one damaged packet costs its frames, not the clip
            continue
        yield from frames


def _pictures(container, stream, limits: Limits) -> Iterator[tuple]:
    """Pairs of decoded frame and its RGB picture, all of the first one's shown size."""
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
        except (FFmpegError, ValueError):  # a frame that cannot be shown is a damaged one
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
    """Whether to transpose, then flip up-down, then left-right, to bring a frame upright."""
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
