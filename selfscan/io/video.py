"""Read and write video: rotation, variable frame rate, audio copy and limits. Frames are RGB.

Reading streams frame by frame in constant memory. A child process decodes (``decoding``), so that a clip that crashes
or hangs FFmpeg ends only the child. Writing is all or nothing: the target appears complete or not at all.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from selfscan import errors
from selfscan.errors import UnreadableVideo
from selfscan.io import isolation, mux
from selfscan.io.colour import ITU601, ITU709
from selfscan.io.decoding import SLOTS, UNDECODABLE, cpu_seconds
from selfscan.io.opening import Limits, VideoInfo
from selfscan.io.sound import Heard, SoundOf
from selfscan.types import WHOLE, Array, Span

__all__ = [
    "ITU601",
    "ITU709",
    "Heard",
    "Limits",
    "Segment",
    "SoundOf",
    "VideoInfo",
    "assemble",
    "encode_segment",
    "part_of",
    "probe",
    "rate_of",
    "read",
    "unwarned",
    "write_stream",
    "write",
]
write_stream = mux.write_stream  # like write, for a stream of unknown length
assemble, encode_segment = mux.assemble, mux.encode_segment  # like write, in segments that can be stored
part_of = mux.part_of  # the pictures of an unfinished video
Segment = mux.Segment
log = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()  # path and text of logged warnings

MEMORY = 4 << 30  # bytes of a decoder's address space; 10-bit 4K on 16 threads takes less than half
MAX_LINE = 1 << 14  # bytes, longest message of the child
ROW_SLACK = 256  # bytes of padding allowed after each row in shared memory


def probe(path: str | Path, limits: Limits = Limits(), span: Span = WHOLE) -> VideoInfo:
    """Describe a video; only its first frame is decoded.

    Args:
        path: the video file, a picture, animated or not, or a folder of pictures.
        limits: the limits that the video must keep.
        span: the part that is described.
    Returns:
        Size, rate, length, rotation, whether there is sound, and warnings.
    Raises:
        UnreadableVideo: the file is missing, empty, damaged, holds no video, or its decoder crashes or hangs.
        VideoTooLarge: a limit is exceeded.
    """
    with _Decoder(path, limits, None, span=span) as decoder:
        return decoder.info


def warned(path: str | Path, text: str) -> None:
    """Log a warning about a clip, once in this process."""
    if (str(path), text) not in _warned:
        _warned.add((str(path), text))
        log.warning("%s: %s", path, text)


def unwarned(text: str) -> object:
    """Drop a warning that is already known."""


def read(
    path: str | Path,
    limits: Limits = Limits(),
    warn: Callable[[str], object] | None = None,
    span: Span = WHOLE,
) -> Generator[tuple[float, Array], None, None]:
    """Stream the frames of a video, upright, progressive, in RGB (SDR BT.709); a damaged tail ends the stream.

    Args:
        path: the video file, a picture, animated or not, or a folder of pictures.
        limits: the limits that the video must keep, checked before and while decoding.
        warn: called with sentences about what was changed or left out (colours, fields, sizes); None = log each once.
        span: the part that is read; times count from its start.
    Returns:
        Pairs of time in s (from 0 on, strictly increasing, paced as the source's stamps) and image [H, W, 3] uint8 RGB.
    Raises:
        UnreadableVideo: no frame can be decoded, or the decoder hangs.
        VideoTooLarge: a limit is exceeded.
    """
    with _memory() as memory, _Decoder(path, limits, memory, warn or partial(warned, path), span) as decoder:
        for text in decoder.info.warnings:
            decoder.warn(text)
        yield from decoder.frames()


def write(
    path: str | Path,
    frames: Iterable[Array],
    times: Sequence[float] | Array,
    audio_from: str | Path | SoundOf | None = None,
    crf: float = 18,
    finish: Callable[[Path], None] | None = None,
    heard: Callable[[Heard], None] = mux.unheard,
) -> int:
    """Write a video from a stream of frames, with exact times and the source's sound; its name says the container.

    Odd sizes are padded by one repeated row or column. While it runs, ``<name>.part.mp4`` beside the target is
    playable, except for the last seconds. The target is replaced only when everything is written.

    Args:
        path: target (``containers``): .mp4 for H.264.
        frames: images [H, W, 3] uint8 RGB, all of one size; consumed one by one.
        times: [T] s, strictly increasing, one a frame.
        audio_from: clip whose sound is copied (sound that mp4 cannot hold is encoded as AAC).
        crf: x264 quality, 0 best to 51; 18 is visually lossless.
        finish: called with the path of the complete temporary file, before it replaces the target; may change the file.
        heard: called with what became of the sound.
    Returns:
        Number of frames written.
    Raises:
        OSError: disk full, no permission, ...; an existing target is untouched and temporary files are deleted.
        ValueError: no frames, different sizes, or times that do not match the frames.
        UnknownContainer: the name asks for a kind of file that is not written.
    """
    stamps = np.asarray(times, np.float64)
    return write_stream(path, _stamped(frames, stamps), rate_of(stamps), audio_from, crf, finish, heard)


def rate_of(times: Sequence[float] | Array) -> float:
    """Frames a second from the median step of times [T] s. Raises ValueError for negative or decreasing times."""
    stamps = np.asarray(times, np.float64)
    if len(stamps) == 0 or not np.isfinite(stamps).all() or (np.diff(stamps) <= 0).any() or stamps[0] < 0:
        raise ValueError("times: expected at least one time stamp, not negative and strictly increasing")
    return 1 / float(np.median(np.diff(stamps))) if len(stamps) > 1 else 25.0


def _stamped(frames: Iterable[Array], times: Array) -> Iterator[tuple[float, Array]]:
    count = 0
    for count, frame in enumerate(frames, start=1):
        if count > len(times):
            break
        yield times[count - 1], frame
    if count != len(times):
        raise ValueError(f"frames: expected {len(times)}, one a time stamp, got {count}")


def _memory():
    """An empty anonymous file, in memory if the system supports it."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


class _Decoder:
    """The parent's side of a decoding child. Its messages are checked, since a malicious clip may control it."""

    def __init__(
        self, path: str | Path, limits: Limits, memory, warn: Callable[[str], object] = unwarned, span: Span = WHOLE
    ):
        self.path, self.limits, self.memory, self.pending, self.warn = path, limits, memory, b"", warn
        request = {"path": str(Path(path)), "limits": asdict(limits), "memory": memory and memory.fileno()}
        request["span"] = asdict(span)
        rations = isolation.Rations(MEMORY, cpu_seconds(limits))
        self.child = isolation.start(
            "selfscan.io.decoding:serve", request, rations, [memory.fileno()] if memory else []
        )

    def __enter__(self) -> _Decoder:
        try:
            self._begin()
        except BaseException:
            isolation.stop(self.child)
            raise
        return self

    def __exit__(self, *_) -> None:
        isolation.stop(self.child)

    def frames(self) -> Iterator[tuple[float, Array]]:
        ring = self._ring()
        count, last = 0, -math.inf
        while True:
            self._free(SLOTS if not count else 1)
            said = self._next()
            if said is None:
                self._ended_early(count)
                return
            if "end" in said:
                return
            picture, last = self._picture(said, ring, last)
            count += 1
            yield last, picture

    def _begin(self) -> None:
        said = self._next()
        if said is None:
            raise UnreadableVideo(f"{self.path}: {self._why()}; export it again")
        info = said["info"] | {"warnings": tuple(map(str, said["info"]["warnings"]))}
        self.info, self.slot = VideoInfo(**info), int(said["slot"])
        width, height = self.info.width, self.info.height
        largest = (3 * width + ROW_SLACK) * height + ROW_SLACK * width
        if min(width, height) < 1 or width * height > self.limits.pixels or not 0 < self.slot <= largest:
            raise UnreadableVideo(f"{self.path}: {UNDECODABLE}")

    def _ring(self) -> mmap.mmap:
        import fcntl

        try:
            os.ftruncate(self.memory.fileno(), SLOTS * self.slot)
        except OSError as error:  # out of memory, or above the file size limit
            error.filename = str(self.path)
            raise
        if hasattr(fcntl, "F_ADD_SEALS"):  # if the child shrank the file, this process would get a bus error
            with suppress(OSError):
                fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return mmap.mmap(self.memory.fileno(), SLOTS * self.slot, prot=mmap.PROT_READ)

    def _free(self, slots: int) -> None:
        with suppress(BrokenPipeError):  # the child has ended; its last messages are still in the pipe
            isolation.pipes(self.child)[0].write(bytes(slots))

    def _picture(self, said: dict[str, Any], ring: mmap.mmap, last: float) -> tuple[Array, float]:
        """Check a message; return a copy of its picture, and its time."""
        (width, height), row, at, time = said["size"], said["row"], said["slot"], said["time"]
        fits = 0 <= at < SLOTS and min(width, height) > 0 and 3 * width <= abs(row) and abs(row) * height <= self.slot
        if not fits or not last < time < math.inf:
            raise UnreadableVideo(f"{self.path}: {UNDECODABLE}")
        first = at * self.slot + (0 if row > 0 else (height - 1) * -row)
        image = np.ndarray((height, width, 3), np.uint8, ring, first, (row, 3, 1))
        transposed, up_down, left_right = said["turned"]
        image = image.transpose(1, 0, 2) if transposed else image
        image = image[::-1] if up_down else image
        image = image[:, ::-1] if left_right else image
        return image.copy(order="C"), time

    def _next(self) -> dict[str, Any] | None:
        """The next message; None if the child ended without one. Raises the error that the child reports."""
        while True:
            line = self._line()
            if line is None:
                return None
            try:
                said = json.loads(line)
            except ValueError:
                return None
            if "failed" in said:
                raise getattr(errors, said["failed"])(said["text"])
            if "warning" in said:
                self.warn(str(said["warning"]))
            elif "alive" not in said:
                return said

    def _line(self) -> bytes | None:
        pipe = isolation.pipes(self.child)[1].fileno()
        while b"\n" not in self.pending:
            if not isolation.wait_for(pipe, self.limits.patience):
                raise UnreadableVideo(
                    f"{self.path}: its decoder hangs, it sent nothing for {self.limits.patience:g} s; "
                    "the file may be damaged, export it again"
                )
            block = os.read(pipe, MAX_LINE)
            if not block or len(self.pending) > MAX_LINE:
                return None
            self.pending += block
        line, _, self.pending = self.pending.partition(b"\n")
        return line

    def _ended_early(self, count: int) -> None:
        why = self._why()
        if not count:
            raise UnreadableVideo(f"{self.path}: {why}; export it again")
        self.warn(f"The clip ends after {count} frames, since {why}; the rest is left out.")

    def _why(self) -> str:
        code = isolation.ended(self.child)
        if code == -signal.SIGXCPU:
            return "its decoder ran out of processor time, the file may be damaged"
        if code < 0:
            return f"its decoder crashed ({signal.Signals(-code).name}), the file may be damaged or malicious"
        return f"its decoder failed (exit code {code})"
