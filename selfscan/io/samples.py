"""Decode sound and encode it again on an even clock: gaps become silence, overlaps are cut."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from selfscan.types import Array

QUIET = 1e-3  # of full scale: a track that never exceeds it is silent
SLACK = 0.005  # s by which stamps may differ from the count of samples before silence is put in or samples are cut
BLOCK = 1024  # samples handed to the encoder at once
RATES = {"aac": (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000), "libopus": (48000,)}


def is_quiet(frame) -> bool:
    """Whether a decoded frame of sound holds only silence."""
    values = frame.to_ndarray()
    if values.dtype == np.uint8:
        return bool(np.abs(values.astype(np.int16) - 128).max(initial=0) <= 1)
    full = 1.0 if values.dtype.kind == "f" else -float(np.iinfo(values.dtype).min)
    return bool(np.abs(values.astype(np.float64)).max(initial=0) <= QUIET * full)


def encoded(out, packets: Iterator, shift, until: float, container, damaged: list[float]) -> Iterator:
    """Add a stream of sound to an output and yield its packets.

    Args:
        out: the output. packets: of the sound; codec, rate and channels may change.
        shift: gives the s to add to a stamp, from a packet, its stamp and its length in s (``sound``).
        until: s after which sound is dropped.
        container: of the output.
        damaged: takes the length, s, of each packet that cannot be decoded.
    """
    frames = _decoded(packets, shift, damaged)
    first = next(frames, None)
    if first is None:
        return
    rates = RATES[container.sound]
    rate = first.sound.sample_rate if first.sound.sample_rate in rates else rates[0]
    layout = "mono" if len(first.sound.layout.channels) == 1 else "stereo"
    target = out.add_stream(container.sound, rate=rate)
    target.codec_context.layout = layout
    count, waiting = 0, np.zeros((1 if layout == "mono" else 2, 0), np.float32)
    for piece in _laid(_resampled(chain([first], frames), rate, layout), rate, round(until * rate)):
        waiting = np.concatenate([waiting, piece], 1)
        while waiting.shape[1] >= BLOCK:
            yield from target.encode(_frame(waiting[:, :BLOCK], count, rate, layout))
            count, waiting = count + BLOCK, waiting[:, BLOCK:]
    if waiting.shape[1]:
        yield from target.encode(_frame(waiting, count, rate, layout))
    yield from target.encode(None)


@dataclass
class _Piece:
    """Decoded sound."""

    time: float | None  # s in the new clip; None = after the piece before
    window: tuple[float, float]  # s, outside of which it is cut
    sound: Any  # a decoded frame, or samples [channels, n] float32


def _decoded(packets: Iterator, shift, damaged: list[float]) -> Iterator[_Piece]:
    """The frames of a track; damaged packets are left out."""
    for packet in packets:
        stamp, offset = packet.dts if packet.dts is not None else packet.pts, 0.0
        if stamp is not None:
            offset = shift(packet, float(stamp * packet.time_base), float((packet.duration or 0) * packet.time_base))
        try:
            decoded = packet.decode()
        except FFmpegError:
            damaged.append(float((packet.duration or 0) * packet.time_base))
            continue
        for frame in decoded:
            time = None if frame.pts is None else float(frame.pts * frame.time_base) + offset
            yield _Piece(time, shift.window(), frame)


def _resampled(frames: Iterator[_Piece], rate: int, layout: str) -> Iterator[_Piece]:
    """The samples of all frames in one rate and layout; those of the frames may change."""
    resampler: Any = None  # av.AudioResampler
    form, window = None, (-math.inf, math.inf)
    for piece in frames:
        frame, time, window = piece.sound, piece.time, piece.window
        found = frame.format.name, frame.layout.name, frame.sample_rate
        if found != form:
            if resampler is not None:
                yield from (_Piece(None, window, rest.to_ndarray()) for rest in resampler.resample(None))
            resampler, form = av.AudioResampler(format="fltp", layout=layout, rate=rate), found
        frame.pts = None
        for part in resampler.resample(frame):
            yield _Piece(time, window, part.to_ndarray())
            time = None
    if resampler is not None:
        yield from (_Piece(None, window, rest.to_ndarray()) for rest in resampler.resample(None))


def _laid(pieces: Iterator[_Piece], rate: int, end: int) -> Iterator[Array]:
    """Samples without gaps or overlaps from time 0 to sample ``end``."""
    at, done = None, 0  # where the next sample belongs; samples that are given out
    for piece in pieces:
        due = at if piece.time is None else round(piece.time * rate)
        if at is None or due is not None and abs(due - at) > SLACK * rate:
            at = due or 0
        values = piece.sound
        first = max(done, _sample(piece.window[0], rate))
        last = min(at + values.shape[1], end, _sample(piece.window[1], rate))
        if last > max(first, at):
            if max(first, at) > done:
                yield np.zeros((len(values), max(first, at) - done), np.float32)
            yield values[:, max(first, at) - at : last - at]
            done = last
        at += values.shape[1]


def _sample(time: float, rate: int) -> int:
    return round(min(max(time, -1e6), 1e6) * rate)


def _frame(values: Array, count: int, rate: int, layout: str):
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, count, Fraction(1, rate)
    return frame
