"""Cuts of a live stream, from past frames alone: the counterpart of ``cuts.find_cuts``.

Without the frames to come a fade cannot be told from motion, and is not found. A frame that is dark or white all over
tells nothing: the next one is compared with the last frame before it, so that a flash is no cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from selfscan.face import cuts
from selfscan.types import Array

CALM = 0.06  # change of a picture without light; calmer frames are not compared more closely


class CausalCuts:
    """Finds the hard cuts of a stream, frame by frame."""

    def __init__(self):
        self._last: Array | None = None  # the last small picture with texture
        self._texture = self._changed = 0.0

    def step(self, picture: Array, face_stays: bool) -> bool:
        """Whether a cut lies before the next frame.

        Args:
            picture: [h, w] uint8 from ``cuts.small``.
            face_stays: a face is at the same place as in the frame before, so that only something else has changed.
        """
        texture = cuts.textured(picture)
        if self._last is not None and texture <= cuts.DARK * self._texture:
            return False
        before, self._last, self._texture = self._last, picture, texture
        if before is None or before.shape != picture.shape:
            return before is not None
        changed, usual = change(before, picture, cuts.least_difference), self._changed
        self._changed = changed
        return not face_stays and changed >= max(cuts.CHANGED, cuts.PEAK * usual)


def change(before: Array, after: Array, measure: Callable[[Array, Array], float] = cuts.difference) -> float:
    """The difference of two small pictures [h, w] uint8; 0 where a cheap comparison finds them calm."""
    a, b = (picture.astype(np.float32) for picture in (before, after))
    return measure(a, b) if cuts.light_free_change(a, b, a.std(), b.std()) > CALM else 0.0
