"""The paper's solver: Adam through the pixels (PGR, arXiv 2307.06307; MyStyle's projection, arXiv 2203.17272).

With ``start = "previous"`` frames are solved one after the other, each from the last one's solution, as PGR does.
With ``start = "regressor"`` a batch of frames is solved at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mystudio import losses
from mystudio.engines.personal.measure import data_terms
from mystudio.engines.personal.solve import CONVERGED, MAX_STEPS, Problem, Solved
from mystudio.latents import hull_weights, softplus_weights

LOOK_BACK = 20  # steps over which progress is judged


def solve_window(problem: Problem, frames: range, last: Tensor | None, tick: Callable[[int], None]) -> Solved:
    """Solve the frames of one window; see ``gauss_newton.solve_window`` for the arguments."""
    s = problem.settings
    size = 1 if s.start == "previous" else s.batch
    parts = []
    for first in range(frames.start, frames.stop, size):
        rows = torch.arange(first, min(first + size, frames.stop))
        begin = problem.start[rows][:, None].expand(-1, problem.generator.num_ws, -1)
        if s.start == "previous" and last is not None:
            begin = last[None]
        parts.append(_solve_batch(problem, rows, begin, last))
        last = parts[-1].codes[-1]
        tick(int(rows[-1]) + 1 - frames.start)
    return Solved(torch.cat([p.codes for p in parts]), np.concatenate([p.outcome for p in parts]),
                  {k: np.concatenate([p.losses[k] for p in parts]) for k in parts[0].losses})


def _solve_batch(problem: Problem, rows: Tensor, begin: Tensor, last: Tensor | None) -> Solved:
    s = problem.settings
    begins = int(rows[0]) - (last is not None)
    chart = _CHARTS[s.space](problem, begin)
    adam = torch.optim.Adam(chart.parameters, lr=s.rate)
    history: list[float] = []
    best, kept, terms = torch.full((len(rows),), float("inf")), begin.clone(), {}
    outcome = np.full(len(rows), MAX_STEPS)
    for _ in range(s.steps):
        codes = chart.codes()
        seen = problem.see(codes)
        now = data_terms(seen, problem.motion, rows) | chart.terms()
        now["temporal"] = _temporal(codes, last, problem.linked[begins:int(rows[-1])])
        now["prior"] = (codes.mean(1) - problem.start[rows]).square().mean(1)
        value = sum(getattr(s, name) * term for name, term in now.items())
        better = value.detach() < best
        best = torch.where(better, value.detach(), best)
        kept = torch.where(better[:, None, None], codes.detach(), kept)
        now = {k: v.detach() for k, v in now.items()}
        terms = {k: torch.where(better, v, terms.get(k, v)) for k, v in now.items()}
        history.append(float(best.sum()))
        if len(history) > LOOK_BACK and history[-LOOK_BACK - 1] - history[-1] < s.tolerance * history[-1]:
            outcome[:] = CONVERGED
            break
        adam.zero_grad()
        value.sum().backward()
        adam.step()
    return Solved(kept, outcome, {k: v.numpy() for k, v in (terms | {"total": best}).items()})


def _temporal(codes: Tensor, last: Tensor | None, linked: Tensor) -> Tensor:
    chain = codes if last is None else torch.cat([last[None], codes])
    term = losses.temporal(chain, linked)
    return term if last is None else term[1:]


class _Axes:
    """Free codes on the principal axes: one shared code and small per-layer offsets."""

    def __init__(self, problem: Problem, begin: Tensor):
        self.problem = problem
        self.shared = begin.mean(1, keepdim=True).clone().requires_grad_(True)
        self.offset = (begin - begin.mean(1, keepdim=True)).clone().requires_grad_(True)
        self.parameters = [self.shared, self.offset]

    def codes(self) -> Tensor:
        return self.shared + self.offset

    def terms(self) -> dict[str, Tensor]:
        centre = self.shared[:, 0]
        nearest = self.problem.space.project(centre.detach(), self.problem.settings.dilation, steps=50)
        return {"delta": losses.delta(self.offset) / self.offset[0].numel(),
                "hull": (centre - nearest).square().mean(1)}


class _Hull:
    """Exact hull: alpha = hull_weights(u), a shared u and per-layer offsets of it."""

    def __init__(self, problem: Problem, begin: Tensor):
        self.problem = problem
        anchors = problem.space.codes
        gap = torch.cdist(begin.mean(1), anchors).square() / problem.space.rank
        self.shared = (-gap)[:, None].clone().requires_grad_(True)
        self.offset = torch.zeros(*begin.shape[:2], len(anchors)).requires_grad_(True)
        self.parameters = [self.shared, self.offset]

    def alpha(self) -> Tensor:
        return hull_weights(self.shared + self.offset, self.problem.settings.dilation)

    def codes(self) -> Tensor:
        return self.alpha() @ self.problem.space.codes

    def terms(self) -> dict[str, Tensor]:
        return {"delta": losses.delta(self.offset) / self.offset[0].numel()}


class _Softplus(_Hull):
    """MyStyle's own alpha: softplus with sharpness 100, sum held near 1 by a loss. beta = (dilation - 1) / N."""

    def __init__(self, problem: Problem, begin: Tensor):
        super().__init__(problem, begin)
        with torch.no_grad():
            self.shared.copy_((4 * self.shared).softmax(-1))

    def alpha(self) -> Tensor:
        beta = (self.problem.settings.dilation - 1) / len(self.problem.space.codes)
        return softplus_weights(self.shared + self.offset, beta)

    def terms(self) -> dict[str, Tensor]:
        beta = (self.problem.settings.dilation - 1) / len(self.problem.space.codes)
        raw = torch.nn.functional.softplus(self.shared + self.offset + beta, beta=100.0) - beta
        return {"delta": losses.delta(self.offset), "sum": losses.weight_sum(raw)}


_CHARTS = {"axes": _Axes, "hull": _Hull, "softplus": _Softplus}
