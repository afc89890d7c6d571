"""One clock for the pictures and the sound of a clip, made from whatever time stamps its container gives.

A clip's time starts at 0 with its first decoded picture. Stamps may start anywhere, jump (joined broadcast streams),
wrap, repeat, be missing, or be those of the decoding order. Pictures decide where a stamp jumps; the sound follows.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from av.error import FFmpegError

from selfscan.errors import UnreadableVideo
from selfscan.span import Span

BACK = 0.2  # s: decoding times that go back further than this have jumped; smaller steps back are disorder
GAP = 3.0  # s without picture and sound that count as a jump, in a clip with sound
NEAR = 1.0  # s by which picture and sound that lie side by side in a file, or begin a run, may differ
STILL = 10.0  # s without a picture that count as a jump, in a clip without sound
LEAST_STEP = 1e-5  # s, minimum between two frames; no container resolves less
EDGE = 1e-3  # s: a frame this close to the edge of a span lies on it
LEAD = 1.0  # s before a span from which on every frame is decoded
MOST_SKIPPED = 1500  # packets held in memory while it is not known whether their frames are wanted
AHEAD = 8  # frames read before the first is given out, to see whether the stamps are in order; a codec reorders fewer


@dataclass
class Run:
    """A run of pictures whose stamps do not jump."""

    first: float  # s, least presentation stamp, as stored
    last: float  # s, greatest presentation stamp, as stored
    shift: float  # s to add to its stamps, so that it follows the run before


class Clock:
    """Follows the packets of a clip in file order, and finds the jumps of their stamps.

    Args:
        fps: approximate frames a second, for stamps that are missing.
        jumps: whether the container's stamps can jump; a gap in an animated picture is meant.
    """

    def __init__(self, fps: float, jumps: bool = True):
        self.step, self.runs, self.origin = 1 / fps, [], math.nan  # origin: s, the shifted stamp of the first picture
        self.heard_from = 0  # number of the run in which the sound begins
        self._jumps, self._last, self._heard, self._covered = jumps, None, None, None

    def picture(self, packet) -> float:
        """Take the next packet of the pictures; return the shift of its stamps, s."""
        stamp, shown = _seconds(packet, packet.dts), _seconds(packet, packet.pts)
        stamp, shown = (shown if stamp is None else stamp), (stamp if shown is None else shown)
        if stamp is None or shown is None:
            return self.runs[-1].shift if self.runs else 0.0
        if self._last is None:
            self.runs.append(Run(shown, shown, 0.0))
        elif self._jumps and self._jumped(stamp - self._last):
            before = self.runs[-1]
            self.runs.append(Run(shown, shown, before.last + before.shift + self._length(packet) - shown))
        self._last = stamp
        self._covered = None if self._covered is None else 0.0
        run = self.runs[-1]
        run.first, run.last = min(run.first, shown), max(run.last, shown)
        return run.shift

    def sound(self, packet) -> None:
        """Take the next packet of the sound: a long gap between two pictures is meant if the sound goes on."""
        stamp = _seconds(packet, packet.dts if packet.dts is not None else packet.pts)
        if stamp is None:
            return
        if self._heard is None:  # sound that is far behind the last picture comes before its run's first picture
            behind = self._last is not None and stamp < self._last - NEAR
            self.heard_from = max(len(self.runs) - 1 + behind, 0)
        else:
            self._covered = (self._covered or 0.0) + min(max(stamp - self._heard, 0.0), 1.0)
        self._heard = stamp

    def seconds(self) -> float:
        """Length of the pictures up to the last one's beginning, s."""
        return self.runs[-1].last + self.runs[-1].shift - self.runs[0].first if self.runs else 0.0

    def _jumped(self, delta: float) -> bool:
        if self._covered is None:
            return delta < -BACK or delta > max(STILL, 20 * self.step)
        return delta < -BACK or delta > GAP and self._covered < delta / 2

    def _length(self, packet) -> float:
        length = _seconds(packet, packet.duration) or 0.0
        return length if 0 < length < 1 else self.step


