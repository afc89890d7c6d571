"""The solvers on clips drawn from known codes; frames without a face; resuming from checkpoints."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import actor_avatar
import numpy as np
import pytest
import torch

from mystudio.engines.personal import adam
from mystudio.engines.personal.measure import Measured, data_terms, measure, weighted_sum
from mystudio.engines.personal.problem import Problem, SolveSettings, fill_gaps, select_frames
from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.solve import fill_unsolved, solve
from mystudio.engines.personal.space import hull_weights
from mystudio.engines.personal.start import pose_lid_map
from mystudio.engines.personal.state import AXES, state_of
from mystudio.motion.retarget import Motion, RetargetSettings, normalise, relative_motion, retarget
from mystudio.storage.journal import DiskCheckpoints
from mystudio.types import Avatar, Outcome, Take
from selfscan.face import patches
from selfscan.face.facemesh import crop_landmarks, load_facemesh

SHAPE = RetargetSettings(motion="absolute", smooth=0.0)
FAST = SolveSettings(steps=4, window=8, prior=0.001, pose_lid_weight=0.0)
SAME = 5e-3  # anchor deviations: codes of differently cut clips


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Frames without a face


def test_missing_codes_are_linear_between_neighbours_and_constant_at_the_ends():
    codes = torch.arange(8.0)[:, None, None].repeat(1, 2, 3)
    codes[[0, 3, 4, 7]] = 99.0
    valid = torch.tensor([False, True, True, False, False, True, True, False])
    expected = torch.tensor([1.0, 1, 2, 3, 4, 5, 6, 6])
    assert torch.allclose(fill_gaps(codes, valid), expected[:, None, None].expand(8, 2, 3))


def test_missing_codes_are_not_interpolated_across_a_cut():
    codes = torch.arange(9.0)[:, None, None].repeat(1, 2, 3)
    valid = torch.tensor([True, True, False, False, True, False, False, False, True])
    shots = (slice(0, 3), slice(3, 5), slice(5, 7), slice(7, 9))  # the third one never shows a face
    expected = torch.tensor([0.0, 1, 1, 4, 4, 4, 4, 8, 8])
    assert torch.allclose(fill_gaps(codes, valid, shots), expected[:, None, None].expand(9, 2, 3))


def test_codes_that_are_not_numbers_are_held_and_marked():
    codes = torch.arange(4.0)[:, None, None].repeat(1, 2, 3)
    codes[1, 0, 1] = torch.nan
    outcome = np.full(4, Outcome.CONVERGED)
    filled, marks = fill_unsolved(codes, outcome, torch.tensor([True, True, True, False]))
    assert marks.tolist() == [Outcome.CONVERGED, Outcome.HELD, Outcome.CONVERGED, Outcome.NO_FACE]
    assert torch.equal(filled[:, 0, 0], torch.tensor([0.0, 1.0, 2.0, 2.0]))


# Codes that are known: the clip is the avatar itself


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return actor_avatar.avatar()


@pytest.fixture(scope="module")
def known(avatar) -> torch.Tensor:
    """Return codes [12, K] that move from anchor to anchor inside the hull."""
    codes = state_of(avatar).space.codes[[3, 7, 11, 15]]
    share = torch.linspace(0, 2.999, 12)
    low = share.long()
    return codes[low] + (share - low)[:, None] * (codes[low + 1] - codes[low])


@pytest.fixture(scope="module")
def seen(avatar, known) -> Measured:
    with torch.no_grad():
        images = avatar.generator(avatar.generator.broadcast(state_of(avatar).space.decode(known)))
        return measure(load_facemesh(), images, SHAPE)


@pytest.fixture(scope="module")
def motion(avatar, seen) -> Motion:
    """Return the clip drawn from the known codes; the first, fifth and sixth frames have no face."""
    valid = torch.ones(len(seen.landmarks), dtype=torch.bool)
    valid[[0, 4, 5]] = False
    mouth_mask, iris_mask = patches.masks(seen.landmarks)
    change = relative_motion(seen.landmarks, avatar.neutral)
    change[~valid] += draw(3, 66, 3)  # nonsense
    return Motion(seen.keypoints, torch.ones(66), change, seen.mouth, mouth_mask, seen.irises, iris_mask, valid,
                  torch.arange(12, dtype=torch.float64) / 25)  # fmt: skip


@pytest.fixture(scope="module")
def take(avatar, motion) -> Take:
    return solve(avatar, motion, SHAPE, FAST)


def test_the_pose_lid_term_keeps_head_and_lids_at_the_start_codes(avatar, motion):
    problem = problem_of(avatar, motion, FAST)
    takes = [solve(avatar, motion, SHAPE, replace(FAST, pose_lid_weight=weight)) for weight in (0.0, 1e4)]
    away = [(take.codes[AXES][:, 0] - problem.start)[motion.valid] for take in takes]
    turned = [float((each @ problem.pose_lid_map).norm()) for each in away]
    assert turned[1] < 0.1 * turned[0] and away[1].norm() > 0.2 * away[0].norm()


def problem_of(avatar, motion, settings) -> Problem:
    space, regressor = state_of(avatar).space, Regressor.load(avatar.state.regressor)
    start = fill_gaps(regressor.code(motion.change), motion.valid)
    linked = torch.ones(len(motion))
    return Problem(
        avatar.generator,
        load_facemesh(),
        space,
        regressor,
        motion,
        SHAPE,
        settings,
        start,
        linked,
        pose_lid_map(space, avatar.state.anchor_keypoints),
        avatar.generator,
    )


@torch.no_grad()
def objective(avatar, motion, codes, settings) -> torch.Tensor:
    """The data terms' weighted sum at codes [T, L, K]."""
    found = measure(load_facemesh(), avatar.generator(state_of(avatar).space.decode(codes)), SHAPE)
    terms = data_terms(found, motion, torch.arange(len(motion)))
    return weighted_sum(terms, settings.weights)


