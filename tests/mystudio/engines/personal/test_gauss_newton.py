"""Gauss-Newton's algebra against dense matrices: the compressed residual, banded solve, Broyden update and one step."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mystudio.engines.personal import gauss_newton
from mystudio.engines.personal.gauss_newton import Frames, State, Trial
from mystudio.engines.personal.measure import Measured, Residual, data_terms, output_vector, weighted_sum
from mystudio.engines.personal.problem import Problem, SolveSettings
from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion.retarget import Motion, RetargetSettings, normalise


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_motion(frames: int, valid: torch.Tensor | None = None, seed: int = 0) -> Motion:
    """Random aims; patches and masks are constant over squares of 4 x 4 px, so that pooling loses nothing."""

    def squares(*shape, step):
        small = torch.rand(*shape, generator=torch.Generator().manual_seed(seed + step))
        return small.repeat_interleave(4, -2).repeat_interleave(4, -1)

    weights = torch.rand(66, generator=torch.Generator().manual_seed(seed))
    return Motion(
        keypoints=0.1 * draw(frames, 66, 3, seed=seed), weights=weights, change=0.1 * draw(frames, 66, 3, seed=seed),
        mouth=squares(frames, 3, 6, 8, step=1) * 2 - 1, mouth_mask=squares(frames, 1, 6, 8, step=2),
        irises=squares(frames, 2, 3, 4, 8, step=3) * 2 - 1, iris_mask=squares(frames, 2, 1, 4, 8, step=4),
        valid=torch.ones(frames, dtype=torch.bool) if valid is None else valid,
        times=torch.arange(frames, dtype=torch.float64) / 25,
    )  # fmt: skip


@pytest.mark.parametrize("offsets, depth", [(0.0, 1.0), (0.5, 0.5), (1.0, 0.3)])
def test_squared_residuals_are_the_weighted_data_terms(offsets, depth):
    shape = RetargetSettings(part_offsets=offsets, depth=depth)
    motion, other = random_motion(3), random_motion(3, seed=20)
    weights = SolveSettings(keypoint=0.7, mouth=3.0, iris=11.0).weights
    marks = 0.5 + 0.1 * draw(3, 478, 3, seed=5)
    seen = Measured(marks, normalise(marks, offsets, depth), other.mouth, other.irises)
    terms = data_terms(seen, motion, torch.arange(3))
    expected = 0.7 * terms["keypoint"] + 3.0 * terms["mouth"] + 11.0 * terms["iris"]
    assert torch.allclose(weighted_sum(terms, weights), expected)
    residual = Residual.of(motion, shape, weights)
    r = residual(output_vector(marks, other.mouth, other.irises), torch.arange(3))
    assert torch.allclose(r.square().sum(1), expected, rtol=1e-4)


def test_residual_is_linear_with_its_jacobian():
    residual = Residual.of(random_motion(2), RetargetSettings(), SolveSettings().weights)
    y, step = draw(2, residual.gain.shape[1]), draw(2, residual.gain.shape[1], 4, seed=1)
    at, code = torch.arange(2), draw(2, 4, seed=2)
    moved = residual(y + torch.einsum("tmk,tk->tm", step, code), at)
    assert torch.allclose(moved - residual(y, at), torch.einsum("tmk,tk->tm", residual.jacobian(step, at), code),
                          atol=1e-3)  # fmt: skip


@pytest.mark.parametrize("frames, rank", [(1, 3), (2, 1), (6, 4)])
def test_banded_solution_is_the_dense_one(frames, rank):
    draws = np.random.default_rng(0)
    half = draws.standard_normal((frames, rank, rank))
    blocks = half @ half.transpose(0, 2, 1) + 2 * np.eye(rank)
    coupling, right = draws.uniform(0, 0.9, frames - 1), draws.standard_normal((frames, rank))
    dense = np.zeros((frames, rank, frames, rank))
    for t in range(frames):
        dense[t, :, t] = blocks[t]
        if t + 1 < frames:
            dense[t, :, t + 1] = dense[t + 1, :, t] = -coupling[t] * np.eye(rank)
    expected = np.linalg.solve(dense.reshape(frames * rank, -1), right.ravel()).reshape(frames, rank)
    assert np.allclose(gauss_newton.solve_banded(blocks, right, coupling), expected)


@pytest.mark.parametrize("fault", [-1.0, np.nan, np.inf])
def test_a_system_that_cannot_be_solved_moves_nothing(fault):
    blocks = np.repeat(np.eye(2)[None], 3, 0)
    blocks[1, 0, 0] = fault
    assert np.array_equal(gauss_newton.solve_banded(blocks, np.ones((3, 2)), np.zeros(2)), np.zeros((3, 2)))


def test_broydens_update_explains_what_was_seen_and_nothing_else():
    jacobian, move, change = draw(4, 9, 3), draw(4, 3, seed=1), draw(4, 9, seed=2)
    updated = gauss_newton.broyden(jacobian, move, change)
    assert torch.allclose(torch.einsum("tmk,tk->tm", updated, move), change, atol=0.02)  # the secant condition
    aside = torch.linalg.cross(move, draw(4, 3, seed=3))
    assert torch.allclose(updated @ aside[..., None], jacobian @ aside[..., None], atol=1e-5)
    assert torch.equal(gauss_newton.broyden(jacobian, torch.zeros(4, 3), change), jacobian)  # no step, no update


def problem_of(motion: Motion, settings: SolveSettings, start: Tensor, linked: Tensor, turn: Tensor) -> Problem:
    """Return a problem for tests of the linear algebra only; its networks are empty."""
    none, rank = nn.Identity(), start.shape[1]
    return Problem(
        generator=none, mesh=none, space=AnchorSpace.of(draw(20, rank), rank), regressor=Regressor(198, rank, 30),
        motion=motion, shape=RetargetSettings(), settings=settings, start=start, linked=linked, pose_lid_map=turn,
        draw=none,
    )  # fmt: skip


@pytest.mark.parametrize("frames", [1, 5])
def test_an_undamped_step_solves_a_linear_problem_exactly(frames):
    """With outputs linear in the codes, one step reaches a zero gradient of the window's objective."""
    rank, settings = 3, SolveSettings(prior=0.3, pose_lid_weight=5.0, temporal=2.0, hull=0.0)
    valid, linked = torch.ones(frames, dtype=torch.bool), torch.ones(frames)
    if frames == 5:
        valid[3], linked[1] = False, 0  # a frame without a face, and a cut
    motion = random_motion(frames, valid)
    residual = Residual.of(motion, RetargetSettings(), settings.weights)
    jacobian, offset = draw(frames, residual.gain.shape[1], rank, seed=1), draw(frames, residual.gain.shape[1], seed=2)
    jacobian, start, codes = 0.02 * jacobian, draw(frames, rank, seed=3), draw(frames, rank, seed=4)
    rows = torch.arange(frames)
    turn = torch.linalg.qr(draw(rank, 2, seed=5))[0]
    problem = problem_of(motion, settings, start, linked, turn)
    outputs = offset + torch.einsum("tmk,tk->tm", jacobian, codes)
    state = State(codes, outputs, {}, torch.zeros(frames), jacobian, damping=torch.zeros(frames), settled=~valid)
    blocks, gradient, coupling = gauss_newton.normal_equations(Frames(problem, rows, motion, residual), state)
    move = torch.as_tensor(gauss_newton.solve_banded(blocks.numpy(), -gradient.numpy(), coupling.numpy()))

    solution = (codes + move).double().requires_grad_(True)
    y = offset.double() + torch.einsum("tmk,tk->tm", jacobian.double(), solution)
    objective = (residual(y.float(), rows).double().square().sum(1) * valid).sum()
    objective = objective + settings.prior / rank * (solution - start).square().sum()
    objective = objective + settings.pose_lid_weight / rank * ((solution - start) @ turn.double()).square().sum()
    objective = objective + settings.temporal / rank * (linked[:-1, None] * solution.diff(dim=0).square()).sum()
    slope = torch.autograd.grad(objective, solution)[0]
    assert slope.abs().max() < 1e-3
    assert move.abs().max() > 0.1


