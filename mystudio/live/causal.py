"""Causal methods for a live driver: a low-delay filter, and the neutral face from the frames so far."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mystudio.motion.retarget import neutral_face, neutral_scores

POOL = 96  # frames, evenly spaced over the past, that represent it
BEST = 12  # most neutral frames so far, kept in addition


class OneEuro:
    """Low-pass filter of a vector whose cut-off grows with speed: Casiez et al., 1 Euro Filter, CHI 2012.

    All components share one cut-off, so that smoothing keeps the direction of motion.

    Args:
        rest: Hz, cut-off at rest; 0 = no filter. slope: Hz a unit/s of speed (root mean square).
    """

    def __init__(self, rest: float, slope: float):
        self._rest, self._slope = rest, slope
        self._last: Tensor | None = None
        self._smooth = self._speed = torch.zeros(())
        self._time = 0.0

    def __call__(self, value: Tensor, time: float) -> Tensor:
        """Filter the value [K] at ``time`` s, later than the one before; returns [K]."""
        if self._last is None or not self._rest:
            self._smooth, self._speed = value, torch.zeros_like(value)
        else:
            step = max(time - self._time, 1e-6)
            self._speed = self._speed.lerp((value - self._last) / step, _share(1.0, step))  # 1 Hz, as in the paper
            cut_off = self._rest + self._slope * float(self._speed.square().mean().sqrt())
            self._smooth = self._smooth.lerp(value, _share(cut_off, step))
        self._last, self._time = value, time
        return self._smooth


def _share(cut_off: float, step: float) -> float:
    return 1 / (1 + 1 / (2 * math.pi * cut_off * step))


class NeutralSoFar:
    """Estimate of the driver's neutral face from the frames so far.

    It is ``retarget.neutral_face`` of a bounded set of past frames. When the estimate improves, it changes with a time
    constant of ``ease`` s, so that the avatar does not jump.
    """

    def __init__(self, ease: float):
        self._ease = ease
        self._spread: dict[int, np.ndarray] = {}  # every ``_stride``th frame
        self._best: dict[int, np.ndarray] = {}
        self._stride, self._count, self._time = 1, 0, 0.0
        self._used: Tensor | None = None

    def __call__(self, landmarks: np.ndarray, time: float) -> Tensor:
        """Take the next frame's landmarks [478, 3] in crops; returns the neutral face [478, 3]."""
        self._keep(landmarks)
        known = np.stack(list((self._spread | self._best).values()))
        found = neutral_face(known, np.ones(len(known), bool))
        if self._used is None:
            self._used = found
        else:
            self._used = self._used.lerp(found, 1 - math.exp(-(time - self._time) / self._ease))
        self._time = time
        return self._used

    def _keep(self, landmarks: np.ndarray) -> None:
        known = self._spread | self._best | {self._count: landmarks}
        scores = neutral_scores(np.stack(list(known.values())), np.ones(len(known), bool))
        order = np.argsort(scores, kind="stable")[:BEST]
        self._best = {number: known[number] for number in np.array(list(known))[order].tolist()}
        if self._count % self._stride == 0:
            self._spread[self._count] = landmarks
        if len(self._spread) > POOL:
            self._stride *= 2
            self._spread = {k: face for k, face in self._spread.items() if k % self._stride == 0}
        self._count += 1
