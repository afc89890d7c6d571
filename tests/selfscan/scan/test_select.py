from itertools import combinations

import numpy as np
import pytest

from selfscan.perceptual.metric import pairwise
from selfscan.scan.select import k_centre, k_centre_distances, radius


def cloud(seed: int, n: int, dims: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2, 4])
def test_radius_is_at_most_twice_the_optimum(seed, k):
    points = cloud(seed, 11, 2 + seed % 3)
    distances = pairwise(points)
    best = min(radius(distances, np.array(chosen)) for chosen in combinations(range(11), k))
    assert radius(distances, k_centre(points, k)) <= 2 * best + 1e-6


def test_picks_equal_those_from_the_matrix_of_distances():
    points = cloud(1, 200, 50)
    picks = k_centre(points, 40, block=7)
    assert picks.tolist() == k_centre_distances(pairwise(points), 40).tolist()
    assert picks.tolist() == k_centre(points, 40, block=1000).tolist()
    assert len(set(picks.tolist())) == 40


def test_half_precision_and_offsets_do_not_change_the_picks():
    points = (np.random.default_rng(0).integers(-50, 50, size=(60, 40)) / 8).astype(np.float16)
    assert k_centre(points, 20).tolist() == k_centre(points.astype(np.float64) + 3, 20).tolist()


def test_starts_at_the_medoid_or_where_told():
    line = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    assert k_centre(line, 3).tolist() == [3, 4, 0]
    assert k_centre(line, 2, first=0).tolist() == [0, 4]


def test_each_pick_is_the_farthest_of_what_is_left():
    points = cloud(4, 80, 5)
    distances = pairwise(points)
    picks = k_centre(points, 30)
    for i in range(1, 30):
        nearest = distances[picks[:i]].min(0)
        assert nearest[picks[i]] == pytest.approx(nearest.max(), rel=1e-4)


def test_weights_turn_down_poor_images():
    line = np.array([[0.0], [1.0], [2.0], [9.0], [10.0]])
    weight = np.array([1, 1, 1, 1, 0.5])
    assert 3 in k_centre(line, 2, first=0, weight=weight) and 4 not in k_centre(line, 2, first=0, weight=weight)
    weight[4] = 0
    assert sorted(k_centre(line, 5, weight=weight)) == [0, 1, 2, 3]


def test_limit_keeps_some_of_the_marked():
    points = cloud(2, 100)
    marked = np.zeros(100, bool)
    marked[60:] = True
    points[60:] += 20  # without the limit half of the picks would be marked
    free, held = k_centre(points, 30), k_centre(points, 30, limit=(marked, 4))
    assert marked[free].sum() > 8
    assert marked[held].sum() == 4 and len(held) == 30


def test_exact_copies_fill_the_slots_without_repeats():
    points = np.repeat(cloud(3, 3), 4, axis=0)
    picks = k_centre(points, 10)
    assert len(set(picks.tolist())) == 10
    assert radius(pairwise(points), picks[:3]) < 1e-3


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match=r"1\.\.5"):
        k_centre(cloud(0, 5), 6)
    with pytest.raises(ValueError, match="first"):
        k_centre(cloud(0, 5), 2, first=5)
    with pytest.raises(ValueError, match="weight"):
        k_centre(cloud(0, 5), 2, weight=np.ones(4))
