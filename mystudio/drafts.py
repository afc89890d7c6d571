"""An avatar that can be used while it is still being made: stored after a minute, then each time it has improved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from mystudio.storage.artifacts import save
from mystudio.storage.workspace import StageRun
from mystudio.types import Avatar

FIRST = 60.0  # s until the first draft
GROWTH = 2.0  # time from the start of one draft to that of the next
SHARE = 10.0  # a draft must not take more than one part in so many of the time
COST = 15.0  # s that a draft takes, before the first one was measured
COMPLETE = 3.0  # the last avatar takes so many times as long as a draft, because it draws more samples
NEAR = 0.02  # a good avatar's likeness is at most so far below that of the scan's own images
LITTLE = 0.1  # a good avatar's held-out distance would fall by at most this share in twice the steps
CHECKS = 4  # at least of the held-out images, needed for a forecast


class Drafts:
    """Watches an avatar being made (``engines.protocol.Watch``): stores usable ones, and ends the work in time.

    Args:
        run: of the stage. minutes: time limit of this run; 0 = none. until_good: end when the avatar is ``is_good``.
        tell: takes a sentence for the user.
    """

    def __init__(self, run: StageRun, minutes: float, until_good: bool, tell: Callable[[str], None]):
        self._run, self._tell, self._until_good = run, tell, until_good
        self._free = run.free_for_drafts  # nobody else can change it: the run holds the lock
        self._limit = 60 * minutes or math.inf
        self._began, self._due, self._cost = time.monotonic(), FIRST, COST
        self.ended = False  # before the engine's own end

    def __call__(self, make: Callable[[], Avatar]) -> bool:
        now = time.monotonic() - self._began
        if now + COMPLETE * self._cost >= self._limit:
            self.ended = True
        elif now >= self._due and (self._until_good or self._free):
            self._draft(make(), now)
        return self.ended

    def _draft(self, made: Avatar, now: float) -> None:
        if self._free:
            save(made, self._run, draft=True)
            self._tell(f"{self._run.path.name} can be used from now on. {quality(made.info, now / 60)}")
        self._cost = time.monotonic() - self._began - now
        self._due = max(GROWTH * now, now + SHARE * self._cost)
        self.ended = self._until_good and is_good(made.info)


def spent(before: float, during: float, draft: float) -> float:
    """What drafts add to an avatar that is made without a time limit, s.

    Args: before: s until the first step. during: s of all steps. draft: s of one draft.
    """
    now, due, left, drafts = before, FIRST, during, 0
    while max(now, due) - now <= left:
        left -= max(now, due) - now
        begins = max(now, due)
        now, due, drafts = begins + draft, max(GROWTH * begins, begins + SHARE * draft), drafts + 1
    return drafts * draft


def is_good(info: Mapping[str, Any]) -> bool:
    """Whether an avatar looks as much like the person as the scan's images do, and more time would change little."""
    fall = expected_fall(info)
    alike = info.get("own_likeness", 0.0) - info.get("likeness", 0.0) <= NEAR
    return alike and fall is not None and fall <= LITTLE


def expected_fall(info: Mapping[str, Any]) -> float | None:
    """Share by which the held-out distance would fall in twice the steps, from the last half of its checks.

    Distances fall with a power of the steps. None = too few checks for a forecast.
    """
    history = info.get("history", ())
    if len(history) < CHECKS:
        return None
    points = [(math.log(step), math.log(distance)) for step, _, distance in history[-max(len(history) // 2, CHECKS) :]]
    x, y = (sum(values) / len(points) for values in zip(*points))
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return max(0.0, 1 - 2**slope)


def quality(info: Mapping[str, Any], minutes: float | None = None) -> str:
    """Sentences about an avatar: how good it is and, after ``minutes``, what as many minutes more would bring."""
    said = []
    if "likeness" in info:
        said.append(f"Likeness {info['likeness']:.2f}, among the scan's own images {info['own_likeness']:.2f}.")
    if minutes is not None and (fall := expected_fall(info)) is not None:
        said.append(f"Another {minutes:.0f} min would bring its pictures about {fall:.0%} nearer.")
    return " ".join(said)
