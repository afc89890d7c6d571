"""Head pose: exact on the canonical head, signed like the synthetic actors, and near their true angles."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfscan.face import headpose
from selfscan.io.pixels import to_tensor

ANGLES = st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.floats(-3.0, 3.0))


@settings(max_examples=60, deadline=None)
@given(ANGLES)
def test_euler_is_the_inverse_of_rotation(angles):
    matrix = headpose.rotation(np.array(angles))
    assert np.allclose(matrix @ matrix.T, np.eye(3)) and np.linalg.det(matrix) > 0
    assert np.allclose(headpose.euler(matrix), angles, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(ANGLES, st.floats(5, 500), st.tuples(st.floats(-900, 900), st.floats(-900, 900)))
def test_pose_of_the_moved_canonical_head_is_the_movement(angles, scale, shift):
    turn, shift = headpose.rotation(np.array(angles)), np.array([*shift, 3.0])
    pose = headpose.head_pose(scale * headpose.canonical_head() @ turn.T + shift)
    assert np.allclose(pose[:3, :3], scale * turn, atol=1e-4 * scale)
    assert np.allclose(pose[:3, 3], shift, atol=0.01) and np.allclose(pose[3], [0, 0, 0, 1])
    assert np.allclose(headpose.euler(pose), angles, atol=1e-4)


@pytest.mark.parametrize("name,angles", [("yaw", (0.3, 0, 0)), ("pitch", (0, 0.3, 0)), ("roll", (0, 0, 0.3))])
def test_signs_are_what_the_module_says(name, angles):
    turn = headpose.rotation(np.array(angles))
    nose, crown = turn @ [0, 0, -1], turn @ [0, -1, 0]
    assert {"yaw": nose[0] > 0.2, "pitch": nose[1] > 0.2, "roll": crown[0] < -0.2}[name]


def test_procrustes_is_the_least_squares_similarity():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(20, 3))
    target = 3 * source @ headpose.rotation(np.array([0.4, -0.2, 1.0])).T + 5 + rng.normal(size=(4, 20, 3))
    scale, turn, shift = headpose.procrustes(source, target)

    def error(s, r, t):
        return ((s[:, None, None] * source @ np.swapaxes(r, 1, 2) + t[:, None] - target) ** 2).sum((1, 2))

    best = error(scale, turn, shift)
    for _ in range(50):
        small = headpose.rotation(rng.normal(0, 0.02, (4, 3)))
        other = error(scale * rng.normal(1, 0.01, 4), small @ turn, shift + rng.normal(0, 0.02, (4, 3)))
        assert (other >= best - 1e-9).all()
    mirrored = headpose.procrustes(source, source * [-1, 1, 1])[1]
    assert np.linalg.det(mirrored) == pytest.approx(1), "a reflection is no rotation"


def test_canonical_head_is_symmetric_and_looks_straight():
    head = headpose.canonical_head()
    with np.load(headpose.CANONICAL) as file:
        mirror = file["mirror"].astype(int)
    assert head.shape == (478, 3) and np.array_equal(mirror[mirror], np.arange(478))
    assert np.allclose(head[mirror] * [-1, 1, 1], head, atol=1e-6)
    assert np.allclose(headpose.euler(headpose.head_pose(head)), 0, atol=1e-6)
    assert np.linalg.norm(head[33] - head[263]) == pytest.approx(1, abs=1e-6)
    assert head[1, 2] < head[[234, 454], 2].min(), "the nose is nearer to the camera than the ears"
    assert head[10, 1] < head[152, 1], "y points down: the forehead is above the chin"


@pytest.fixture(scope="module")
def posed_actors(shared, tmp_path_factory):
    """Landmarks of rendered actors with true yaw and pitch in rad (the FFHQ crop removes roll)."""
    pytest.importorskip("numba")
    import torch

    from selfscan.face.facemesh import crop_landmarks, load_facemesh

    sys.path.insert(0, str(shared / "actors"))
    try:
        import actors
    finally:
        sys.path.remove(str(shared / "actors"))
    rng, images, truth = np.random.default_rng(1), [], []
    for _ in range(4):
        actor = actors.Actor(rng.normal(size=actors.Actor.N_FACTORS))
        for _ in range(8):
            expression, pose = actors.frame_from_factors(rng.normal(size=actors.N_MOTION))
            pose[:3] = np.radians(rng.uniform([-40, -22, -15], [40, 22, 15]))
            images.append(actors.render(actor, expression, pose, 192, "ffhq", supersample=1)[0])
            truth.append(pose[:2])
            assert np.allclose(actors.rotation(*pose[:3]), np.diag([1, -1, -1]) @ headpose.rotation(pose[:3]) @ np.diag(
                [1, -1, -1]), atol=1e-5)  # fmt: skip
    batch = to_tensor(np.stack(images))
    with torch.no_grad():
        return crop_landmarks(load_facemesh(), batch)[0].numpy(), np.array(truth)


def test_pose_of_synthetic_actors_is_near_the_truth(posed_actors):
    landmarks, truth = posed_actors
    error = np.degrees(headpose.euler(headpose.head_pose(landmarks))[:, :2] - truth)
    assert np.abs(error[:, 0]).mean() < 3.5 and np.abs(error[:, 1]).mean() < 4.0
    assert np.abs(error - error.mean(0)).mean(0).max() < 3.0
    for k in range(2):
        measured = np.degrees(headpose.euler(headpose.head_pose(landmarks))[:, k])
        assert np.polyfit(np.degrees(truth[:, k]), measured, 1)[0] == pytest.approx(1, abs=0.12)
