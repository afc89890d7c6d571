"""The paper's solver: Adam through the pixels (PGR, arXiv 2307.06307; MyStyle's projection, arXiv 2203.17272).

With ``start = "previous"`` frames are solved one after the other, each from the last one's solution, as PGR does.
With ``start = "regressor"`` all frames of a window are solved at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mystudio.engines.personal.measure import data_terms
from mystudio.engines.personal.solve import Problem
from mystudio.engines.personal.space import hull_weights, softplus_weights
from mystudio.engines.personal.windows import Solved
from mystudio.motion import losses
from mystudio.types import Outcome

LOOK_BACK = 20  # steps over which progress is judged


def solve_window(problem: Problem, frames: range, last: Tensor | None, tick: Callable[[int], None]) -> Solved:
    """Solve the frames of one window.

    Args:
        last: [L, K] code of the frame before the window, where each frame starts at the last one's solution, or None.
        tick: told how many frames' worth of work is done.
    Returns: codes of all layers, outcomes, and each term of the objective at the solution.
    """
    rows = torch.arange(frames.start, frames.stop)
    begin = problem.start[rows][:, None].expand(-1, problem.generator.num_ws, -1)
    if problem.settings.start == "regressor":
        return _solve_together(problem, rows, begin, None, tick)
    parts = []
    for k in range(len(rows)):
        first = begin[k : k + 1] if last is None else last[None]
        parts.append(_solve_together(problem, rows[k : k + 1], first, last, lambda done: None))
        last = parts[-1].codes[-1]
        tick(k + 1)
    return Solved(
        torch.cat([p.codes for p in parts]),
        np.concatenate([p.outcome for p in parts]),
        {k: np.concatenate([p.losses[k] for p in parts]) for k in parts[0].losses},
    )


def _solve_together(
    problem: Problem, rows: Tensor, begin: Tensor, last: Tensor | None, tick: Callable[[int], None]
) -> Solved:
    """Frames as one problem, each stopped by itself; ``batch`` of them are drawn at once, and gradients summed."""
    s = problem.settings
    chart = _CHARTS[s.space](problem, begin)
    adam = torch.optim.Adam(chart.parameters, lr=s.rate)
    history: list[Tensor] = []
    best, kept, terms = torch.full((len(rows),), float("inf")), begin.clone(), {}
    stopped = torch.zeros(len(rows), dtype=torch.bool)
    for step in range(s.steps):
        adam.zero_grad()
        codes, now = backward(problem, chart, rows, last)
        value = sum(getattr(s, name) * term for name, term in now.items())
        better = (value < best) & ~stopped
        best = torch.where(better, value, best)
        kept = torch.where(better[:, None, None], codes, kept)
        terms = {k: torch.where(better, v, terms.get(k, v)) for k, v in now.items()}
        history = [*history[-LOOK_BACK:], best]
        if len(history) > LOOK_BACK:
            stopped |= history[0] - best < s.tolerance * best
        tick(int(len(rows) * (step + 1) / s.steps))
        if bool(stopped.all()):
            break
        adam.step()
    outcome = np.where(stopped.numpy(), Outcome.CONVERGED, Outcome.MAX_STEPS)
    return Solved(kept, outcome, {k: v.numpy() for k, v in (terms | {"total": best}).items()})


def backward(problem: Problem, chart, rows: Tensor, last: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients of the whole objective into the chart; returns codes [B, L, K] and the terms, each [B]."""
    s = problem.settings
    codes = chart.codes()
    now = chart.terms()
    now["temporal"] = _temporal(codes, last, problem.linked[int(rows[0]) - (last is not None) : int(rows[-1])])
    now |= problem.priors(codes.mean(1), rows)
    given, found = codes.detach().requires_grad_(True), []
    for part in torch.arange(len(rows)).split(s.batch):
        data = data_terms(problem.render_and_measure(given[part]), problem.motion, rows[part])
        sum(getattr(s, name) * term for name, term in data.items()).sum().backward()
        found.append({k: v.detach() for k, v in data.items()})
    rest = sum(getattr(s, name) * term for name, term in now.items()).sum()
    (rest + (codes * given.grad).sum()).backward()  # the chain rule at the codes
    data = {k: torch.cat([d[k] for d in found]) for k in found[0]}
    return codes.detach(), data | {k: v.detach() for k, v in now.items()}


def _temporal(codes: Tensor, last: Tensor | None, linked: Tensor) -> Tensor:
    chain = codes if last is None else torch.cat([last[None], codes])
    term = losses.temporal(chain, linked)
    return term if last is None else term[1:]


class Axes:
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
        return {
            "delta": losses.delta(self.offset) / self.offset[0].numel(),
            "hull": (centre - nearest).square().mean(1),
        }


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


_CHARTS = {"axes": Axes, "hull": _Hull, "softplus": _Softplus}