def on_all_layers(avatar, codes):
    return codes[:, None].expand(-1, avatar.generator.num_ws, -1)


def test_gauss_newton_beats_the_regressors_start_in_every_frame(avatar, motion, take):
    start = on_all_layers(avatar, problem_of(avatar, motion, FAST).start)
    first = objective(avatar, motion, start, FAST)[motion.valid]
    last = objective(avatar, motion, take.codes[AXES], FAST)[motion.valid]
    assert last.sum() < 0.6 * first.sum()
    total = torch.as_tensor(take.losses["total"])[motion.valid]
    assert (last <= total + 1e-4).all()  # the recorded total also counts the priors
    assert (total <= first + FAST.hull + 1e-4).all()


def test_gauss_newton_comes_nearer_to_the_known_keypoints_and_codes(avatar, motion, known, seen, take):
    start = problem_of(avatar, motion, FAST).start
    valid = motion.valid

    @torch.no_grad()
    def away(codes):
        images = avatar.generator(state_of(avatar).space.decode(codes))
        found = normalise(crop_landmarks(load_facemesh(), images)[0], SHAPE.part_offsets, SHAPE.depth)
        return (found - seen.keypoints)[valid].square().sum(-1).mean().sqrt()

    assert away(take.codes[AXES]) < 0.8 * away(on_all_layers(avatar, start))
    assert away(take.codes[AXES]) < 0.004  # of the crop


def test_frames_without_a_face_keep_their_slot(motion, take):
    assert np.flatnonzero(take.outcome == Outcome.NO_FACE).tolist() == [0, 4, 5]
    assert set(take.outcome[motion.valid.numpy()]) <= {Outcome.CONVERGED, Outcome.MAX_STEPS}
    assert torch.equal(take.codes[AXES][0], take.codes[AXES][1])
    third = (take.codes[AXES][6] - take.codes[AXES][3]) / 3
    assert torch.allclose(take.codes[AXES][4], take.codes[AXES][3] + third, atol=1e-5)
    assert torch.allclose(take.codes[AXES][5], take.codes[AXES][3] + 2 * third, atol=1e-5)


@pytest.fixture(scope="module")
def driven(avatar) -> Motion:
    """Another clip of 28 frames, as the stages make it."""
    clip = actor_avatar.performance(actor_avatar.path(28, seed=3), actor_avatar.MISSING)
    return retarget(clip, avatar.neutral, avatar.state.statistics, actor_avatar.SETTINGS.retarget)


@pytest.fixture(scope="module")
def in_one_window(avatar, driven) -> Take:
    return solve(avatar, driven, SHAPE, SolveSettings(window=28, batch=7))


