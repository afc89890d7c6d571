"""The solver of the default recipe: damped Gauss-Newton with a learned Jacobian, corrected as it goes.

A frame's residuals are short (keypoints and pooled patches), its unknowns few (principal axes of the anchors). The
Jacobian comes from the avatar's forward regressor, at no cost, and Broyden's update corrects it with every true
evaluation, so that a step costs one synthesis a frame instead of one for each axis. Frames of a window are coupled
by the temporal term: the normal equations are block-tridiagonal and solved as one banded system.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from mystudio.engines.personal.measure import Residual, data_terms, output_vector
from mystudio.engines.personal.solve import Problem
from mystudio.engines.personal.windows import Solved, reach
from mystudio.motion import losses
from mystudio.types import Motion, Outcome


@torch.no_grad()
def solve_window(
    problem: Problem,
    frames: range,
    last: Tensor | None,
    tick: Callable[[int], None],
    slope: Callable[[Problem, Tensor], Tensor] | None = None,
) -> Solved:
    """Solve the frames of one window together; a frame at rest among frames at rest is not drawn again.

    Args:
        last: not used: windows overlap instead (``windows``). tick: told how many frames' worth of work is done.
        slope: codes [T, K] -> d output / d code [T, M, K], asked before every step; None = learned, then Broyden's.
    Returns: codes on all layers alike, outcomes, and each term of the objective at the solution.
    """
    s, rows = problem.settings, torch.arange(frames.start, frames.stop)
    wanted = _part(problem.motion, rows)  # patches and masks are made here, once for all steps
    residual = Residual.of(wanted, problem.shape, s.weights)
    codes = problem.start[rows]
    seen = wanted.valid.double()
    jacobian = problem.regressor.jacobian(codes)
    outputs, terms = _evaluate(problem, wanted, codes, torch.arange(len(rows)))
    damping = torch.full((len(rows),), 0.1)
    best = _objective(problem, codes, terms, rows)
    settled, distance = torch.zeros(len(rows), dtype=torch.bool), reach(s.temporal, s.prior, len(rows)) // 2
    for step in range(s.steps):
        jacobian = slope(problem, codes) if slope else jacobian
        move = _step(problem, residual, outputs, jacobian, codes, rows, damping, seen)
        move = move * (2.0 / move.norm(dim=1, keepdim=True).clamp_min(2.0))  # at most two deviations at once
        still = _at_rest(settled, distance)
        live = torch.nonzero(~still)[:, 0]
        move[still] = 0.0
        trial = codes + move
        new_outputs, new_terms = outputs.clone(), {k: v.clone() for k, v in terms.items()}
        new_outputs[live], found = _evaluate(problem, wanted, trial[live], live)
        for name, values in found.items():
            new_terms[name][live] = values
        jacobian = _broyden(jacobian, move, new_outputs - outputs)
        value = _objective(problem, trial, new_terms, rows)
        now, then = best + _unrest(problem, codes, rows), value + _unrest(problem, trial, rows)
        better = then < now
        settled = still | torch.where(better, then > now * (1 - s.tolerance), settled)
        damping = torch.where(better, damping * 0.3, damping * 8).clamp(1e-3, 1e4)
        codes = torch.where(better[:, None], trial, codes)
        outputs = torch.where(better[:, None], new_outputs, outputs)
        best = torch.where(better, value, best)
        terms = {k: torch.where(better, new_terms[k], v) for k, v in terms.items()}
        tick(int(len(rows) * (step + 1) / s.steps))
        if bool(settled.all()):
            break
    terms["total"] = best
    outcome = np.where(settled.numpy(), Outcome.CONVERGED, Outcome.MAX_STEPS)
    layers = codes[:, None].expand(-1, problem.generator.num_ws, -1).clone()
    return Solved(layers, outcome, {k: v.numpy() for k, v in terms.items()})


def _at_rest(settled: Tensor, distance: int) -> Tensor:
    """[T] frames that have settled together with all within ``distance``: nothing will move them any more."""
    moving = torch.nn.functional.max_pool1d(1.0 - settled.float()[None], 2 * distance + 1, 1, distance)[0]
    return moving == 0


def _evaluate(problem: Problem, wanted: Motion, codes: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    outputs, terms = [], []
    for first in range(0, len(rows), problem.settings.batch):
        part = slice(first, first + problem.settings.batch)
        seen = problem.render_and_measure(codes[part])
        outputs.append(output_vector(seen.landmarks, seen.mouth, seen.irises))
        valid = wanted.valid[rows[part]].to(codes.dtype)  # a frame without a face asks for nothing
        terms.append({k: v * valid for k, v in data_terms(seen, wanted, rows[part]).items()})
    return torch.cat(outputs), {k: torch.cat([t[k] for t in terms]) for k in terms[0]}


def _objective(problem: Problem, codes: Tensor, terms: dict[str, Tensor], rows: Tensor) -> Tensor:
    """Per frame, without the temporal term (``_unrest``)."""
    s = problem.settings
    priors = problem.priors(codes, rows)
    hull = problem.space.outside(codes, s.dilation).square() / problem.space.rank if s.hull else 0.0
    value = s.keypoint * terms["keypoint"] + s.mouth * terms["mouth"] + s.iris * terms["iris"]
    return value + s.prior * priors["prior"] + s.hold * priors["hold"] + s.hull * hull


def _unrest(problem: Problem, codes: Tensor, rows: Tensor) -> Tensor:
    """The temporal term, half of each change to either frame; neighbours are taken to move at the same time."""
    return problem.settings.temporal * losses.temporal(codes, problem.linked[rows[:-1]])


def _step(problem, residual: Residual, outputs, jacobian, codes, rows, damping, seen) -> Tensor:
    """One Gauss-Newton step of the coupled window: (J'J + D) x = -g, block-tridiagonal, [T, K]."""
    s, rank = problem.settings, codes.shape[1]
    at = rows - rows[0]
    r, j = residual(outputs, at), residual.jacobian(jacobian, at)
    blocks = torch.einsum("tmi,tmj->tij", j, j).double() * seen[:, None, None]
    gradient = torch.einsum("tmi,tm->ti", j, r).double() * seen[:, None]
    diagonal = damping.double() * blocks.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-6)
    held = problem.held.double()
    hold = (s.prior * torch.eye(rank) + s.hold * held @ held.t()) / rank
    blocks += hold
    gradient += (codes - problem.start[rows]).double() @ hold
    if s.hull:
        gradient += s.hull / rank * (codes - problem.space.project(codes, s.dilation))
        diagonal = diagonal + s.hull / rank
    pull = s.temporal / rank * problem.linked[rows[:-1]].double()
    change = pull[:, None] * (codes[1:] - codes[:-1])
    gradient[1:] += change
    gradient[:-1] -= change
    zero = pull.new_zeros(1)
    diagonal = diagonal + torch.cat([pull, zero]) + torch.cat([zero, pull])
    blocks += torch.diag_embed(diagonal[:, None].expand(-1, rank))
    return torch.as_tensor(_banded(blocks.numpy(), -gradient.numpy(), pull.numpy()), dtype=codes.dtype)


