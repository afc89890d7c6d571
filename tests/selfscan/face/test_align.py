"""The aligned crop: exact similarities, smoothing without bias, and paste as the inverse of crop."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfscan.face import align
from selfscan.face.landmarks import FFHQ_POINTS
from selfscan.io.pixels import to_tensor
from selfscan.types import FaceTrack

SIZE = 128


def face(seed=0, scale=60.0, angle=0.0, centre=(200.0, 150.0)):
    """Landmarks of a made-up face: eyes, mouth and noise elsewhere, moved by a known similarity."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(478, 3))
    for name, (x, y) in {"right_eye": (-1, -1), "left_eye": (1, -1), "mouth": (0, 1.3)}.items():
        index = list(FFHQ_POINTS[name])
        ring = np.linspace(0, 2 * np.pi, len(index), endpoint=False)
        points[index, 0], points[index, 1] = x + 0.2 * np.cos(ring), y + 0.1 * np.sin(ring)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points[:, :2] = scale * points[:, :2] @ turn.T + centre
    return points


def motion(count=80, seed=0):
    rng = np.random.default_rng(seed)
    scale = np.exp(np.cumsum(rng.normal(0, 0.02, count)))
    return align.similarity(scale, np.cumsum(rng.normal(0, 0.05, count)), rng.uniform(0, 300, (count, 2)), SIZE)


def picture(height=300, width=400, seed=0, blur=2.0):
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), blur)
    smooth = (smooth - smooth.mean()) / smooth.std() * 45 + 128
    return smooth.clip(0, 255).astype(np.uint8)


def ffhq_by_the_recipe(points, size):
    """Return the FFHQ crop as FFHQ's recipe defines it: a quad from eyes and mouth."""
    right, left = (points[list(FFHQ_POINTS[k]), :2].mean(0) for k in ("right_eye", "left_eye"))
    mouth = points[list(FFHQ_POINTS["mouth"]), :2].mean(0)
    eye, eye_to_eye = (right + left) / 2, left - right
    eye_to_mouth = mouth - eye
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8) * align.MESH_FACTOR
    y = np.flipud(x) * [-1, 1]
    c = eye + eye_to_mouth * 0.1
    quad = np.stack([c - x - y, c - x + y, c + x + y])
    square = np.array([[0, 0], [0, size], [size, size]], float)
    return cv2.getAffineTransform(quad.astype(np.float32), square.astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_ffhq_transform_is_the_recipe(seed):
    points = face(seed, scale=40 + 9 * seed, angle=0.3 * seed - 0.6)
    got = align.ffhq_transform(points[None], SIZE)[0]
    assert np.allclose(got, ffhq_by_the_recipe(points, SIZE), atol=2e-3)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.2, 5), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500))
def test_crop_follows_the_face(scale, angle, x, y):
    """A similarity of the face does not change the crop."""
    still, move = face(), align.similarity(np.array(scale), np.array(angle), np.array([x, y]), 77)
    moved = align.apply(move, still)
    a, b = align.ffhq_transform(still, SIZE), align.ffhq_transform(moved, SIZE)
    assert np.allclose(align.apply(a, still), align.apply(b, moved), atol=1e-6)


def test_transform_is_a_similarity_and_decompose_is_its_inverse():
    transforms = motion()
    scale, angle, centre = align.decompose(transforms, SIZE)
    assert np.allclose(align.similarity(scale, angle, centre, SIZE), transforms)
    linear = transforms[:, :, :2]
    gram = np.swapaxes(linear, 1, 2) @ linear
    assert np.allclose(gram, scale[:, None, None] ** 2 * np.eye(2)) and (np.linalg.det(linear) > 0).all()
    points = np.random.default_rng(1).normal(size=(len(transforms), 9, 3)) * 100
    back = align.apply(align.invert(transforms), align.apply(transforms, points))
    assert np.allclose(back, points)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 6.0), st.floats(0.0, 0.7))
def test_smoothing_keeps_constants_and_steady_motion_everywhere(seed, sigma, missing):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    valid = rng.uniform(size=count) > missing
    valid[rng.integers(count)] = True
    t = np.arange(count)[:, None]
    start, speed = rng.normal(size=4) * [0.3, 1, 90, 90], rng.normal(size=4) * [0.01, 0.02, 2, 2]
    parameters = start + t * speed
    truth = align.similarity(np.exp(parameters[:, 0]), parameters[:, 1], parameters[:, 2:], SIZE)
    known = np.flatnonzero(valid)
    inside = slice(known[0], known[-1] + 1)
    noisy = truth.copy()
    noisy[~valid] = align.similarity(np.array(9.0), np.array(2.0), np.array([1e4, -1e4]), SIZE)
    got = align.smooth(noisy, SIZE, sigma, valid)
    assert np.allclose(got[inside], truth[inside], rtol=1e-5, atol=1e-3)
    assert np.allclose(got[: known[0]], got[known[0]]) and np.allclose(got[known[-1] :], got[known[-1]])


