"""A clip in windows that overlap and are blended in code space: where it is cut does not show.

Frames know each other through the temporal term alone, and that dies away within a few frames (``reach``). Two windows
that overlap by more than that agree where they are blended, whatever their sizes; so they may change on the way, as
they do when memory runs out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mystudio.compute.memory import attempt
from mystudio.storage.journal import DiskCheckpoints

NEGLIGIBLE = 1e-5  # share of a neighbour's pull that may be left where a window is cut; small, for a step that is
#   taken on one side of a cut and just not on the other makes more of it
log = logging.getLogger(__name__)


@dataclass
class Solved:
    """Codes of some frames that follow each other."""

    codes: Tensor  # [B, L, K]
    outcome: np.ndarray  # [B]
    losses: dict[str, np.ndarray]  # [B] each


@dataclass(frozen=True)
class Window:
    """Frames ``core`` that a window answers for, and the frames around them that are solved with it."""

    core: range
    frames: range

    @classmethod
    def at(cls, start: int, size: int, overlap: int, total: int) -> Window:
        """The window whose core begins at ``start``, in a clip of ``total`` frames."""
        core = range(start, min(start + size, total))
        return cls(core, range(max(0, core.start - overlap), min(total, core.stop + overlap)))

    def weights(self, total: int) -> np.ndarray:
        """[B] share of each frame in the blend: 1 inside, smoothly to 0 at ends that are not the clip's.

        The outer half of an overlap has no weight: there the neighbours that the cut took away are missed most.
        """
        share, at = np.ones(len(self.frames)), np.arange(self.frames.start, self.frames.stop) + 0.5
        if self.frames.start > 0:
            share = share * _ramp((at - self.core.start) / max(self.core.start - self.frames.start, 1) + 0.5)
        if self.frames.stop < total:
            share = share * _ramp((self.core.stop - at) / max(self.frames.stop - self.core.stop, 1) + 0.5)
        return share


def _ramp(u: np.ndarray) -> np.ndarray:
    u = u.clip(0, 1)
    return u * u * (3 - 2 * u)


def reach(temporal: float, prior: float, most: int) -> int:
    """Frames of overlap: twice those over which a neighbour's pull becomes ``NEGLIGIBLE``; at most ``most``.

    Codes that miss only their prior p and their neighbours t obey t c(-1) - (p + 2 t) c(0) + t c(+1) = 0: a change dies
    away by r a frame, r the smaller root of t r^2 - (p + 2 t) r + t. Data hold codes more, never less.
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
    journal: Path | None = None,
    tick: Callable[[int], None] = lambda end: None,
) -> Solved:
    """Solve a clip window by window and blend.

    Args:
        total: frames of the clip. size: frames of a window's core. batch: frames synthesized at once.
        overlap: frames of each neighbour that are solved again; 0 = each window goes on from the last one's end.
        run: solves a window with a batch; gets the code [L, K] before the window where there is no overlap.
        journal: folder where finished windows are kept; they keep their own cut. tick: told where each window ends.
    Returns: codes, outcomes and losses of all frames.
    Raises: MemoryError, torch.OutOfMemoryError, RuntimeError: memory does not do for one frame.
    """
    blend, start, kept = _Blend(total), 0, DiskCheckpoints(journal) if journal else None
    while start < total:
        found = _read(kept, f"window{start:07d}") if kept else None
        if found is None:
            window = Window.at(start, size, overlap, total)
            work = partial(run, window, batch, blend.last() if not overlap else None)
            solved = attempt(work, may_fail=size > 1 or batch > 1)
            if solved is None:
                size, batch = max(1, size // 2), max(1, batch // 2)
                log.warning("memory ran out: going on with %d frames a window, %d a pass", size, batch)
                continue
            found = window, solved
            if kept:
                _write(kept, f"window{start:07d}", *found)
        blend.add(*found)
        start = found[0].core.stop
        tick(start)
    return blend.done()


class _Blend:
    """The clip as far as it is solved: sums and weights of its codes."""

    def __init__(self, total: int):
        self._total, self._end, self._codes = total, 0, torch.zeros(0)
        self._weight, self._outcome = torch.zeros(total), np.zeros(total, np.int64)
        self._losses: dict[str, np.ndarray] = {}

    def add(self, window: Window, solved: Solved) -> None:
        if not len(self._codes):
            self._codes = solved.codes.new_zeros(self._total, *solved.codes.shape[1:])
        share = torch.as_tensor(window.weights(self._total), dtype=self._codes.dtype)
        used = torch.nonzero(share)[:, 0]  # a code that is no number must not spread from where it has no weight
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


def _write(kept: DiskCheckpoints, name: str, window: Window, solved: Solved) -> None:
    ends = [window.core.start, window.core.stop, window.frames.start, window.frames.stop]
    kept.put(
        name,
        {"codes": solved.codes.numpy(), "outcome": solved.outcome, "window": np.array(ends)}
        | {f"loss.{k}": v for k, v in solved.losses.items()},
    )


def _read(kept: DiskCheckpoints, name: str) -> tuple[Window, Solved] | None:
    """A finished window; None where there is none, or it is damaged: then it is solved again."""
    z = kept.get(name)
    if z is None:
        return None
    try:
        ends = [int(k) for k in z["window"]]
        window = Window(range(*ends[:2]), range(*ends[2:]))
        solved = Solved(torch.as_tensor(z["codes"]), z["outcome"], {k[5:]: z[k] for k in z if k.startswith("loss.")})
    except (KeyError, TypeError, ValueError):
        return None
    return (window, solved) if len(window.core) and len(window.frames) == len(solved.codes) else None