class SoundClock:
    """Gives the shift of each packet of the sound, in file order, after ``Clock`` has seen all packets of the clip."""

    def __init__(self, clock: Clock):
        self._runs, self._at, self._last, self._own = clock.runs or [Run(0, 0, 0)], 0, None, 0.0
        self._from = clock.heard_from

    def __call__(self, stamp: float, length: float) -> float:
        """Return the shift, s, of a stamp, s, of a packet of ``length`` s."""
        if self._last is None:
            holding = [k for k, run in enumerate(self._runs) if self._holds(run, stamp)]
            self._at = next((k for k in holding if k >= self._from), (holding or [0])[0])
        elif not -BACK <= stamp - self._last <= GAP:
            following = range(self._at + 1, len(self._runs))
            found = next((k for k in following if self._holds(self._runs[k], stamp)), None)
            if found is not None:
                self._at, self._own = found, 0.0
            elif stamp < self._last:  # the sound alone went back: go on where it was
                self._own += self._last - stamp
        self._last = stamp + length
        return self._runs[self._at].shift + self._own

    def window(self) -> tuple[float, float]:
        """The shifted stamps between which the last packet's run lasts; the first and the last run are open."""
        start = self._runs[self._at].first + self._runs[self._at].shift if self._at else -math.inf
        following = self._runs[self._at + 1 :]
        return start, following[0].first + following[0].shift if following else math.inf

    @staticmethod
    def _holds(run: Run, stamp: float) -> bool:
        return run.first - NEAR <= stamp <= run.last + NEAR


def within(timed: Iterator[tuple], span: Span, step: float, name: str) -> Iterator[tuple]:
    """The part of a stream that lies in a span; its first frame is the one shown at the span's start, at time 0.

    Args:
        timed: tuples that begin with a time, s, strictly increasing from 0 on.
        step: s that the last frame lasts. name: of the clip, for errors.
    Raises: UnreadableVideo: the span starts after the clip's end.
    """
    held, last, ended = None, -math.inf, True
    for time, *rest in timed:
        if span.end is not None and time >= span.end - EDGE:
            ended = False
            break
        if time <= span.start + EDGE:
            held, last = rest, time
            continue
        if held is not None:
            yield 0.0, *held
            held = None
        yield time - span.start, *rest
    if held is not None and ended and span.start >= last + step:
        raise UnreadableVideo(
            f"{name}: expected a part that starts within the clip, which is {last + step:.2f} s long, got one from "
            f"{span.start:g} s on; choose an earlier start"
        )
    if held is not None:
        yield 0.0, *held


def frames(
    packets: Iterator, clock: Clock, start: float = 0.0, decode: Callable[[Any], list] = lambda packet: packet.decode()
) -> Iterator[tuple[float, object]]:
    """Decode pictures and give each its time.

    Args:
        packets: of the pictures and, if the clip has any, of the sound, in file order.
        clock: a new clock; its ``origin`` is set with the first frame.
        start: s before which frames may be left out, so that they need not be decoded; the first one never is.
        decode: gives the frames of a packet, or raises FFmpegError.
    Returns:
        Pairs of time in s, from 0 on and strictly increasing, and decoded frame. Damaged packets are left out.
    """
    order, last = _Order(clock.step), -math.inf
    for stamp, frame in _decoded(_wanted(packets, clock, start), order, decode):
        if last == -math.inf:
            clock.origin = stamp if stamp is not None else 0.0
        last = order.after(last, None if stamp is None else stamp - clock.origin)
        yield last, frame


