"""Performances and the meaning of factors."""

import importlib.util
import sys

import numpy as np
import pytest

from mystudio.actors import factors
from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS
from mystudio.actors.motion import GAZE_SIDE, SCRIPTS, frame_from_factors, gaze_angles, perform, rotation
from mystudio.errors import StudioError


@pytest.fixture(scope="module")
def original(shared, tmp_path_factory):
    """The renderer that the packaged base was made with."""
    name, path = "original_actors", shared / "actors" / "actors.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def test_the_table_of_factors():
    assert len(factors.NAMES) == len(set(factors.NAMES)) == factors.N_FACTORS == 64
    assert (factors.N_LOOK, factors.N_MOTION, factors.N_EXTRA) == (32, 26, 6)
    code = np.arange(64.0)
    assert np.array_equal(factors.join(factors.look_of(code), code[factors.MOTION]), code)
    assert factors.look_of(code)[-1] == 63 and factors.look_of(np.zeros((5, 64))).shape == (5, 38)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("seed", [0, 9])
def test_performances_equal_the_original(original, script, seed):
    expressions, poses = original.perform(script, 6.5, 25, seed)
    score = perform(script, 6.5, 25, seed)
    assert np.array_equal(score.expressions, expressions) and np.array_equal(score.poses, poses)


def test_frames_equal_the_original(original):
    assert tuple(original.SHAPES) == EXPRESSIONS
    for m in np.random.default_rng(0).normal(size=(100, 26)) * 1.5:
        (e, pose), (e0, pose0) = frame_from_factors(m), original.frame_from_factors(m)
        assert np.array_equal(e, e0) and np.array_equal(pose, pose0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_performances_are_repeatable_and_in_range(script):
    score, again, other = (perform(script, 10, 30, seed) for seed in (3, 3, 4))
    assert len(score) == 300 and np.array_equal(score.expressions, again.expressions)
    assert not np.array_equal(score.expressions, other.expressions)
    assert score.expressions.min() >= 0 and score.expressions.max() <= 1
    assert score.expressions[:, EXPRESSION_ID["eyeBlink_L"]].max() > 0.9
    assert np.allclose(np.diff(score.times), 1 / 30)
    assert np.abs(np.diff(score.poses[:, 0])).max() < 0.1  # radians per frame: no head jumps


def test_a_self_scan_looks_to_all_sides():
    yaw, pitch = np.degrees(perform("selfscan", 20).poses[:, :2]).T
    assert yaw.max() > 30 and yaw.min() < -30 and pitch.max() > 10 and pitch.min() < -10


def test_what_cannot_be_performed_is_refused():
    for words in (("dance", 3), ("talk", 0.001)):
        with pytest.raises(StudioError, match="selfscan"):
            perform(*words)
    with pytest.raises(ValueError, match="26"):
        frame_from_factors(np.zeros(25))


def test_gaze_of_weights():
    e = np.zeros(len(EXPRESSIONS))
    e[[EXPRESSION_ID["eyeLookOut_L"], EXPRESSION_ID["eyeLookIn_R"]]] = 0.5
    (yaw_l, pitch_l), (yaw_r, pitch_r) = gaze_angles(e)
    assert yaw_l == yaw_r == pytest.approx(0.5 * GAZE_SIDE) and pitch_l == pitch_r == 0
    forward = rotation(yaw_l, 0, 0) @ [0, 0, 1]
    assert forward[0] > 0.2 and forward[1] == 0  # both eyes to the person's left
    e[:] = 0
    e[EXPRESSION_ID["eyeLookDown_L"]] = 1
    assert (rotation(*gaze_angles(e)[0], 0) @ [0, 0, 1])[1] < -0.3
    assert gaze_angles(np.zeros((4, 53))).shape == (4, 2, 2)


def test_rotation_is_one():
    r = rotation(0.4, -0.3, 0.2).astype(np.float64)
    assert np.allclose(r @ r.T, np.eye(3), atol=1e-6) and np.linalg.det(r) == pytest.approx(1, abs=1e-6)
