"""Deinterlacing: find the frames that hold two fields of different times, and rebuild them from one.

FFmpeg's ``idet`` compares the fields of neighbouring frames, ``bwdif`` rebuilds frames. A flag in the file counts only
until ``idet`` has seen motion: progressive frames with a wrong flag stay as they are. Interlaced frames without a flag
are found if the clip begins with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av.filter

HOLD = 10  # frames that wait until the first decision
LAG = 8  # frames that wait later, since the verdict on a frame changes some frames late
WINDOW = 10  # frames with motion that decide together
WATCH = 125  # frames of a clip without flags that are compared; fewer, if
ENOUGH = 48  # frames of it move and are progressive
SURE, LEAST = 0.8, 5  # share and number of the deciding frames that must show fields, in a clip without flags
MAX_HEIGHT, MIN_HEIGHT = 1088, 16  # px; no format stores taller frames in fields
TOLD = "The clip is interlaced; its frames are deinterlaced."
FOUND = "The clip is interlaced, which it does not say; its frames are deinterlaced."

Timed = Iterator[tuple[float, Any]]


def progressive(timed: Timed, tell: Callable[[str], None]) -> Timed:
    """Deinterlace a stream where it is interlaced.

    Args:
        timed: pairs of time, s, and decoded frame.
        tell: called with a sentence, once, if frames are deinterlaced.
    Returns: as many pairs with the same times; progressive frames are the very same.
    """
    run, first = None, True
    for time, frame in timed:
        kind = (frame.format.name, frame.width, frame.height)
        fits = MIN_HEIGHT <= frame.height <= MAX_HEIGHT
        if run is not None and (run.kind != kind or run.idle and not frame.interlaced_frame):
            yield from run.rest()
            run = None
        if run is None and fits and (first or frame.interlaced_frame):
            run = _Run(kind, tell)
        first = False
        if run is None:
            yield time, frame
        else:
            yield from run.take(time, frame)
    if run is not None:
        yield from run.rest()


@dataclass
class _Held:
    """A frame that waits for its decision."""

    time: float
    frame: Any
    flagged: bool
    interlaced: bool | None = None  # by the frames that decide; before there are any, the flag
    moving: bool = False  # ``idet`` has seen motion
    marked: Any = None  # the frame with the order of its fields
    rebuilt: Any = None


class _Run:
    """Frames of one format and size, from a first one that may be interlaced."""

    def __init__(self, kind: tuple[str, int, int], tell: Callable[[str], None]):
        self.kind, self.idle, self._tell = kind, False, tell
        self._find, self._rebuild = _Graph(kind, "idet"), None
        self._held: deque[_Held] = deque()
        self._ready: deque[_Held] = deque()  # progressive frames before the first interlaced one
        self._seen, self._moving, self._settled, self._flagged = 0, 0, False, False
        self._signs: deque[bool] = deque(maxlen=WINDOW)  # whether ``idet`` found fields in a frame with motion

    def take(self, time: float, frame) -> Timed:
        """Take the next frame; give those whose decision is known."""
        self._seen += 1
        self._held.append(_Held(time, frame, bool(frame.interlaced_frame)))
        self._flagged |= self._held[-1].flagged
        self._judge(self._find.push(frame))
        if not self._settled and sum(held.interlaced is not None for held in self._held) >= HOLD:
            self._settle()
        self.idle = self._settled and not self._flagged and self._rebuild is None
        self.idle &= self._seen >= WATCH or self._moving >= ENOUGH
        yield from self._given()

    def rest(self) -> Timed:
        """Give the frames that are still held."""
        self._judge(self._find.push(None), judged=False)
        if not self._settled:
            self._settle()
        if self._rebuild is not None:
            self._keep(self._rebuild.push(None))
        self._settled = True
        yield from self._given(last=True)

    def _judge(self, marked: list, judged: bool = True) -> None:
        """Take frames out of the detector; it does not judge the last one of a stream."""
        waiting = [held for held in self._held if held.interlaced is None]
        for held, frame in zip(waiting, marked):
            plain = "tff" if frame.interlaced_frame else "progressive"  # of a PyAV that gives no details
            said = getattr(frame, "metadata", {}).get("lavfi.idet.single.current_frame", plain)
            held.moving, held.marked = judged and said != "undetermined", frame
            if held.moving:
                self._signs.append(said != "progressive")
                self._moving += said == "progressive"
            held.interlaced = self._verdict(held.flagged)
            if self._rebuild is not None:
                self._keep(self._rebuild.push(frame))
            if self._settled:
                self._turn()

    def _verdict(self, flagged: bool) -> bool:
        found, count = sum(self._signs), len(self._signs)
        if flagged or self._rebuild is not None:
            return 2 * found >= count
        return found >= max(LEAST, SURE * count)

    def _known(self) -> list[_Held]:
        return [held for held in self._held if held.interlaced is not None]

    def _settle(self) -> None:
        """Decide the first frames together, by all signs of motion among them."""
        self._settled = True
        known = self._known()
        for held in known:
            held.interlaced = self._verdict(held.flagged)
        if len(known) > 1 and any(held.interlaced for held in known):
            self._begin(known)

    def _turn(self) -> None:
        """Act on a change of the verdict: it comes some frames late."""
        known = self._known()
        newest = known[-1].interlaced
        if len(known) > 1 and known[-2].interlaced != newest:
            late = [_as(held, newest) for held in known[-1 - WINDOW // 2 :]]
            if newest and self._rebuild is None:
                self._begin(late)

    def _begin(self, held: list[_Held]) -> None:
        """Rebuild frames from these on."""
        self._tell(TOLD if self._flagged else FOUND)
        self._rebuild = _Graph(self.kind, "bwdif", "send_frame:auto:all")
        while self._held[0] is not held[0]:
            self._ready.append(self._held.popleft())
        for one in held:
            self._keep(self._rebuild.push(one.marked))

    def _keep(self, rebuilt: list) -> None:
        waiting = [held for held in self._held if held.rebuilt is None and held.interlaced is not None]
        for held, frame in zip(waiting, rebuilt):
            held.rebuilt = frame

    def _given(self, last: bool = False) -> Timed:
        while self._ready:
            held = self._ready.popleft()
            yield held.time, held.frame
        while self._held and (last or self._settled and len(self._held) > LAG):
            held = self._held[0]
            ready = held.interlaced is not None and (self._rebuild is None or held.rebuilt is not None)
            if not last and not ready:
                return
            self._held.popleft()
            yield held.time, held.rebuilt if held.interlaced and held.rebuilt is not None else held.frame


def _as(held: _Held, interlaced: bool | None) -> _Held:
    held.interlaced = interlaced
    return held


class _Graph:
    """A filter that returns one frame for each frame, some frames later."""

    def __init__(self, kind: tuple[str, int, int], name: str, arguments: str | None = None):
        form, width, height = kind
        self._graph, self._count = av.filter.Graph(), 0
        source = self._graph.add("buffer", f"video_size={width}x{height}:pix_fmt={form}:time_base=1/1000")
        work, sink = self._graph.add(name, arguments), self._graph.add("buffersink")
        source.link_to(work)
        work.link_to(sink)
        self._graph.configure()
        self._source, self._sink = source, sink

    def push(self, frame) -> list:
        """Put a frame in, or None for the end; return the frames that come out."""
        if frame is not None:
            frame.pts, frame.time_base = self._count, Fraction(1, 1000)
            self._count += 1
        self._source.push(frame)
        out = []
        while True:
            try:
                out.append(self._sink.pull())
            except (BlockingIOError, EOFError):
                return out