def _wanted(packets: Iterator, clock: Clock, start: float) -> Iterator[tuple[Any, float]]:
    """Packets of pictures with the shift of their stamps, s; runs from key to key before ``start`` are left out."""
    kept, skipping = None, start > LEAD
    for packet in packets:
        if packet.stream.type == "audio":
            clock.sound(packet)
            continue
        shift, stamp = clock.picture(packet), _seconds(packet, packet.pts)
        time = None if stamp is None else stamp + shift - clock.origin  # not a number before the first frame
        if skipping and packet.is_keyframe and time is not None and time <= start - LEAD:
            kept = []
        skipping = skipping and time is not None and not time > start - LEAD and len(kept or ()) < MOST_SKIPPED
        if kept is None:
            yield packet, shift
            continue
        kept.append((packet, shift))
        if not skipping:
            yield from kept
            kept = None
    yield from kept or ()


def _decoded(packets: Iterator[tuple[Any, float]], order: _Order, decode) -> Iterator[tuple[float | None, object]]:
    for packet, shift in packets:
        order.expect(packet, shift)
        try:
            decoded = decode(packet)
        except FFmpegError:  # skip the frames of a damaged packet, keep the rest
            order.lost(packet, shift)
            continue
        for frame in decoded:
            yield from order.given(frame)
    yield from order.rest()


class _Order:
    """Gives decoded frames, which come in the order of presentation, their stamps.

    Stamps that rise from frame to frame are trusted. Otherwise they are those of the decoding order, as in AVI: then
    the n-th frame has the n-th smallest decoding stamp.
    """

    def __init__(self, step: float):
        self._step, self._raw = step, -math.inf
        self._held, self._stamps, self._sorted, self._unknown = deque(), [], None, False

    def expect(self, packet, shift: float) -> None:
        """Take a packet before it is decoded; its stamps are shifted."""
        if packet.size == 0:
            return
        stamp = _seconds(packet, packet.dts)
        if stamp is None:
            self._unknown = True
        elif self._sorted is not False:
            heapq.heappush(self._stamps, stamp + shift)
        if shift and packet.pts is not None:
            packet.pts += round(shift / packet.time_base)

    def lost(self, packet, shift: float) -> None:
        """Forget the stamp of a packet that cannot be decoded."""
        stamp = _seconds(packet, packet.dts)
        if stamp is not None and stamp + shift in self._stamps:
            self._stamps.remove(stamp + shift)
            heapq.heapify(self._stamps)

    def given(self, frame) -> Iterator[tuple[float | None, object]]:
        """Take a decoded frame; yield the frames whose stamps are certain."""
        self._held.append(frame)
        while len(self._held) > (0 if self._sorted is False else AHEAD):
            yield self._next()

    def rest(self) -> Iterator[tuple[float | None, object]]:
        """Yield the frames that are left at the end."""
        while self._held:
            yield self._next()

    def after(self, last: float, stamp: float | None) -> float:
        """The time of a frame after one at ``last`` s: its stamp, if that is later."""
        if last == -math.inf:
            self._raw = 0.0
            return 0.0
        before, self._raw = self._raw, self._raw if stamp is None else max(stamp, self._raw)
        if stamp is not None and stamp >= last + LEAST_STEP:
            return stamp
        late = stamp is not None and stamp > before  # a new stamp, but an earlier frame was put too far ahead
        return last + max(self._step * (0.1 if late else 1), LEAST_STEP)

    def _next(self) -> tuple[float | None, object]:
        if self._sorted is None:
            stamps = [frame.pts for frame in self._held]
            rising = None not in stamps and all(a < b for a, b in zip(stamps, stamps[1:]))
            self._sorted = not rising and not self._unknown and len(self._stamps) >= len(stamps)
            self._stamps = self._stamps if self._sorted else []
        frame = self._held.popleft()
        if self._sorted and self._stamps:
            return heapq.heappop(self._stamps), frame
        return _seconds(frame, frame.pts), frame


def _seconds(item, ticks: int | None) -> float | None:
    return None if ticks is None or item.time_base is None else float(ticks * item.time_base)