def test_smoothing_is_a_gaussian_inside_the_clip():
    count, sigma = 101, 2.0
    x = np.zeros(count)
    x[50] = 1.0
    transforms = align.similarity(np.ones(count), np.zeros(count), np.column_stack([x, np.zeros(count)]), SIZE)
    centre = align.decompose(align.smooth(transforms, SIZE, sigma), SIZE)[2][:, 0]
    kernel = np.exp(-0.5 * ((np.arange(count) - 50) / sigma) ** 2)
    assert np.allclose(centre, kernel / kernel.sum(), atol=1e-4)


def test_smoothing_has_no_delay_and_calms_noise():
    count, rng = 400, np.random.default_rng(0)
    t = np.arange(count)
    clean = np.column_stack([30 * np.sin(t / 15), 20 * np.cos(t / 22)])
    make = lambda centre: align.similarity(np.ones(count), 0.2 * np.sin(t / 19), centre, SIZE)  # noqa: E731
    noisy = make(clean + rng.normal(0, 1.5, clean.shape))
    got = align.decompose(align.smooth(noisy, SIZE, 2.0), SIZE)[2]
    assert np.abs(got - clean).std() < 0.5 * 1.5
    lag = [np.mean((got[20 + k : 380 + k] - clean[20:380]) ** 2) for k in range(-3, 4)]
    assert int(np.argmin(lag)) == 3


def test_angles_are_smoothed_across_the_half_turn():
    count = 40
    angle = np.pi + 0.02 * np.arange(-20, 20)
    transforms = align.similarity(np.ones(count), angle, np.full((count, 2), 50.0), SIZE)
    assert np.allclose(align.smooth(transforms, SIZE, 2.0), transforms, atol=1e-9)


def test_sigma_zero_fills_gaps_and_changes_nothing_else():
    transforms, valid = motion(), np.ones(80, bool)
    valid[30:34] = False
    got = align.smooth(transforms, SIZE, 0.0, valid)
    assert np.allclose(got[valid], transforms[valid]) and not np.allclose(got[31], transforms[31])
    with pytest.raises(ValueError):
        align.smooth(transforms, SIZE, 2.0, np.zeros(80, bool))


def test_align_smooths_the_track():
    count, rng = 20, np.random.default_rng(0)
    shaky = np.stack([face(0, 60, 0.0, (200 + s, 150)) for s in rng.normal(0, 2, count)]).astype(np.float32)
    ones = np.ones(count)
    track = FaceTrack(
        shaky, np.tile(np.eye(4, dtype=np.float32), (count, 1, 1)), ones.astype(np.float32), ones > 0,
        np.arange(count) / 25, (400, 300), ones < 0,
    )  # fmt: skip
    got = align.align(track, SIZE)
    raw = align.decompose(align.ffhq_transform(shaky, SIZE), SIZE)[2][:, 0]
    assert got.size == SIZE and align.decompose(got.crop_from_frame, SIZE)[2][:, 0].std() < 0.6 * raw.std()


# --- pixels ---------------------------------------------------------------------------------------------------------


def test_whole_pixel_crops_are_exact():
    frame = picture()
    shift = align.similarity(np.array(1.0), np.array(0.0), np.array([64.0 + 30, 64.0 + 20]), SIZE)
    assert np.array_equal(align.crop(frame, shift, SIZE), frame[20 : 20 + SIZE, 30 : 30 + SIZE])
    quarter = align.similarity(np.array(1.0), np.array(-np.pi / 2), np.array([64.0 + 30, 64.0 + 20]), SIZE)
    assert np.array_equal(align.crop(frame, quarter, SIZE), np.rot90(frame[20 : 20 + SIZE, 30 : 30 + SIZE]))


@pytest.mark.parametrize("scale,tolerance", [(2.0, 1.0), (1.1, 1.5), (0.9, 2.5)])
@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_paste_after_crop_is_the_identity(scale, tolerance, angle):
    frame, size = picture(blur=3.0), 256
    transform = align.similarity(np.array(scale), np.array(angle), np.array([190.3, 160.7]), size)
    inner = np.zeros((size, size), np.float32)
    inner[8:-8, 8:-8] = 1
    back = align.paste(frame, align.crop(frame, transform, size), transform, inner)
    error = np.abs(back.astype(float) - frame)
    assert error.mean() < tolerance and np.percentile(error, 99.9) < 12 * tolerance
    black = align.paste(frame, np.zeros((size, size, 3), np.uint8), transform, inner)
    assert 0.2 < (black == 0).all(-1).mean() * frame[..., 0].size * scale**2 / size**2 < 1.01


def test_paste_touches_nothing_where_the_mask_is_zero():
    frame = picture()
    transform = align.similarity(np.array(1.3), np.array(0.3), np.array([200.0, 150.0]), SIZE)
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert np.array_equal(align.paste(frame, image, transform, np.zeros((SIZE, SIZE))), frame)
    away = align.similarity(np.array(1.3), np.array(0.3), np.array([2000.0, 150.0]), SIZE)
    assert np.array_equal(align.paste(frame, image, away), frame)
    full = align.paste(frame, image, transform)
    back = align.apply(transform, np.argwhere((full != frame).any(-1))[:, ::-1] + 0.5)
    assert back.min() > -2 and back.max() < SIZE + 2


