"""Measures of one side: zero on a symmetric face, signed by the person's own sides, and apart from each other."""

import numpy as np
import pytest

from selfscan.face.headpose import canonical_head
from selfscan.face.landmarks import EYE_CORNERS, LID_PAIRS, MOUTH_CORNERS, SIDED_BROWS
from selfscan.face.measures import SIDE_MEASURES, measures, side_measures


@pytest.fixture
def head():
    return canonical_head().astype(np.float64)


def changed(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    found = side_measures(np.stack([before, after]))
    assert tuple(found) == SIDE_MEASURES
    return {name: float(values[1] - values[0]) for name, values in found.items()}


@pytest.mark.parametrize("side, sign", [(0, -1), (1, 1)])
def test_an_eye_that_closes_is_a_wink_to_its_side(head, side, sign):
    after = head.copy()
    for upper, lower in LID_PAIRS[side]:
        after[upper] = after[lower]
    one = changed(head, after)
    gap = measures(head[None])["eyes_open"][0]
    assert sign * one["wink"] == pytest.approx(gap, rel=0.1)
    assert max(abs(one[name]) for name in SIDE_MEASURES[1:]) < 1e-9
    assert measures(after[None])["eyes_open"][0] == pytest.approx(gap / 2, rel=0.1)


@pytest.mark.parametrize("side, sign", [(0, -1), (1, 1)])
def test_one_brow_and_one_corner_of_the_mouth(head, side, sign):
    apart = np.linalg.norm(np.subtract(*(head[list(corners)].mean(0) for corners in EYE_CORNERS)))
    raised, smiling, drawn = head.copy(), head.copy(), head.copy()
    up = np.array([0, -0.1 * apart, 0])  # y points down
    raised[list(SIDED_BROWS[side])] += up
    smiling[MOUTH_CORNERS[side]] += up
    drawn[list(MOUTH_CORNERS)] += np.array([sign * 0.1 * apart, 0, 0])  # the person's left is the picture's right
    for after, name in ((raised, "brow_side"), (smiling, "smile_side"), (drawn, "mouth_side")):
        found = changed(head, after)
        assert sign * found[name] == pytest.approx(0.1, rel=0.05)
        assert max(abs(value) for other, value in found.items() if other != name) < 0.005


def test_a_level_face_has_no_side(head):
    assert all(abs(values[0]) < 0.02 for values in side_measures(head[None]).values())
