"""The solver of the default recipe: damped Gauss-Newton with a learned Jacobian, corrected as it goes.

A frame's residuals are short (keypoints and pooled patches), its unknowns few: principal axes of the anchors, once for
the coarse layers and once for the fine ones. The Jacobian is measured at a frame now and then and carried to the others
by the avatar's forward regressor, at no cost; Broyden's update corrects it with every true evaluation, so that a step
costs one synthesis a frame instead of one for each axis. Frames of a window are coupled by the temporal term: the
normal equations are block-tridiagonal and solved as one banded system.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from mystudio import losses
from mystudio.engines.personal.measure import Residual, data_terms, measure, output_vector
from mystudio.engines.personal.solve import CONVERGED, MAX_STEPS, Problem
from mystudio.engines.personal.windows import Solved, reach

DIFFERENCE = 0.1  # anchor deviations between the two codes of a finite difference
FARTHEST = 2.0  # anchor deviations that a code may move at once, times the root of the number of parts


@torch.no_grad()
def solve_window(problem: Problem, frames: range, last: Tensor | None, tick: Callable[[int], None],
                 slope: Callable[[Problem, Tensor, Parts], Tensor] | None = None) -> Solved:
    """Solve the frames of one window together; a frame at rest among frames at rest is not drawn again.

    Args:
        last: not used: windows overlap instead (``windows``). tick: told how many frames' worth of work is done.
        slope: codes [T, P K] -> d output / d code [T, M, P K], asked before every step; None = as the module says.
    Returns: codes, alike on all coarse and on all fine layers, outcomes, and each term of the objective at the end.
    """
    s, rows = problem.settings, torch.arange(frames.start, frames.stop)
    parts = Parts.of(problem)
    residual = Residual.of(_part(problem.motion, rows), problem.shape, s.weights)
    codes = problem.start[rows].repeat(1, parts.count)
    seen = problem.motion.valid[rows].double()
    jacobian = _first_jacobian(problem, parts, rows) if s.steps and not slope else None
    outputs, terms = _evaluate(problem, parts.layers(codes), rows)
    damping = torch.full((len(rows),), 0.1)
    best = _objective(problem, parts, codes, terms, problem.start[rows])
    settled, distance = torch.zeros(len(rows), dtype=torch.bool), reach(s.temporal, s.prior, len(rows)) // 2
    for step in range(s.steps):
        jacobian = slope(problem, codes, parts) if slope else jacobian
        move = _step(problem, parts, residual, outputs, jacobian, codes, rows, damping, seen)
        most = FARTHEST * parts.count**0.5
        move = move * (most / move.norm(dim=1, keepdim=True).clamp_min(most))
        still = _at_rest(settled, distance)
        live = torch.nonzero(~still)[:, 0]
        move[still] = 0.0
        trial = codes + move
        new_outputs, new_terms = outputs.clone(), {k: v.clone() for k, v in terms.items()}
        new_outputs[live], found = _evaluate(problem, parts.layers(trial[live]), rows[live])
        for name, values in found.items():
            new_terms[name][live] = values
        jacobian = _broyden(jacobian, move, new_outputs - outputs)
        value = _objective(problem, parts, trial, new_terms, problem.start[rows])
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
    outcome = np.where(settled.numpy(), CONVERGED, MAX_STEPS)
    return Solved(parts.layers(codes).clone(), outcome, {k: v.numpy() for k, v in terms.items()})


@dataclass(frozen=True)
class Parts:
    """Codes of P parts of the layers, side by side in one vector [P K]: the coarse layers', then the fine ones'."""

    count: int  # P
    of_layer: Tensor  # [L] the part that a layer belongs to
    mean: Tensor  # [K, P K] mean over layers
    apart: Tensor  # [P K, P K] each part's difference from it

    @classmethod
    def of(cls, problem: Problem) -> Parts:
        """Two parts, or one where ``settings.coarse`` leaves nothing on one side."""
        layers, rank = problem.generator.num_ws, problem.space.rank
        of_layer = (torch.arange(layers) >= problem.settings.coarse).long()
        of_layer = of_layer - of_layer.min()
        share = torch.bincount(of_layer) / layers
        mean = torch.kron(share[None], torch.eye(rank))
        return cls(len(share), of_layer, mean, torch.eye(len(share) * rank) - mean.repeat(len(share), 1))

    def layers(self, codes: Tensor) -> Tensor:
        """Codes [B, P K] -> [B, L, K]."""
        return codes.unflatten(1, (self.count, -1))[:, self.of_layer]


def _first_jacobian(problem: Problem, parts: Parts, rows: Tensor) -> Tensor:
    """d output / d code at the start codes [T, M, P K]: the true one of a frame nearby, with the learned change.

    Which frame that is follows from the place in the clip alone, whatever the window.
    """
    every, share = problem.settings.measured_every, parts.mean
    if not every:
        return problem.regressor.jacobian(problem.start[rows]) @ share
    keys, at = (rows // every * every + every // 2).clamp_max(len(problem.motion) - 1).unique(return_inverse=True)
    codes = problem.start[keys]
    true = true_jacobian(problem, codes.repeat(1, parts.count), lambda c: problem.images(parts.layers(c)))
    change = problem.regressor.jacobian(problem.start[rows]) - problem.regressor.jacobian(codes)[at]
    return true[at] + change @ share


@torch.no_grad()
def true_jacobian(problem: Problem, codes: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """d output / d code at codes [T, C] by differences, [T, M, C]; C + 1 pictures a code, drawn by ``draw``."""
    columns = []
    for code in codes:
        around = torch.cat([code[None], code + DIFFERENCE * torch.eye(len(code))])
        seen = [measure(problem.mesh, draw(part), problem.shape).to(code.device)
                for part in around.split(problem.settings.batch)]
        outputs = torch.cat([output_vector(s.landmarks, s.mouth, s.irises) for s in seen])
        columns.append((outputs[1:] - outputs[:1]).t() / DIFFERENCE)
    return torch.stack(columns)


def _at_rest(settled: Tensor, distance: int) -> Tensor:
    """[T] frames that have settled together with all within ``distance``: nothing will move them any more."""
    moving = torch.nn.functional.max_pool1d(1.0 - settled.float()[None], 2 * distance + 1, 1, distance)[0]
    return moving == 0


def _evaluate(problem: Problem, codes: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    outputs, terms = [], []
    for first in range(0, len(rows), problem.settings.batch):
        part = slice(first, first + problem.settings.batch)
        seen = problem.see(codes[part])
        outputs.append(output_vector(seen.landmarks, seen.mouth, seen.irises))
        valid = problem.motion.valid[rows[part]].to(codes.dtype)  # a frame without a face asks for nothing
        terms.append({k: v * valid for k, v in data_terms(seen, problem.motion, rows[part]).items()})
    return torch.cat(outputs), {k: torch.cat([t[k] for t in terms]) for k in terms[0]}


def _objective(problem: Problem, parts: Parts, codes: Tensor, terms: dict[str, Tensor], start: Tensor) -> Tensor:
    """Per frame, without the temporal term (``_unrest``)."""
    s, middle = problem.settings, codes @ parts.mean.t()
    prior = (middle - start).square().mean(1)
    hull = problem.space.outside(middle, s.dilation).square() / problem.space.rank if s.hull else 0.0
    value = s.keypoint * terms["keypoint"] + s.mouth * terms["mouth"] + s.iris * terms["iris"]
    return value + s.prior * prior + s.hull * hull + s.apart * (codes @ parts.apart.t()).square().mean(1)


def _unrest(problem: Problem, codes: Tensor, rows: Tensor) -> Tensor:
    """The temporal term, half of each change to either frame; neighbours are taken to move at the same time."""
    return problem.settings.temporal * losses.temporal(codes, problem.linked[rows[:-1]])


def _step(problem, parts: Parts, residual: Residual, outputs, jacobian, codes, rows, damping, seen) -> Tensor:
    """One Gauss-Newton step of the coupled window: (J'J + D) x = -g, block-tridiagonal, [T, P K]."""
    s, size = problem.settings, codes.shape[1]
    rank, at = size // parts.count, rows - rows[0]
    r, j = residual(outputs, at), residual.jacobian(jacobian, at)
    blocks = torch.einsum("tmi,tmj->tij", j, j).double() * seen[:, None, None]
    gradient = torch.einsum("tmi,tm->ti", j, r).double() * seen[:, None]
    diagonal = damping.double() * blocks.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-6)
    middle = codes @ parts.mean.t()
    pulled = s.prior / rank * (middle - problem.start[rows])
    if s.hull:
        pulled = pulled + s.hull / rank * (middle - problem.space.project(middle, s.dilation))
    gradient += pulled @ parts.mean + s.apart / size * codes @ parts.apart.t() @ parts.apart
    blocks += ((s.prior + s.hull) / rank * parts.mean.t() @ parts.mean
               + s.apart / size * parts.apart.t() @ parts.apart).double()
    pull = s.temporal / size * problem.linked[rows[:-1]].double()
    change = pull[:, None] * (codes[1:] - codes[:-1])
    gradient[1:] += change
    gradient[:-1] -= change
    zero = pull.new_zeros(1)
    diagonal = diagonal + torch.cat([pull, zero]) + torch.cat([zero, pull])
    blocks += torch.diag_embed(diagonal[:, None].expand(-1, size))
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
    names = ("keypoints", "change", "mouth", "mouth_mask", "irises", "iris_mask", "valid", "times")
    return replace(motion, **{n: getattr(motion, n)[rows] for n in names})