@pytest.mark.parametrize("scale", [0.5, 0.23])
def test_shrinking_does_not_alias(scale):
    """A pattern finer than the crop's pixels must vanish, a coarse one must stay."""
    x = np.arange(600)
    fine = np.broadcast_to((np.sin(np.pi * x * 0.93) * 100 + 128)[None, :, None], (600, 600, 3)).astype(np.uint8)
    coarse = np.broadcast_to((np.sin(x / 25) * 100 + 128)[None, :, None], (600, 600, 3)).astype(np.uint8)
    transform = align.similarity(np.array(scale), np.array(0.0), np.array([300.0, 300.0]), 100)
    assert align.crop(fine, transform, 100).std() < 8
    assert align.crop(coarse, transform, 100).std() > 60


@pytest.mark.parametrize("scale,angle", [(1.7, 0.5), (0.6, -0.8)])
def test_crop_draws_points_where_apply_says(scale, angle):
    frame = np.zeros((300, 400, 3), np.float32)
    points = np.array([[150.0, 120.0], [260.5, 140.5], [200.0, 210.0]])
    y, x = np.mgrid[:300, :400] + 0.5
    for px, py in points:
        frame += 250 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18)[..., None]
    transform = align.similarity(np.array(scale), np.array(angle), np.array([200.0, 150.0]), 300)
    image = align.crop(frame.clip(0, 255).astype(np.uint8), transform, 300).astype(float)[..., 0]
    y, x = np.mgrid[:300, :300] + 0.5
    for px, py in align.apply(transform, points):
        near = image * (np.hypot(x - px, y - py) < 12 * scale)
        assert np.hypot((near * x).sum() / near.sum() - px, (near * y).sum() / near.sum() - py) < 0.1


def test_crop_beyond_the_frame_repeats_its_edge():
    frame = picture()
    left = align.similarity(np.array(1.0), np.array(0.0), np.array([0.0, 150.0]), SIZE)
    image = align.crop(frame, left, SIZE)
    assert np.array_equal(image[:, SIZE // 2 :], frame[150 - SIZE // 2 : 150 + SIZE // 2, : SIZE // 2])
    assert (image[:, : SIZE // 2] == image[:, SIZE // 2 : SIZE // 2 + 1]).all()
    for centre in ((400.0, 300.0), (-500.0, -500.0), (200.0, 900.0)):
        away = align.similarity(np.array(0.5), np.array(0.3), np.array(centre), SIZE)
        assert align.crop(frame, away, SIZE).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("angle", (0.0, 0.4, -2.0))
@pytest.mark.parametrize("centre", ((0.0, 150.0), (390.0, 290.0), (200.0, 20.0), (200.0, 150.0)))
def test_pixels_that_the_camera_saw_are_those_inside_the_frame(angle, centre):
    moved = align.similarity(np.array(0.7), np.array(angle), np.array(centre), SIZE)
    corners = align.frame_corners(moved[None], SIZE, (400, 300))
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    places = align.apply(align.invert(moved), np.stack([x, y], -1).reshape(-1, 2)).reshape(SIZE, SIZE, 2)
    depth = np.minimum(places, [400, 300] - places).min(-1) * 0.7  # crop px from the frame's nearest edge
    inside = align.inside_frame(corners, SIZE, margin=2.0)[0]
    assert inside[depth > 2.01].all() and not inside[depth < 1.99].any()
    small = align.inside_frame(corners, SIZE // 2, margin=1.0)[0]
    assert abs(small.mean() - inside.mean()) < 0.02


def test_rescale_spans_the_same_region():
    transform = align.similarity(np.array(0.8), np.array(0.3), np.array([200.0, 150.0]), SIZE)
    frame = picture(blur=6.0)
    small, large = align.crop(frame, transform, SIZE), align.crop(frame, align.rescale(transform, 2.0), 2 * SIZE)
    shrunk = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - shrunk).mean() < 1.5


def test_aligned_faces_of_ffhq_are_left_where_they_are(shared):
    """The recipe measured with the mesh agrees with the one that made FFHQ: near identity on its own images."""
    import torch

    from selfscan.face.facemesh import crop_landmarks, load_facemesh

    files = sorted((shared / "faces256").glob("*.jpg"))[::30]
    images = np.stack([cv2.imread(str(file))[..., ::-1] for file in files])
    batch = to_tensor(images)
    with torch.no_grad():
        landmarks, presence = crop_landmarks(load_facemesh(), batch)
    transforms = align.ffhq_transform(landmarks[presence > 0.5].numpy() * 256, 256)
    scale, angle, centre = align.decompose(transforms, 256)
    assert abs(np.log(scale).mean()) < 0.006 and np.log(scale).std() < 0.035
    assert abs(np.degrees(angle.mean())) < 0.6
    assert np.abs(centre.mean(0) - 128).max() < 0.003 * 256 and centre.std(0).max() < 0.012 * 256
