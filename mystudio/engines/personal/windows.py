"""Solve long clips in overlapping windows, and blend them in code space so that the cuts are invisible.

Only the temporal term couples frames, and its influence decays within a few frames (``reach``). Two windows that
overlap by more than that agree where they are blended, whatever their sizes. The size may therefore change during a
clip, and it does when memory runs out.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mystudio.compute.memory import attempt
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints, ShareDone, own_starts, refuse_others
from selfscan.types import Array

NEGLIGIBLE = 1e-5  # share of a neighbour's influence that may remain where a window is cut. Kept tiny because a step
#   accepted in one window but rejected in its neighbour amplifies the difference
log = logging.getLogger(__name__)


@dataclass
class Solved:
    """The solution for B consecutive frames."""

    codes: Tensor  # [B, L, K]
    outcome: Array  # [B]
    losses: dict[str, Array]  # [B] each


@dataclass(frozen=True)
class Window:
    """A window of a clip: the cores of all windows tile the clip; ``frames`` adds the overlap on both sides."""

    core: range
    frames: range

    @classmethod
    def at(cls, start: int, size: int, overlap: int, total: int) -> Window:
        """The window whose core begins at ``start``, in a clip of ``total`` frames."""
        core = range(start, min(start + size, total))
        return cls(core, range(max(0, core.start - overlap), min(total, core.stop + overlap)))

    def weights(self, total: int) -> Array:
        """Weight [B] of each frame in the blend: 1 inside, falling smoothly to 0 at ends that are not the clip's.

        The outer half of an overlap has no weight, because it suffers most from the neighbours that were cut off.
        """
        share, at = np.ones(len(self.frames)), np.arange(self.frames.start, self.frames.stop) + 0.5
        if self.frames.start > 0:
            share = share * _ramp((at - self.core.start) / max(self.core.start - self.frames.start, 1) + 0.5)
        if self.frames.stop < total:
            share = share * _ramp((self.core.stop - at) / max(self.frames.stop - self.core.stop, 1) + 0.5)
        return share


def _ramp(u: Array) -> Array:
    u = u.clip(0, 1)
    return u * u * (3 - 2 * u)


def reach(temporal: float, prior: float, most: int) -> int:
    """Frames of overlap: twice the distance over which a neighbour's influence becomes ``NEGLIGIBLE``.

    With the prior p and the temporal term t alone, codes obey t c(-1) - (p + 2 t) c(0) + t c(+1) = 0. A change then
    decays by the factor r a frame, where r is the smaller root of t r^2 - (p + 2 t) r + t. Data terms only make it
    decay faster.

    Args: most: upper limit, in frames.
    """
    if temporal <= 0:
        return 0
    x = 1 + prior / (2 * temporal)
    r = x - math.sqrt(x * x - 1)
    frames = math.ceil(math.log(NEGLIGIBLE) / math.log(r)) if r < 1 else most
    return min(2 * frames, most)  # twice: the outer half of an overlap has no weight


def solve_windows(
    total: int,
    size: int,
    batch: int,
    overlap: int,
    run: Callable[[Window, int, Tensor | None], Solved],
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    tick: Callable[[int], None] = lambda end: None,
) -> Solved:
    """Solve a clip window by window and blend. Where memory runs out, the window and the batch are halved.

    Args:
        total: frames of the clip. size: frames of a window's core. batch: frames synthesized at once.
        overlap: frames of each neighbour that are solved again; 0 = each window starts at the end of the last one.
        run: solves a window with a batch; without overlap it also gets the code [L, K] before the window.
        checkpoints: of finished windows, each with its own size. tick: called with the end of each window.
    Returns: codes, outcomes and losses of all frames.
    Raises: MemoryError, torch.OutOfMemoryError, RuntimeError: there is too little memory even for one frame.
    """
    blend, starts = _Blend(total), range(0, total, size)
    own = own_starts("window", starts if overlap else ())  # without overlap, a window needs the one before
    start, stop = (0, total) if own is None else (own[0], min(own[-1] + size, total)) if own else (0, 0)
    while start < stop:
        found = read_window(checkpoints, f"window{start:07d}")
        if found is None:
            refuse_others("window")
            window = Window.at(start, size, overlap, total)
            work = partial(run, window, batch, blend.last() if not overlap else None)
            solved = attempt(work, may_fail=size > 1 or batch > 1)
            if solved is None:
                size, batch = max(1, size // 2), max(1, batch // 2)
                log.warning("out of memory: continuing with %d frames a window, %d a pass", size, batch)
                continue
            found = window, solved
            write_window(checkpoints, f"window{start:07d}", *found)
        blend.add(*found)
        start = found[0].core.stop
        tick(start)
    if own is not None:
        raise ShareDone
    return blend.done()


class _Blend:
    """Weighted sum of the windows solved so far."""

    def __init__(self, total: int):
        self._total, self._end, self._codes = total, 0, torch.zeros(0)
        self._weight, self._outcome = torch.zeros(total), np.zeros(total, np.int64)
        self._losses: dict[str, Array] = {}

    def add(self, window: Window, solved: Solved) -> None:
        if not len(self._codes):
            self._codes = solved.codes.new_zeros(self._total, *solved.codes.shape[1:])
        share = torch.as_tensor(window.weights(self._total), dtype=self._codes.dtype)
        used = torch.nonzero(share)[:, 0]  # frames of weight 0 are skipped, because 0 times NaN is NaN
        self._codes[used + window.frames.start] += share[used, None, None] * solved.codes[used]
        self._weight[used + window.frames.start] += share[used]
        core = slice(window.core.start - window.frames.start, window.core.stop - window.frames.start)
        place = slice(window.core.start, window.core.stop)
        self._outcome[place] = solved.outcome[core]
        for name, values in solved.losses.items():
            self._losses.setdefault(name, np.zeros(self._total, np.float32))[place] = values[core]
        self._end = window.core.stop

    def last(self) -> Tensor | None:
        """The code of the last solved frame."""
        return self._codes[self._end - 1] if self._end else None

    def done(self) -> Solved:
        return Solved(self._codes / self._weight[:, None, None], self._outcome, self._losses)


def write_window(checkpoints: Checkpoints, name: str, window: Window, solved: Solved) -> None:
    """Store a finished window. Raises OSError."""
    ends = [window.core.start, window.core.stop, window.frames.start, window.frames.stop]
    checkpoints.put(
        name,
        {"codes": np.asarray(solved.codes), "outcome": solved.outcome, "window": np.array(ends)}
        | {f"loss.{k}": v for k, v in solved.losses.items()},
    )


def read_window(checkpoints: Checkpoints, name: str) -> tuple[Window, Solved] | None:
    """A finished window; None if there is none or it is damaged, so that it is solved again."""
    z = checkpoints.get(name)
    if z is None:
        return None
    try:
        ends = [int(k) for k in z["window"]]
        window = Window(range(*ends[:2]), range(*ends[2:]))
        solved = Solved(torch.as_tensor(z["codes"]), z["outcome"], {k[5:]: z[k] for k in z if k.startswith("loss.")})
    except (KeyError, TypeError, ValueError):
        return None
    return (window, solved) if len(window.core) and len(window.frames) == len(solved.codes) else None
