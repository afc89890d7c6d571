"""Scans that lack a motion lack it, and nothing else; the driver's exercise does each motion alone."""

import numpy as np
import pytest

from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS
from mystudio.actors.exercise import LACKS, MOTIONS, STILL_YAW, SWAY, TURN, exercise, full_scan
from mystudio.errors import StudioError

FULL = full_scan(8, fps=10, seed=3)
LIDS = [EXPRESSION_ID["eyeBlink_L"], EXPRESSION_ID["eyeBlink_R"]]


def weights(score, *names):
    return score.expressions[:, [EXPRESSION_ID[name] for name in names]]


def both(*names):
    return [f"{name}_{side}" for name in names for side in "LR"]


#: lack -> the shapes that its scan holds at rest
HELD = {
    "smile": both("mouthSmile"),
    "mouth": ["jawOpen", "mouthFunnel", *both("mouthLowerDown", "mouthUpperUp")],
    "lids": both("eyeBlink", "eyeSquint"),
    "brows": both("browInnerUp", "browOuterUp", "browDown"),
    "gaze": both("eyeLookIn", "eyeLookOut"),
}
#: lack -> all that its scan changes; "yaw" is that of the head
CHANGED = HELD | {
    "wink": both("eyeBlink"),
    "head": ["yaw"],
    "tied": both("mouthSmile", "browInnerUp", "browOuterUp"),
}


@pytest.mark.parametrize("name", MOTIONS)
def test_the_exercise_does_each_motion_alone(name):
    done, (shapes, yaw) = exercise(fps=10, seed=9), MOTIONS[name]
    height, span = done.heights()[name], done.spans[name]
    assert len(height) >= 3 and span.start <= height[0] <= height[-1] < span.stop
    for shape, weight in shapes.items():
        assert weights(done.score, shape)[height].min() > 0.89 * weight
    others = [shape for shape in EXPRESSIONS if shape not in shapes]
    assert not weights(done.score, *others)[span].any()
    assert np.abs(done.score.poses[height, 0] - yaw).max() <= SWAY[0] + 0.11 * TURN
    assert not done.score.expressions[done.rest].any() and np.abs(done.score.poses[done.rest]).max() <= SWAY.max()


def test_another_seed_sways_otherwise_and_moves_alike():
    one, other = (exercise(fps=10, seed=seed).score for seed in (1, 2))
    assert np.array_equal(one.expressions, other.expressions) and not np.array_equal(one.poses, other.poses)


def test_the_full_scan_shows_all_that_the_driver_does():
    driver = exercise(fps=10, seed=9).score
    assert (FULL.expressions.max(0) >= driver.expressions.max(0) - 1e-6).all()
    assert FULL.poses[:, 0].max() > TURN - SWAY[0] and FULL.poses[:, 0].min() < SWAY[0] - TURN
    assert np.ptp(FULL.expressions[:, LIDS], 1).max() > 0.9  # winks
    assert len(FULL) == len(FULL.times) == 80 + len(driver)


@pytest.mark.parametrize("name", LACKS)
def test_a_scan_changes_what_it_lacks_alone(name):
    lacking = LACKS[name].change(FULL)
    same = [shape for shape in EXPRESSIONS if shape not in CHANGED[name]]
    assert np.array_equal(weights(lacking, *same), weights(FULL, *same))
    assert np.array_equal(lacking.poses[:, 1:], FULL.poses[:, 1:])
    assert np.array_equal(lacking.poses, FULL.poses) == (name != "head")
    assert np.array_equal(lacking.expressions, FULL.expressions) == (name == "head")
    assert set(LACKS[name].needs) <= set(MOTIONS)


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_never_moves(name):
    moving, held = weights(FULL, *HELD[name]), weights(LACKS[name].change(FULL), *HELD[name])
    assert (moving.max(0) > 0.1).all() and not held.any()


def test_a_scan_without_winks_still_closes_both_eyes():
    lids = LACKS["wink"].change(FULL).expressions[:, LIDS]
    assert np.array_equal(lids[:, 0], lids[:, 1]) and lids.max() > 0.99
    assert np.array_equal(lids.max(1), FULL.expressions[:, LIDS].max(1))


def test_a_scan_without_turned_heads_faces_the_camera():
    yaw = LACKS["head"].change(FULL).poses[:, 0]
    inside = np.abs(FULL.poses[:, 0]) <= STILL_YAW
    assert np.abs(yaw).max() == pytest.approx(STILL_YAW) and np.array_equal(yaw[inside], FULL.poses[inside, 0])


def test_tied_motions_always_come_together():
    tied = LACKS["tied"].change(FULL)
    smile, brow = weights(tied, "mouthSmile_L")[:, 0], weights(tied, "browOuterUp_R")[:, 0]
    assert np.allclose(smile, brow, atol=1e-6) and smile.max() > 0.89 and smile.min() == 0
    assert (smile >= weights(FULL, "mouthSmile_L")[:, 0] - 1e-6).all()  # nothing that was shown is lost


def test_a_motion_of_too_few_frames_is_refused():
    with pytest.raises(StudioError, match="six frames"):
        exercise(0.5, fps=10)
