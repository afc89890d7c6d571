"""The default solver: damped Gauss-Newton with a learned Jacobian that is corrected after every step.

A frame has few residuals (keypoints and pooled patches) and few unknowns (principal axes of the anchors). The
Jacobian comes from the avatar's regressor at almost no cost, and Broyden's update corrects it with every evaluation.
A step therefore costs one synthesis a frame instead of one for each axis. The temporal term couples the frames of a
window, so the normal equations are block-tridiagonal; they are solved as one banded system.

Symbols: c code, y output vector, r residual, J = dr/dc, x step. Sizes: T frames, K axes, M outputs.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import LinAlgError, solveh_banded  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from mystudio.engines.personal.measure import Residual, Terms, data_terms, output_vector, weighted_sum
from mystudio.engines.personal.problem import Problem, select_frames
from mystudio.engines.personal.windows import Solved, reach
from mystudio.motion import losses
from mystudio.motion.retarget import Motion
from mystudio.types import Outcome
from selfscan.types import Array

LONGEST = 2.0  # anchor deviations: a step is shortened to this length
DAMPING, LEAST_DAMPING, MOST_DAMPING = 0.1, 1e-3, 1e4  # shares of the mean diagonal of J'J: first, and the bounds
EASED, RAISED = 0.3, 8.0  # factors of the damping after a step that improved the frame, and after one that did not


@dataclass(frozen=True)
class Frames:
    """The frames of one window and their targets."""

    problem: Problem
    rows: Tensor  # [T] their indices in the clip, one after the other
    wanted: Motion  # of these frames alone
    residual: Residual  # of these frames alone

    @classmethod
    def of(cls, problem: Problem, frames: range) -> Frames:
        """Select the frames from the clip."""
        rows = torch.arange(frames.start, frames.stop)
        wanted = select_frames(problem.motion, rows)
        return cls(problem, rows, wanted, Residual.of(wanted, problem.shape, problem.settings.weights))

    @property
    def start(self) -> Tensor:
        """Start codes [T, K]."""
        return self.problem.start[self.rows]

    @property
    def linked(self) -> Tensor:
        """[T - 1] 1 where a frame is followed by the next one without a cut."""
        return self.problem.linked[self.rows[:-1]]

    def evaluate(self, codes: Tensor, which: Tensor, at_start: bool = False) -> tuple[Tensor, Terms]:
        """Output vectors [B, M] and data terms [B] of frames ``which`` [B] of the window at codes [B, K].

        Args: at_start: the codes are the start codes.
        """
        outputs, terms = list[Tensor](), list[Terms]()
        look = self.problem.measure_start if at_start else self.problem.render_and_measure
        for first in range(0, len(which), self.problem.settings.batch):
            part = slice(first, first + self.problem.settings.batch)
            seen = look(codes[part])
            outputs.append(output_vector(seen.landmarks, seen.mouth, seen.irises))
            valid = self.wanted.valid[which[part]].to(codes.dtype)  # a frame without a face has no data terms
            terms.append({k: v * valid for k, v in data_terms(seen, self.wanted, which[part]).items()})
        return torch.cat(outputs), {k: torch.cat([t[k] for t in terms]) for k in terms[0]}

    def objective(self, codes: Tensor, data: Terms) -> Tensor:
        """The objective [T] at codes [T, K] with these data terms, without the temporal term (``unrest``)."""
        s, terms = self.problem.settings, data | self.problem.priors(codes, self.rows)
        if s.hull:
            terms["hull"] = self.problem.space.outside(codes, s.dilation).square() / self.problem.space.rank
        return weighted_sum(terms, s.weights)

    def unrest(self, codes: Tensor) -> Tensor:
        """The temporal term [T]: half of each change counts for either frame, as if both moved at the same time."""
        return self.problem.settings.temporal * losses.temporal(codes, self.linked)


@dataclass(frozen=True)
class State:
    """The best solution so far of every frame."""

    codes: Tensor  # [T, K]
    outputs: Tensor  # [T, M] measured at the codes
    terms: Terms  # data terms at the codes
    best: Tensor  # [T] objective at the codes, without the temporal term
    jacobian: Tensor  # [T, M, K] estimate of dy/dc
    damping: Tensor  # [T]
    settled: Tensor  # [T] bool: the last step improved the frame by less than the tolerance


@dataclass(frozen=True)
class Trial:
    """A step that was evaluated and is not yet accepted."""

    move: Tensor  # [T, K] the step; 0 where a frame does not move
    moving: Tensor  # [T] bool
    codes: Tensor  # [T, K] after the step
    outputs: Tensor  # [T, M]
    terms: Terms
    value: Tensor  # [T] objective, without the temporal term


@torch.no_grad()
def solve_window(
    problem: Problem,
    frames: range,
    last: Tensor | None,
    tick: Callable[[int], None],
    slope: Callable[[Problem, Tensor], Tensor] | None = None,
) -> Solved:
    """Solve the frames of one window together.

    Args:
        last: not used, because windows overlap (``windows``). tick: called with the frames' worth of work that is done.
        slope: codes [T, K] -> dy/dc [T, M, K], called before every step; None = the regressor's, corrected by Broyden.
    Returns: codes, the same on all layers, outcomes, and the terms of the objective at the solution.
    """
    window, steps = Frames.of(problem, frames), problem.settings.steps
    state = begin(window)
    for step in range(steps):
        if slope:
            state = replace(state, jacobian=slope(problem, state.codes))
        trial = evaluate(window, state, *propose(window, state))
        state = accept(window, state, trial)
        tick(int(len(frames) * (step + 1) / steps))
        if bool(state.settled.all()):
            break
    terms = (*state.terms.items(), ("total", state.best))
    outcome = np.where(np.asarray(state.settled), Outcome.CONVERGED, Outcome.MAX_STEPS)
    layers = state.codes[:, None].expand(-1, problem.generator.num_ws, -1).clone()
    return Solved(layers, outcome, {name: np.asarray(value) for name, value in terms})


def begin(window: Frames) -> State:
    """The state at the start codes."""
    codes, count = window.start, len(window.rows)
    outputs, terms = window.evaluate(codes, torch.arange(count), at_start=True)
    return State(
        codes,
        outputs,
        terms,
        best=window.objective(codes, terms),
        jacobian=window.problem.regressor.jacobian(codes),
        damping=torch.full((count,), DAMPING),
        settled=torch.zeros(count, dtype=torch.bool),
    )


def propose(window: Frames, state: State) -> tuple[Tensor, Tensor]:
    """The Gauss-Newton step [T, K] of the coupled window, and which frames it moves, [T] bool.

    A frame that has settled, among frames that have settled, stays and is not synthesized again.
    """
    blocks, gradient, coupling = normal_equations(window, state)
    move = torch.as_tensor(solve_banded(*map(np.asarray, (blocks, -gradient, coupling))), dtype=state.codes.dtype)
    move = move * (LONGEST / move.norm(dim=1, keepdim=True).clamp_min(LONGEST))
    moving = _near_unsettled(window, state.settled)
    move[~moving] = 0.0
    return move, moving


def evaluate(window: Frames, state: State, move: Tensor, moving: Tensor) -> Trial:
    """Synthesize and measure the frames that move."""
    codes, which = state.codes + move, torch.nonzero(moving)[:, 0]
    outputs = state.outputs.clone()
    terms: Terms = {name: value.clone() for name, value in state.terms.items()}
    outputs[which], found = window.evaluate(codes[which], which)
    for name, values in found.items():
        terms[name][which] = values
    return Trial(move, moving, codes, outputs, terms, window.objective(codes, terms))


def accept(window: Frames, state: State, trial: Trial) -> State:
    """Keep the step in every frame that it improves, and raise the damping of the others. Correct all Jacobians."""
    now = state.best + window.unrest(state.codes)
    then = trial.value + window.unrest(trial.codes)
    better = then < now
    rests = torch.where(better, then > now * (1 - window.problem.settings.tolerance), state.settled)
    damping = torch.where(better, state.damping * EASED, state.damping * RAISED)
    return State(
        codes=torch.where(better[:, None], trial.codes, state.codes),
        outputs=torch.where(better[:, None], trial.outputs, state.outputs),
        terms={name: torch.where(better, trial.terms[name], value) for name, value in state.terms.items()},
        best=torch.where(better, trial.value, state.best),
        jacobian=broyden(state.jacobian, trial.move, trial.outputs - state.outputs),
        damping=damping.clamp(LEAST_DAMPING, MOST_DAMPING),
        settled=~trial.moving | rests,
    )


def normal_equations(window: Frames, state: State) -> tuple[Tensor, Tensor, Tensor]:
    """(J'J + D) x = -g of the coupled window, in float64.

    Returns: diagonal blocks [T, K, K], gradient g [T, K], and the coupling [T - 1] of each frame with the next.
    """
    problem, s, codes = window.problem, window.problem.settings, state.codes
    rank, at, seen = codes.shape[1], torch.arange(len(codes)), window.wanted.valid.double()
    r, j = window.residual(state.outputs, at), window.residual.jacobian(state.jacobian, at)
    blocks = torch.einsum("tmi,tmj->tij", j, j).double() * seen[:, None, None]
    gradient = torch.einsum("tmi,tm->ti", j, r).double() * seen[:, None]
    diagonal = state.damping.double() * blocks.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-6)
    turn = problem.pose_lid_map.double()
    prior = (s.prior * torch.eye(rank) + s.pose_lid_weight * turn @ turn.t()) / rank
    blocks += prior
    gradient += (codes - window.start).double() @ prior
    if s.hull:
        gradient += s.hull / rank * (codes - problem.space.project(codes, s.dilation))
        diagonal = diagonal + s.hull / rank
    coupling = s.temporal / rank * window.linked.double()
    change = coupling[:, None] * (codes[1:] - codes[:-1])
    gradient[1:] += change
    gradient[:-1] -= change
    none = coupling.new_zeros(1)
    diagonal = diagonal + torch.cat([coupling, none]) + torch.cat([none, coupling])
    blocks += torch.diag_embed(diagonal[:, None].expand(-1, rank))
    return blocks, gradient, coupling


def solve_banded(blocks: Array, right: Array, coupling: Array) -> Array:
    """Solve the symmetric block-tridiagonal system with diagonal blocks [T, K, K] and -coupling[t] I beside them.

    Returns: [T, K]; zeros if the system is not finite or not positive definite, so that nothing moves and the damping
        is raised.
    """
    frames, rank = right.shape
    band = np.zeros((rank + 1, frames * rank))  # upper form: band[rank + i - j, j] = A[i, j]
    for j in range(rank):
        for i in range(j + 1):
            band[rank + i - j, j::rank] = blocks[:, i, j]
    band[0, rank:] = -np.repeat(coupling, rank)
    try:
        moved: Array = solveh_banded(band, right.ravel(), check_finite=True)
        return moved.reshape(frames, rank)
    except (LinAlgError, ValueError):
        return np.zeros_like(right)


def broyden(jacobian: Tensor, move: Tensor, change: Tensor) -> Tensor:
    """Broyden's update J + (dy - J x) x' / x'x: the least change of J that explains the output change dy after x.

    Args: jacobian: J [T, M, K]. move: x [T, K]. change: dy [T, M].
    """
    error = change - torch.einsum("tmk,tk->tm", jacobian, move)
    scale = move.square().sum(1, keepdim=True) + 1e-3
    return jacobian + error[..., None] * (move / scale)[:, None]


def _near_unsettled(window: Frames, settled: Tensor) -> Tensor:
    """[T] frames that have not settled, or are within the temporal term's reach of one: only these can still move."""
    s = window.problem.settings
    distance = reach(s.temporal, s.prior, len(settled)) // 2
    near = torch.nn.functional.max_pool1d(1.0 - settled.float()[None], 2 * distance + 1, 1, distance)[0]
    return near != 0
