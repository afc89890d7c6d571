"""Write a video in two passes, all or nothing: encode the pictures, then join them with the sound.

The input is raw pictures (``write_stream``), or segments that were encoded and stored separately (``encode_segment``,
``assemble``).
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError

from selfscan.io import codecs, convert, naming, sound
from selfscan.io.containers import FOLDER, MP4, Container, container_of
from selfscan.io.pictures import is_picture
from selfscan.io.sound import Heard, SoundOf
from selfscan.types import Array

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segment:
    """A run of encoded pictures that can be decoded without any other."""

    data: Array  # [sum of sizes] uint8: the packets, in decoding order
    sizes: Array  # [T] int64 bytes of each packet
    shown: Array  # [T] int64 presentation time of each, in ticks of ``codecs.TIME_BASE``
    keys: Array  # [T] bool: True = a key frame
    shape: Array  # [2] int64 height and width of the pictures, px


def unheard(heard: Heard) -> None:
    """The default for ``heard``; it does nothing."""


def write_stream(
    path: str | Path,
    timed: Iterable[tuple[float, Array]],
    rate: float,
    audio_from: str | Path | SoundOf | None = None,
    crf: float = 18,
    finish: Callable[[Path], None] | None = None,
    heard: Callable[[Heard], None] = unheard,
    container: Container | None = None,
) -> int:
    """Write a video from a stream of unknown length; see ``video.write``.

    Args:
        path: target; its ending says the container (``containers``).
        timed: pairs of time in s (not negative, strictly increasing) and image [H, W, 3] uint8 RGB, all of one size.
        rate: approximate frames a second; the times are exact in any case.
        audio_from: clip whose sound is copied.
        crf: x264 quality.
        finish: called with the path of the complete temporary file, before it replaces the target; may change the file.
        heard: called with what became of the sound.
        container: of the target; None = what its name says.
    Returns:
        Number of frames written.
    Raises:
        OSError: disk full, no permission, ...; an existing target is untouched and temporary files are deleted.
        ValueError: no frames, different sizes, or times that do not increase.
        UnknownContainer: the name asks for a kind of file that is not written.
    """
    kind = container or container_of(path)
    return len(_whole(path, kind, lambda part: encode(part, timed, rate, crf, kind.codec), audio_from, finish, heard))


def assemble(
    path: str | Path,
    segments: Iterable[Segment],
    rate: float,
    audio_from: str | Path | SoundOf | None = None,
    crf: float = 18,
    finish: Callable[[Path], None] | None = None,
    heard: Callable[[Heard], None] = unheard,
    container: Container | None = None,
) -> int:
    """Like ``write_stream``, from encoded segments.

    Args:
        path: target.
        segments: made by ``encode_segment`` with the same rate and crf and the codec of the target's container, in
            order; consumed one by one.
        rate, audio_from, crf, finish, heard, container: see ``write_stream``.
    Returns:
        Number of frames written.
    Raises:
        OSError, ValueError, UnknownContainer: see ``write_stream``.
    """
    kind = container or container_of(path)
    return len(
        _whole(path, kind, lambda part: _chain(part, segments, rate, crf, kind.codec), audio_from, finish, heard)
    )


def part_of(path: Path) -> Path:
    """The file that holds the pictures of an unfinished video; it can be played."""
    return naming.derived(path, after=".part.mp4", stem=path.stem)


def _whole(path: str | Path, container: Container, fill: Callable[[Path], Array], audio_from, finish, heard) -> Array:
    """Let ``fill`` write the pictures, add the sound, call ``finish``, then rename to ``path``; returns the times."""
    path, ending = Path(path), "" if container == FOLDER else Path(path).suffix
    part, whole = part_of(path), naming.derived(path, after=f".mux.part{ending}", stem=path.stem)
    try:
        _remove(whole)
        times = fill(part)
        heard(join(part, whole, times, audio_from, container))
        if finish is not None:
            finish(whole)
        _put(whole, path)
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
                _remove(leftover)
    return times


def _put(whole: Path, path: Path) -> None:
    """Flush a finished file or folder to disk and give it its name; an older one is replaced."""
    for file in sorted(whole.iterdir()) if whole.is_dir() else [whole]:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    if not whole.is_dir() or not path.is_dir():
        os.replace(whole, path)
        return
    old = naming.derived(path, after=".old.part", stem=path.stem)
    _remove(old)
    os.rename(path, old)
    os.rename(whole, path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def encode(path: Path, timed: Iterable[tuple[float, Array]], rate: float, crf: float, codec: str = "libx264") -> Array:
    """Encode frames into a fragmented mp4, which stays playable if the program is killed.

    Args:
        path: file to write.
        timed: pairs of time in s and image [H, W, 3] uint8 RGB.
        rate: approximate frames a second.
        crf: x264 quality.
        codec: a codec of ``containers``.
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
                stream = codecs.add_stream(container, frame.shape, rate, crf, codec)
            container.mux(stream.encode(codecs.stored(frame, time, codec)))
            times.append(time)
        if stream is not None:  # always true here: _checked raises if there is no picture
            container.mux(stream.encode(None))
    return np.array(times)


