"""Metrics against closed forms, independent implementations and known changes."""

import math

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from mystudio.evaluation import metrics
from mystudio.evaluation.face_nets import Blendshapes, IdentityNet
from selfscan.face.headpose import procrustes
from selfscan.io.pixels import to_tensor


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def face(rng):
    """Landmarks [12, 478, 3] of a moving random head of inter-ocular distance 0.36."""
    base = rng.uniform(0.2, 0.8, (478, 3))
    base[33], base[263] = (0.32, 0.4, 0.0), (0.68, 0.4, 0.0)
    t = np.linspace(0, 1, 12)[:, None, None]
    return base + 0.05 * np.sin(6 * t + np.arange(3))


def picture(rng, size=48):
    return torch.from_numpy(gaussian_filter(rng.uniform(-1, 1, (2, 3, size, size)), (0, 0, 1.5, 1.5))) * 3


def test_psnr_of_a_known_error():
    x = torch.zeros(2, 3, 8, 8)
    assert metrics.psnr(x, x + 0.2)[0].item() == pytest.approx(20.0, abs=1e-4)  # 10 log10(4 / 0.04)
    assert metrics.psnr(x, x)[1].item() == pytest.approx(100)


def test_ssim_equals_an_independent_implementation(rng):
    x = picture(rng)
    y = x + 0.2 * torch.from_numpy(rng.standard_normal(x.shape))

    def blur(a):  # scipy: sigma 1.5 cut at 5 px is the same 11 x 11 window
        return gaussian_filter(a, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    values = []
    for a, b in zip(x.reshape(-1, 48, 48).numpy(), y.reshape(-1, 48, 48).numpy()):
        ma, mb = blur(a), blur(b)
        va, vb, vab = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
        c1, c2 = 0.02**2, 0.06**2
        values.append(np.mean((2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))
    expected = np.reshape(values, (2, 3)).mean(1)
    np.testing.assert_allclose(metrics.ssim(x, y).numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(metrics.ssim(x, x).numpy(), 1, atol=1e-12)


def test_keypoint_distance_is_in_percent_of_the_eye_distance(face):
    moved = face + np.array([0.003, 0.004, 5.0])  # depth does not count
    np.testing.assert_allclose(metrics.keypoint_distance(moved, face), 100 * 0.005 / 0.36, rtol=1e-6)
    only = moved.copy()
    only[:, 100] += 1
    np.testing.assert_allclose(metrics.keypoint_distance(only, face, [1, 2]), 100 * 0.005 / 0.36, rtol=1e-6)


def test_eye_distance_keeps_when_the_head_turns(face):
    c, s = math.cos(0.7), math.sin(0.7)
    turned = face @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    np.testing.assert_allclose(metrics.eye_distance(turned), metrics.eye_distance(face), rtol=1e-9)


def test_part_distance_ignores_who_and_sees_motion(face, rng):
    parts = {"a": range(10, 60), "b": range(100, 140)}
    valid = np.ones(len(face), bool)
    driver = face.copy()
    wave = 0.01 * np.sin(np.arange(len(face)))[:, None]
    driver[:, 10:60, 0] += wave * rng.standard_normal(50)  # motion inside a part
    other = driver.copy()
    other[:, 10:60] = 1.3 * other[:, 10:60] + 0.1  # other proportions, other place
    assert metrics.part_distance(other, driver, parts, valid).max() < 1e-6
    still = driver.copy()
    still[:, 10:60] = driver[:1, 10:60]
    assert metrics.part_distance(still, driver, parts, valid).mean() > 0.3


def test_pose_error_is_in_degrees_and_wraps():
    a = np.radians([[10.0, 0, 0], [179, 0, 0]])
    b = np.radians([[4.0, 3, 0], [-179, 0, 0]])
    np.testing.assert_allclose(metrics.pose_error(a, b), [3.0, 2 / 3], rtol=1e-9)


def test_dynamics_of_half_the_motion_is_one_half(rng):
    x = rng.standard_normal((50, 2))
    valid = np.ones(50, bool)
    assert metrics.dynamics(0.5 * x + 3, x, valid) == pytest.approx(0.5)
    assert math.isnan(metrics.dynamics(x, np.zeros_like(x), valid))


def test_jitter_counts_shaking_only(face, rng):
    valid = np.ones(len(face), bool)
    ramp = np.arange(len(face))[:, None, None] * 0.02
    assert metrics.jitter(face + ramp, face, valid) == pytest.approx(1, abs=1e-6)  # steady drift is not jitter
    noise = 0.002 * rng.standard_normal(face.shape)
    noise[:, [33, 263]] = 0  # the unit, the eye distance, stays
    once, twice = metrics.shake(face[:1] + noise, valid), metrics.shake(face[:1] + 2 * noise, valid)
    np.testing.assert_allclose(twice[1:-1] / once[1:-1], 4, rtol=1e-6)
    assert metrics.jitter(face[:1] + 2 * noise, face[:1] + noise, valid) == pytest.approx(2, rel=1e-6)
    still = face[:1] + 1e-9 * noise  # a picture as the driver: only rounding is left
    assert math.isnan(metrics.jitter(face[:1] + noise, still, valid))


def test_shake_skips_frames_next_to_a_hole(face):
    valid = np.ones(len(face), bool)
    valid[5] = False
    jump = face.copy()
    jump[5] += 1
    assert np.nanmax(metrics.shake(jump, valid)) < np.nanmax(metrics.shake(jump, np.ones(len(face), bool))) / 100
    assert math.isnan(metrics.jitter(face, face, np.zeros(len(face), bool)))


def test_sharpness_falls_with_blur_and_compares_sizes(face, rng):
    small = (255 * rng.uniform(0, 1, (64, 64, 3))).astype(np.uint8)
    image = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
    blurred = cv2.GaussianBlur(image, (0, 0), 3)
    large = cv2.resize(image, (512, 512), interpolation=cv2.INTER_CUBIC)
    lm = face[:1]
    sharp, soft, twice = (metrics.sharpness(i[None], lm)[0] for i in (image, blurred, large))
    assert soft < 0.5 * sharp
    assert twice == pytest.approx(sharp, rel=0.15)


def test_flicker_counts_detail_that_comes_and_goes(face, rng):
    small = (255 * rng.uniform(0, 1, (64, 64, 3))).astype(np.uint8)
    image = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(image, (0, 0), 1.5)
    marks, valid = np.repeat(face[:1], 12, 0), np.ones(12, bool)

    def clip(swing):  # detail rises and falls from frame to frame
        return np.stack([cv2.addWeighted(image, 0.5 + s, soft, 0.5 - s, 0) for s in swing * (-1.0) ** np.arange(12)])

    details = [metrics.detail(clip(swing), marks) for swing in (0.0, 0.1, 0.2)]
    assert metrics.flicker(details[2], details[1], valid) == pytest.approx(2, rel=0.1)
    assert math.isnan(metrics.flicker(details[1], details[0], valid))  # a picture as the driver
    shift = np.float32([[1, 0, 3], [0, 1, 2]])  # detail that moves with the face is no flicker
    moved = np.stack([image if k % 2 else cv2.warpAffine(image, shift, (256, 256)) for k in range(12)])
    followed = np.stack([face[0] if k % 2 else face[0] + np.array([3, 2, 0]) / 256 for k in range(12)])
    assert metrics.flicker(metrics.detail(moved, followed), details[1], valid) < 0.2
    short = np.zeros(12, bool)
    assert math.isnan(metrics.flicker(details[1], details[2], short))


def test_faces_are_aligned_in_the_plane_and_never_mirrored(rng):
    points = rng.standard_normal((5, 2))
    turned = 2 * points @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + (3, -1)
    scale, rotation, shift = procrustes(points, turned)
    np.testing.assert_allclose(scale * points @ rotation.T + shift, turned, atol=1e-9)
    assert np.linalg.det(procrustes(points, points * (-1, 1))[1]) == pytest.approx(1)


def test_own_spread_is_the_mean_of_all_pairs(rng):
    v = rng.standard_normal((6, 4))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    pairs = [v[i] @ v[j] for i in range(6) for j in range(6) if i != j]
    assert metrics.own_spread(v) == pytest.approx(np.mean(pairs))
    assert math.isnan(metrics.own_spread(v[:1]))
    np.testing.assert_allclose(metrics.csim(v[:2], v), (v[:2] @ v.T).mean(1))


def test_likeness_is_the_mean_of_one_minus_the_distance(rng):
    faces, person = rng.normal(size=(3, 128)), rng.normal(size=(4, 128))
    expected = [np.mean([1 - np.linalg.norm(face - own) for own in person]) for face in faces]
    np.testing.assert_allclose(metrics.likeness(faces, person), expected)
    pairs = [1 - np.linalg.norm(person[i] - person[j]) for i in range(4) for j in range(i)]
    assert metrics.own_likeness(person) == pytest.approx(np.mean(pairs)) and math.isnan(
        metrics.own_likeness(person[:1])
    )


def test_blendshape_error_is_nan_without_a_face():
    a = np.zeros((2, 52), np.float32)
    b = a + 0.1
    b[1] = np.nan
    error = metrics.blendshape_error(a, b)
    assert error[0] == pytest.approx(0.1) and math.isnan(error[1])


def test_identity_network_tells_people_apart(shared):
    """On real faces the cosine is near 0 for different people, and high for a darker, mirrored or smaller copy."""
    from selfscan.face.facemesh import crop_landmarks, load_facemesh

    net = IdentityNet(shared / "weights" / "mobilefacenet_arcface_128d.onnx")
    paths = sorted((shared / "faces256").glob("*.jpg"))[:8]
    images = np.stack([cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths])
    others = np.stack([cv2.resize(image[:, ::-1], (192, 192), interpolation=cv2.INTER_AREA) for image in images])
    others = (others * 0.75).astype(np.uint8)

    def vectors(batch):
        x = to_tensor(batch)
        with torch.no_grad():
            marks = crop_landmarks(load_facemesh(), x)[0].numpy()
        return net.embed(batch, marks)

    a, b = vectors(images), vectors(others)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, rtol=1e-5)
    gram = a @ b.T
    assert np.diag(gram).min() > 0.7
    assert np.abs(metrics.own_spread(a)) < 0.15
    assert metrics.csim_share(b[:1], np.concatenate([a[:1], b[:1]])) > 1  # itself is among them


def test_blendshapes_are_measured_where_there_is_a_face(shared):
    """The blendshape weights change with the picture, and are NaN for a picture without a face."""
    path = shared / "weights" / "face_landmarker.task"
    image = cv2.cvtColor(cv2.imread(str(min((shared / "faces256").glob("*.jpg")))), cv2.COLOR_BGR2RGB)
    shapes = Blendshapes(path)
    weights = shapes.weights(np.stack([image, image[:, ::-1], np.zeros_like(image)]))
    shapes.close()
    assert weights.shape == (3, 52) and np.isfinite(weights[:2]).all() and np.isnan(weights[2]).all()
    assert metrics.blendshape_error(weights[:1], weights[1:2])[0] > 0.001
