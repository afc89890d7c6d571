"""Live pipeline from a camera or file through an avatar to the window: three threads with one-frame buffers.

One thread reads, one follows the driver, and the caller's thread draws and shows: frame t + 1 is followed while t is
drawn. With ``drop``, a new frame replaces one that still waits, so that the delay stays one or two frames on any
machine. Without it, as for the recording of a clip, the reader waits and every frame is drawn.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from mystudio.live.follow import Followed, Live, Shown
from mystudio.types import Outcome
from selfscan.types import Array

STEPS = ("read", "track", "measure", "code", "synthesize", "compose", "output")  # in order of execution
RECENT = 10_000  # last frames used for the medians; bounds the memory of a long session
PATIENCE = 5.0  # s to wait for a thread to end

Frames = Generator[tuple[float, Array], None, None]  # (time s, image), as from ``video.read`` and ``camera.read``


class Pace:
    """Speed of a session: frames a second, delay, and the time of each step."""

    def __init__(self):
        self.outcomes: Counter[Outcome] = Counter()
        self.dropped = 0
        self._first = self._last = 0.0
        self._delays: deque[float] = deque(maxlen=RECENT)
        self._spent: dict[str, deque[float]] = {}  # STEPS

    @property
    def frames(self) -> int:
        """Frames shown so far."""
        return sum(self.outcomes.values())

    def add(self, shown: Shown, delay: float) -> None:
        """Count a frame whose picture was ready ``delay`` s after it had been read."""
        self._last = perf_counter()
        self._first = self._first if self.frames else self._last
        self.outcomes[shown.outcome] += 1
        self._delays.append(delay)
        for stage, seconds in shown.spent.items():
            self.lap(stage, seconds)

    def lap(self, stage: str, seconds: float) -> None:
        """Count time spent in a stage."""
        self._spent.setdefault(stage, deque(maxlen=RECENT)).append(seconds)

    def summary(self) -> dict[str, Any]:
        """Frames, outcomes, frames a second, delay and stages in ms (median and 95th percentile)."""
        seconds = self._last - self._first
        return {
            "frames": self.frames,
            "dropped": self.dropped,
            "outcomes": {outcome.word: count for outcome, count in self.outcomes.items()},
            "frames_per_second": round((self.frames - 1) / seconds, 2) if seconds > 0 else None,
            "latency_ms": _spread(self._delays),
            "stages_ms": {stage: _spread(self._spent[stage]) for stage in STEPS if stage in self._spent},
        }


def play(frames: Frames, live: Live, pace: Pace, *, drop: bool, paced: bool) -> Generator[Shown, None, None]:
    """Follow and draw frames as they arrive.

    Args:
        frames: pairs of time in s and image [H, W, 3] uint8 RGB; closed at the end.
        live: the avatar. pace: collects counts and times.
        drop: a new frame replaces one that still waits. paced: frames are delayed until their time stamps.
    Returns: a stream of pictures; the caller's time between two of them is measured as "output".
    Raises: errors of reading and following.
    """
    read, followed = _Slot(drop), _Slot(drop)
    stop = threading.Event()
    threads = [
        threading.Thread(target=_run, args=(work, slot, stop), name=name, daemon=True)
        for name, work, slot in (
            ("read", _reading(frames, stop, paced, pace), read),
            ("follow", _following(read, live), followed),
        )
    ]
    workers = torch.get_num_threads()
    torch.set_num_threads(max(1, workers // 2))  # two threads compute at the same time
    for thread in threads:
        thread.start()
    try:
        for arrived, what in followed:
            shown = live.draw(what)
            done = perf_counter()
            pace.add(shown, done - arrived)
            pace.dropped = read.dropped + followed.dropped
            yield shown
            pace.lap("output", perf_counter() - done)
    finally:
        stop.set()
        read.close()
        followed.close()
        for thread in threads:
            thread.join(PATIENCE)
        torch.set_num_threads(workers)


@dataclass(frozen=True)
class _End:
    """Marks the end of a slot's stream."""

    error: BaseException | None


class _Slot:
    """One-item buffer between two threads."""

    def __init__(self, drop: bool):
        self._drop, self._closed = drop, False
        self._thing: Any = None
        self._changed = threading.Condition()
        self.dropped = 0

    def put(self, thing: Any) -> bool:
        """Store an item: replace a waiting one, or wait until it is taken. Returns False after ``close``."""
        with self._changed:
            if self._drop and self._thing is not None and not isinstance(thing, _End):
                self.dropped += 1
            else:
                self._changed.wait_for(lambda: self._thing is None or self._closed)
            self._thing = thing
            self._changed.notify_all()
            return not self._closed

    def close(self) -> None:
        """End the wait of both threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._thing is not None or self._closed)
                if self._closed:
                    return
                thing, self._thing = self._thing, None
                self._changed.notify_all()
            if isinstance(thing, _End):
                if thing.error is not None:
                    raise thing.error
                return
            yield thing


def _run(work: Generator[Any, None, None], slot: _Slot, stop: threading.Event) -> None:
    error = None
    try:
        with closing(work):
            if not all(not stop.is_set() and slot.put(thing) for thing in work):
                return
    except BaseException as failure:  # raised again in the thread that reads the slot
        error = failure
    slot.put(_End(error))


def _reading(
    frames: Frames, stop: threading.Event, paced: bool, pace: Pace
) -> Generator[tuple[float, float, Array], None, None]:
    begun = before = perf_counter()
    with closing(frames):  # closed by the reading thread: the camera is released at once
        for time, frame in frames:
            pace.lap("read", perf_counter() - before)
            if paced:
                stop.wait(max(0.0, begun + time - perf_counter()))
            before = perf_counter()
            yield before, time, frame
            before = perf_counter()


def _following(read: _Slot, live: Live) -> Generator[tuple[float, Followed], None, None]:
    for arrived, time, frame in read:
        yield arrived, live.follow(frame, time)


def _spread(seconds: Iterable[float]) -> dict[str, float | None]:
    ms = 1000 * np.array(list(seconds))
    return {
        name: round(float(np.percentile(ms, share)), 2) if len(ms) else None
        for name, share in (("median", 50), ("p95", 95))
    }
