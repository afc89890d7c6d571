"""Streams of a live run: limit its length, show the pictures, report progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Literal

from mystudio.live.follow import Live, Shown
from mystudio.live.stream import Frames
from mystudio.types import Progress
from selfscan.types import Array

Wish = Literal["", "stop", "neutral"]  # the viewer's choice: continue, stop, or find the neutral face again


def until(frames: Frames, seconds: float) -> Frames:
    """The frames of a source before ``seconds`` s; closes the source at the end."""
    with closing(frames):
        for timed in frames:
            if timed[0] >= seconds:
                return
            yield timed


def shown(stream: Iterator[Shown], live: Live, show: Callable[[Shown], Wish]) -> Iterator[tuple[float, Array]]:
    """Show each picture and act on what ``show`` returns; yields pairs of time (s) and picture."""
    for shown in stream:
        wish = show(shown)
        if wish == "neutral":
            live.forget()
        yield shown.time, shown.picture
        if wish == "stop":
            return


def told(stream: Iterator[tuple[float, Array]], total: int, progress: Progress) -> Iterator[tuple[float, Array]]:
    """The same stream; calls ``progress`` after every picture."""
    for count, timed in enumerate(stream, start=1):
        yield timed
        progress("live", count, max(count, total))
