"""The paper's solver: Adam through the pixels (PGR, arXiv 2307.06307; MyStyle's projection, arXiv 2203.17272).

With ``start = "previous"`` frames are solved one after the other, each from the last one's solution, as PGR does.
With ``start = "regressor"`` all frames of a window are solved at once. A chart maps the free parameters to codes.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mystudio.engines.personal.measure import Terms, data_terms, weighted_sum
from mystudio.engines.personal.problem import Problem
from mystudio.engines.personal.space import hull_weights, softplus_weights
from mystudio.engines.personal.windows import Solved
from mystudio.motion import losses
from mystudio.types import Outcome

LOOK_BACK = 20  # steps over which the improvement is compared with the tolerance


class Chart(Protocol):
    """A parametrisation of codes."""

    parameters: list[Tensor]

    def codes(self) -> Tensor:
        """Codes [B, L, K] of the parameters."""
        ...

    def terms(self) -> Terms:
        """Penalties [B] on the parameters themselves."""
        ...


def solve_window(problem: Problem, frames: range, last: Tensor | None, tick: Callable[[int], None]) -> Solved:
    """Solve the frames of one window.

    Args:
        last: [L, K] code of the frame before the window, where each frame starts at the last one's solution, or None.
        tick: called with the frames' worth of work that is done.
    Returns: codes of all layers, outcomes, and each term of the objective at the solution.
    """
    rows = torch.arange(frames.start, frames.stop)
    begin = problem.start[rows][:, None].expand(-1, problem.generator.num_ws, -1)
    if problem.settings.start == "regressor":
        return _solve_together(problem, rows, begin, None, tick)
    parts: list[Solved] = []
    for k in range(len(rows)):
        if rows[k] and not problem.linked[rows[k] - 1]:
            last = None  # after a cut the last solution tells nothing
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
    """Solve frames as one problem, from codes ``begin`` [B, L, K]; each frame stops by itself."""
    s = problem.settings
    chart = CHARTS[s.space](problem, begin)
    adam = torch.optim.Adam(chart.parameters, lr=s.rate)
    values: list[Tensor] = []  # best objective so far after each of the last steps
    best, best_codes = torch.full((len(rows),), float("inf")), begin.clone()
    best_terms: Terms = {}
    stopped = torch.zeros(len(rows), dtype=torch.bool)
    for step in range(s.steps):
        adam.zero_grad()
        codes, terms = backward(problem, chart, rows, last)
        value = weighted_sum(terms, s.weights)
        better = (value < best) & ~stopped
        best = torch.where(better, value, best)
        best_codes = torch.where(better[:, None, None], codes, best_codes)
        best_terms = {k: torch.where(better, v, best_terms.get(k, v)) for k, v in terms.items()}
        values = [*values[-LOOK_BACK:], best]
        if len(values) > LOOK_BACK:
            stopped |= values[0] - best < s.tolerance * best
        tick(int(len(rows) * (step + 1) / s.steps))
        if bool(stopped.all()):
            break
        adam.step()
    outcome = np.where(np.asarray(stopped), Outcome.CONVERGED, Outcome.MAX_STEPS)
    return Solved(best_codes, outcome, {k: np.asarray(v) for k, v in (*best_terms.items(), ("total", best))})


def backward(problem: Problem, chart: Chart, rows: Tensor, last: Tensor | None) -> tuple[Tensor, Terms]:
    """Add the gradients of the whole objective to the chart's parameters.

    Images are made ``batch`` frames at a time: gradients of the data terms are taken at the codes first, and the chain
    rule carries them to the parameters.

    Returns: codes [B, L, K] and all terms [B] of the objective, without gradients.
    """
    weights = problem.settings.weights
    codes = chart.codes()
    linked = problem.linked[int(rows[0]) - (last is not None) : int(rows[-1])]
    penalties: Terms = {
        **chart.terms(),
        "temporal": _temporal(codes, last, linked),
        **problem.priors(codes.mean(1), rows),
    }
    given, found = codes.detach().requires_grad_(True), list[Terms]()
    for part in torch.arange(len(rows)).split(problem.settings.batch):
        data = data_terms(problem.render_and_measure(given[part]), problem.motion, rows[part])
        weighted_sum(data, weights).sum().backward()
        found.append({k: v.detach() for k, v in data.items()})
    assert given.grad is not None, "the data terms depend on the codes"
    (weighted_sum(penalties, weights).sum() + (codes * given.grad).sum()).backward()
    data: Terms = {k: torch.cat([d[k] for d in found]) for k in found[0]}
    return codes.detach(), {**data, **{k: v.detach() for k, v in penalties.items()}}


def _temporal(codes: Tensor, last: Tensor | None, linked: Tensor) -> Tensor:
    """Change of the codes between frames, [B]; the first frame's change is that from the code ``last``."""
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

    def terms(self) -> Terms:
        centre = self.shared[:, 0]
        nearest = self.problem.space.project(centre.detach(), self.problem.settings.dilation, steps=50)
        return {
            "delta": losses.delta(self.offset) / self.offset[0].numel(),
            "hull": (centre - nearest).square().mean(1),
        }


class Hull:
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

    def terms(self) -> Terms:
        return {"delta": losses.delta(self.offset) / self.offset[0].numel()}


class Softplus(Hull):
    """MyStyle's own alpha: softplus with sharpness 100; a loss keeps the sum near 1. beta = (dilation - 1) / N."""

    def __init__(self, problem: Problem, begin: Tensor):
        super().__init__(problem, begin)
        with torch.no_grad():
            self.shared.copy_((4 * self.shared).softmax(-1))

    def alpha(self) -> Tensor:
        beta = (self.problem.settings.dilation - 1) / len(self.problem.space.codes)
        return softplus_weights(self.shared + self.offset, beta)

    def terms(self) -> Terms:
        beta = (self.problem.settings.dilation - 1) / len(self.problem.space.codes)
        raw = torch.nn.functional.softplus(self.shared + self.offset + beta, beta=100.0) - beta
        return {"delta": losses.delta(self.offset), "sum": losses.weight_sum(raw)}


#: space of the settings -> its chart
CHARTS = {"axes": Axes, "hull": Hull, "softplus": Softplus}