@pytest.mark.parametrize(
    "window, batch", [pytest.param(14, 8, marks=pytest.mark.slow), (9, 4), pytest.param(5, 3, marks=pytest.mark.slow)]
)
def test_where_a_clip_is_cut_does_not_show(avatar, driven, in_one_window, window, batch):
    whole, parts = in_one_window, solve(avatar, driven, SHAPE, SolveSettings(window=window, batch=batch))
    assert (whole.codes[AXES] - parts.codes[AXES]).abs().max() < SAME
    speeds = [take.codes[AXES][:, 0].diff(dim=0) for take in (whole, parts)]
    assert (speeds[0] - speeds[1]).abs().max() < SAME < 0.05 * speeds[0].norm(dim=1).median()
    assert np.array_equal(whole.outcome, parts.outcome)


def test_a_stronger_temporal_term_gives_calmer_codes(avatar, motion):
    def jitter(weight):
        codes = solve(avatar, motion, SHAPE, replace(FAST, temporal=weight, window=12)).codes[AXES][:, 0]
        return float(codes.diff(2, dim=0).square().sum())

    loose, usual, tight = (jitter(w) for w in (0.0, 0.5, 50.0))
    assert usual < 0.5 * loose and tight < 0.5 * usual


# Journal

KILLED = """
import os, pickle, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
from mystudio.engines.personal.solve import solve
from mystudio.storage.journal import DiskCheckpoints
folder = Path(sys.argv[1])
avatar, motion, shape, settings = pickle.loads((folder / "task").read_bytes())
def die(stage, done, total):
    if done > 5:
        os.kill(os.getpid(), signal.SIGKILL)
solve(avatar, motion, shape, settings, die, DiskCheckpoints(folder))
"""


def test_a_killed_run_goes_on_and_gives_the_same_take(avatar, motion, tmp_path):
    settings = replace(FAST, steps=2, window=5, prior=1.0)
    expected = solve(avatar, motion, SHAPE, settings)
    (tmp_path / "task").write_bytes(pickle.dumps((avatar, motion, SHAPE, settings)))
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(torch.get_num_threads())], timeout=500,
                         env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])})  # fmt: skip
    assert run.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.glob("window*")] == ["window0000000.npz"]
    (tmp_path / "window0000005.part").write_bytes(b"half a window")
    said: list[int] = []
    resumed = solve(
        avatar, motion, SHAPE, settings, lambda stage, done, total: said.append(done), DiskCheckpoints(tmp_path)
    )
    assert said[0] == 5 and min(said[1:]) >= 5  # the first window was there
    assert torch.equal(resumed.codes[AXES], expected.codes[AXES])
    assert np.array_equal(resumed.outcome, expected.outcome)
    assert all(np.array_equal(resumed.losses[k], expected.losses[k]) for k in expected.losses)