def test_a_step_is_kept_only_in_the_frames_that_it_improves():
    settings, count = SolveSettings(tolerance=0.01, temporal=0.0), 4
    motion, zeros = random_motion(count), torch.zeros(count, 3)
    problem = problem_of(motion, settings, zeros, torch.ones(count), draw(3, 4))
    window = Frames(problem, torch.arange(count), motion, Residual.of(motion, RetargetSettings(), settings.weights))
    best, value = torch.ones(count), torch.tensor([0.5, 2.0, 0.999, 1.0])  # much better, worse, hardly better, equal
    moving = torch.tensor([True, True, True, False])
    state = State(zeros, zeros, {"mouth": best}, best, torch.zeros(count, 3, 3), torch.full((count,), 0.1), ~moving)
    move = draw(count, 3) * moving[:, None]
    trial = Trial(move, moving, move, 2 * move, {"mouth": value}, value)
    after = gauss_newton.accept(window, state, trial)
    assert torch.equal(after.codes, move * torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None])
    assert torch.equal(after.outputs, 2 * after.codes)
    assert after.best.tolist() == after.terms["mouth"].tolist() == [0.5, 1.0, value[2].item(), 1.0]
    assert after.settled.tolist() == [False, False, True, True]
    assert torch.allclose(after.damping, torch.tensor([0.03, 0.8, 0.03, 0.8]))
    seen = torch.einsum("tmk,tk->tm", after.jacobian, move)  # a rejected step updates the Jacobian too
    assert torch.allclose(seen, 2 * move, atol=0.02)


def test_a_settled_frame_among_settled_frames_is_not_synthesized_again():
    settings, count = SolveSettings(temporal=0.0), 3
    motion, zeros = random_motion(count), torch.zeros(count, 3)
    problem = problem_of(motion, settings, zeros, torch.ones(count), draw(3, 4))
    window = Frames(problem, torch.arange(count), motion, Residual.of(motion, RetargetSettings(), settings.weights))
    outputs, settled = draw(count, window.residual.gain.shape[1]), torch.tensor([True, False, True])
    jacobian = draw(*outputs.shape, 3, seed=1)
    state = State(zeros, outputs, {}, torch.ones(count), jacobian, torch.full((count,), 0.1), settled)
    move, moving = gauss_newton.propose(window, state)
    assert moving.tolist() == [False, True, False]
    assert move[1].norm() > 0 and move[1].norm() < 2.001 and not move[[0, 2]].any()