def _banded(blocks: np.ndarray, right: np.ndarray, coupling: np.ndarray) -> np.ndarray:
    """Solve the symmetric block-tridiagonal system with diagonal blocks [T, K, K] and -coupling[t] I beside them."""
    frames, rank = right.shape
    band = np.zeros((rank + 1, frames * rank))  # upper form: band[rank + i - j, j] = A[i, j]
    for j in range(rank):
        for i in range(j + 1):
            band[rank + i - j, j::rank] = blocks[:, i, j]
    band[0, rank:] = -np.repeat(coupling, rank)
    try:
        return solveh_banded(band, right.ravel(), check_finite=True).reshape(frames, rank)
    except (LinAlgError, ValueError):  # not positive definite or not finite: stay, and be damped more
        return np.zeros_like(right)


def _broyden(jacobian: Tensor, move: Tensor, change: Tensor) -> Tensor:
    """Broyden's update: the least change of J that explains what was seen, J + (dy - J x) x' / x'x."""
    error = change - torch.einsum("tmk,tk->tm", jacobian, move)
    scale = move.square().sum(1, keepdim=True) + 1e-3
    return jacobian + error[..., None] * (move / scale)[:, None]


def _part(motion, rows: Tensor):
    from dataclasses import replace

    names = ("keypoints", "change", "mouth", "mouth_mask", "irises", "iris_mask", "valid", "times")
    return replace(motion, **{n: getattr(motion, n)[rows] for n in names})
