"""The part of a clip that a stage uses; without numpy, because the decoding child imports it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A part of a clip."""

    start: float = 0.0  # s of the clip; what is shown then is the first picture, at time 0
    end: float | None = None  # s of the clip, exclusive; None = its end

    def __post_init__(self):
        if not 0 <= self.start < (math.inf if self.end is None else self.end):
            raise ValueError(f"span: expected a start from 0 on and an end after it, got {self.start} to {self.end}")

    def length(self, seconds: float) -> float:
        """How much of a clip of ``seconds`` s it holds, s."""
        return max(0.0, min(seconds, seconds if self.end is None else self.end) - self.start)


WHOLE = Span()
