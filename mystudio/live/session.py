"""Streams of a live run: the source up to a time, the pictures as they are watched, and their progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Literal

from mystudio.live.follow import Live, Shown
from mystudio.live.stream import Frames
from mystudio.types import Progress
from selfscan.types import Array

Wish = Literal["", "stop", "neutral"]  # of the viewer: go on, stop, or look for the driver's neutral face anew


def until(frames: Frames, seconds: float) -> Frames:
    """The frames of a source before a time in s; the source is closed at the end."""
    with closing(frames):
        for timed in frames:
            if timed[0] >= seconds:
                return
            yield timed


def shown(stream: Iterator[Shown], live: Live, show: Callable[[Shown], Wish]) -> Iterator[tuple[float, Array]]:
    """Times (s) and pictures as they are shown; the viewer's wishes are obeyed."""
    for shown in stream:
        wish = show(shown)
        if wish == "neutral":
            live.forget()
        yield shown.time, shown.picture
        if wish == "stop":
            return


def told(stream: Iterator[tuple[float, Array]], total: int, progress: Progress) -> Iterator[tuple[float, Array]]:
    """The same stream; ``progress`` is told after every picture."""
    for count, timed in enumerate(stream, start=1):
        yield timed
        progress("live", count, max(count, total))