LIMITED = """
import logging, pickle, re, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
torch.backends.mkldnn.enabled = False  # may crash where it gets no memory for its machine code
from mystudio.engines.personal.solve import solve
from mystudio.engines.personal.state import AXES
logging.basicConfig(level=logging.WARNING, format="%(message)s")
folder = Path(sys.argv[1])
avatar, motion, shape, large, small = pickle.loads((folder / "task").read_bytes())
unlimited = solve(avatar, motion, shape, small).codes[AXES]
most = int(re.search(r"VmPeak:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (most + (int(sys.argv[3]) << 20),) * 2)
limited = solve(avatar, motion, shape, large).codes[AXES]
torch.save((limited, unlimited), folder / "codes")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: the memory of a process is limited")
def test_a_solver_whose_memory_is_limited_goes_on_with_less_and_gives_the_same_codes(avatar, driven, tmp_path):
    sizes = replace(FAST, steps=1, window=28, batch=28), replace(FAST, steps=1, window=7, batch=7)
    (tmp_path / "task").write_bytes(pickle.dumps((avatar, driven, SHAPE, *sizes)))
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path), str(torch.get_num_threads()), "20"],
                          capture_output=True, text=True, timeout=500,
                          env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "out of memory: continuing with 14 frames a window, 14 a pass" in done.stderr
    limited, unlimited = torch.load(tmp_path / "codes", weights_only=True)
    assert (limited - unlimited).abs().max() < SAME


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_window_is_solved_again(avatar, motion, tmp_path, damage):
    settings = replace(FAST, steps=1, window=12)
    expected = solve(avatar, motion, SHAPE, settings, checkpoints=DiskCheckpoints(tmp_path))
    path = tmp_path / "window0000000.npz"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"disk was full"}[damage])
    assert torch.equal(
        solve(avatar, motion, SHAPE, settings, checkpoints=DiskCheckpoints(tmp_path)).codes[AXES], expected.codes[AXES]
    )
    assert path.read_bytes()[:2] == b"PK"


# The paper's solver

ADAM = SolveSettings(method="adam", steps=5, rate=0.05, window=4, batch=2, prior=0.001, pose_lid_weight=0.0)


def some(motion: Motion) -> Motion:
    """Two frames with a face."""
    rows = torch.tensor([2, 3])
    return select_frames(motion, rows)


@pytest.mark.parametrize("space, rate", [("axes", 0.02), ("hull", 0.05), ("softplus", 0.002)])
def test_adam_comes_back_from_a_wrong_start_in_every_space(avatar, motion, space, rate):
    problem = problem_of(avatar, some(motion), replace(ADAM, space=space, rate=rate, steps=1))
    problem = replace(problem, start=problem.start + 0.7 * draw(*problem.start.shape))
    first = adam.solve_window(problem, range(2), None, lambda done: None)
    more = adam.solve_window(replace(problem, settings=replace(problem.settings, steps=12)), range(2), None,
                             lambda done: None)  # fmt: skip
    assert more.losses["total"].sum() < 0.8 * first.losses["total"].sum()
    assert more.losses["keypoint"].sum() < 0.6 * first.losses["keypoint"].sum()
    assert more.codes.shape == (2, avatar.generator.num_ws, problem.space.rank)


def test_adam_in_the_hull_stays_in_the_hull(avatar, motion):
    settings, two = replace(ADAM, space="hull", rate=0.5, steps=4, dilation=1.5), some(motion)
    codes = solve(avatar, two, SHAPE, settings).codes[AXES]
    assert state_of(avatar).space.outside(codes, 1.5).max() < 1e-3


@pytest.mark.parametrize("dilation", [1.0, 3.0])
def test_hull_charts_have_valid_weights(avatar, motion, dilation):
    problem = problem_of(avatar, some(motion), replace(ADAM, dilation=dilation))
    begin = on_all_layers(avatar, problem.start)
    count, beta = len(avatar.state.anchors), (dilation - 1) / len(avatar.state.anchors)
    for chart in (adam.Hull(problem, begin), adam.Softplus(problem, begin)):
        with torch.no_grad():
            for p in chart.parameters:
                p += 0.05 * draw(*p.shape, seed=1)
            alpha, codes = chart.alpha(), chart.codes()
        assert alpha.shape == (2, avatar.generator.num_ws, count)
        assert torch.allclose(alpha.sum(-1), torch.ones(alpha.shape[:2]), atol=1e-5)
        assert torch.allclose(codes, alpha @ problem.space.codes)
        if isinstance(chart, adam.Softplus):
            continue  # its weights are rescaled to sum one, so that beta is no exact bound
        assert alpha.min() >= -beta - 1e-6
        assert problem.space.outside(codes, dilation).max() < 1e-3


def test_the_hull_chart_is_the_dilated_hull(avatar, motion):
    problem = problem_of(avatar, some(motion), replace(ADAM, dilation=2.5))
    chart = adam.Hull(problem, on_all_layers(avatar, problem.start))
    with torch.no_grad():
        chart.shared.copy_(draw(*chart.shared.shape, seed=2))
        expected = hull_weights(chart.shared, 2.5).expand(-1, avatar.generator.num_ws, -1)
        assert torch.allclose(chart.alpha(), expected)


def test_adam_from_the_previous_frame_starts_where_the_last_one_ended(avatar, motion):
    settings = replace(ADAM, start="previous", steps=1, rate=0.0)
    codes = solve(avatar, some(motion), SHAPE, settings).codes[AXES]
    assert torch.equal(codes[0], codes[1])  # step size zero: every frame keeps the first code
    assert torch.allclose(codes[0], on_all_layers(avatar, problem_of(avatar, some(motion), settings).start)[0])