def encode_segment(timed: Iterable[tuple[float, Array]], rate: float, crf: float, codec: str = "libx264") -> Segment:
    """Encode frames as one independent segment, which ``assemble`` joins with others.

    Equal frames, times, rate and crf give an equal segment, independent of earlier segments.

    Args:
        timed: pairs of time in s and image [H, W, 3] uint8 RGB. rate: approximate frames a second.
        crf: x264 quality. codec: that of the container (``containers.container_of``).
    Raises:
        ValueError: no frames, different sizes, or a time that is not later than the one before.
    """
    context: Any = None  # av.VideoCodecContext
    packets, shape = [], ()
    for time, frame in _checked(timed):
        if context is None:
            context, shape = av.CodecContext.create(codec, "w"), frame.shape
            context.framerate, context.options = codecs.rational(rate), codecs.options_of(rate, crf, codec)
            context.flags |= Flags.global_header  # mp4 stores the codec's header once, before all segments
            codecs.prepare(context, shape, codec)
        packets += context.encode(codecs.stored(frame, time, codec))
    packets += [] if context is None else context.encode(None)
    return Segment(
        np.frombuffer(b"".join(map(bytes, packets)), np.uint8),
        np.array([p.size for p in packets]),
        np.array([p.pts for p in packets]),
        np.array([p.is_keyframe for p in packets]),
        np.array(shape[:2]),
    )


def _chain(path: Path, segments: Iterable[Segment], rate: float, crf: float, codec: str) -> Array:
    """Write segments in order into a fragmented mp4; returns the times [T] s.

    The decoding time of a packet is the presentation time ``codecs.HELD_BACK`` pictures earlier. Decoding times then
    increase, as mp4 requires, also across segments, and never exceed the presentation times.
    """
    stream, shape, shown, written, held = None, [], [], 0, codecs.HELD_BACK.get(codec, 0)
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "frag_keyframe+delay_moov"}) as container:
        for segment in segments:
            if stream is None:
                shape = segment.shape.tolist()
                stream = codecs.add_stream(container, (*map(int, shape), 3), rate, crf, codec)
            if segment.shape.tolist() != shape:
                raise ValueError(f"frames: expected images of shape {shape}, got {segment.shape.tolist()}")
            if shown and segment.shown.min() <= shown[-1]:
                raise ValueError(f"times: expected a segment after {shown[-1] * codecs.TIME_BASE} s")
            shown += np.sort(segment.shown).tolist()
            ends = np.cumsum(segment.sizes)
            for end, size, when, key in zip(ends, segment.sizes, segment.shown, segment.keys):
                packet = av.Packet(segment.data[end - size : end].tobytes())
                packet.stream, packet.time_base, packet.is_keyframe = stream, codecs.TIME_BASE, bool(key)
                packet.pts, packet.dts = int(when), _decoded(shown, written, held)
                container.mux(packet)
                written += 1
        if stream is None:
            raise ValueError("frames: expected at least one, got none")
    return np.array(shown) * float(codecs.TIME_BASE)


def _decoded(shown: list[int], number: int, held: int) -> int:
    """Decoding time of packet ``number``, from the sorted presentation times up to its segment's end (ticks)."""
    return shown[number - held] if number >= held else shown[0] - (held - number)


def _checked(timed: Iterable[tuple[float, Array]]) -> Iterable[tuple[float, Array]]:
    shape, count, last = None, 0, -codecs.TIME_BASE
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


def join(
    pictures: Path, path: Path, times: Array, audio_from: str | Path | SoundOf | None, container: Container = MP4
) -> Heard:
    """Make the finished file of encoded pictures and the sound of a clip.

    If the sound cannot be joined, the result is silent and a warning is logged.

    Args:
        pictures: mp4 written by ``encode``.
        path: file, or folder of PNGs, to write.
        times: [T] s of the pictures; sound after the last picture is dropped.
        audio_from: clip whose sound is copied, or None.
        container: of ``path``.
    Returns: what became of the sound.
    """
    first, until = float(times[0]), float(times[-1] + (np.diff(times).mean() if len(times) > 1 else 0.04))
    source = SoundOf(audio_from) if isinstance(audio_from, (str, Path)) else audio_from
    source = None if source is not None and is_picture(source.path) else source
    if container.pictures:
        count = sound.tracks_apart(source.path) if source else 0
        convert.converted(pictures, path, times, container)
        return Heard(count, lost=f"{container.words} holds no sound" if count else "")
    lost = ""
    if source is not None:
        try:
            return sound.join_apart(pictures, path, (first, until), source, container)
        except sound.NoSound as error:
            lost = str(error)
            log.warning("%s: its sound could not be copied (%s); the result has none", source.path, lost)
    sound.write_silent(pictures, path, first, container)
    return Heard(lost=lost)
