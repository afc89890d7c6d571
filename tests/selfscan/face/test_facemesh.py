import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from drawn_face import draw_face, percent_of_eye_distance, to_unit

from selfscan.errors import ModelMissing
from selfscan.face.facemesh import CROP_ROI, INPUT_SIZE, MODEL, crop_landmarks, crop_region, load_facemesh, model_path
from selfscan.face.facemesh_blocks import _FrozenPReLU


@pytest.mark.parametrize("size", [128, 200, 256, 512, 1024])
def test_crop_landmarks_do_not_depend_on_the_size_of_the_crop(size):
    net = load_facemesh()
    with torch.no_grad():
        want, _ = crop_landmarks(net, to_unit([draw_face(384)]) * 2 - 1)
        got, presence = crop_landmarks(net, to_unit([draw_face(size)]) * 2 - 1)
    assert presence > 0.9
    assert percent_of_eye_distance(got.numpy(), want.numpy()).max() < 2.0
    assert (got[..., 2] - want[..., 2]).abs().max() < 0.01


def test_crop_region_is_the_stated_square_and_repeats_the_last_row():
    size = 256
    ramp = torch.linspace(-1, 1, size)
    images = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])[None]
    region, (left, top, side) = crop_region(images)
    assert (left, top, side) == CROP_ROI
    centres = (torch.arange(INPUT_SIZE) + 0.5) / INPUT_SIZE * side
    to_value = (size * torch.stack([centres + left, centres + top]) - 0.5) / (size - 1)
    inner = slice(2, -2)
    # a twentieth of a pixel: the antialiasing filter's weights are discrete
    torch.testing.assert_close(region[0, 0, 50, inner], to_value[0, inner], atol=2e-4, rtol=0)
    torch.testing.assert_close(region[0, 1, :, 50][2:170], to_value[1, 2:170], atol=2e-4, rtol=0)
    assert (region[0, 1, -8:] > 0.9999).all()
    assert ((region[0, 2] - 0.5).abs() < 1e-6).all()


def test_gradient_is_the_directional_derivative():
    net = load_facemesh(torch.float64)
    generator = torch.Generator().manual_seed(1)
    x = (to_unit([draw_face(256)]) * 2 - 1).double()
    x = (x + torch.rand(x.shape, generator=generator, dtype=x.dtype)) / 2  # no flat areas: their maxima tie
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    weights = torch.randn(1, 478, 3, generator=generator, dtype=x.dtype)

    def objective(image):
        landmarks, presence = crop_landmarks(net, image)
        return (landmarks * weights).sum() + presence.sum()

    x.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(x), x)
    step = 1e-8  # small: the network has a kink at every PReLU and maximum
    with torch.no_grad():
        numeric = (objective(x + step * direction) - objective(x - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-3, atol=1e-5)


def test_frozen_prelu_has_the_gradients_of_prelu():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    slope = torch.tensor([0.2, -0.5, 1.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(_FrozenPReLU.apply, (x, slope))
    assert torch.autograd.gradgradcheck(_FrozenPReLU.apply, (x, slope))
    torch.testing.assert_close(_FrozenPReLU.apply(x, slope), torch.nn.functional.prelu(x, slope))


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0, None])
def test_gradient_is_finite_without_a_face(value):
    noise = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = (noise if value is None else torch.full_like(noise, value)).requires_grad_()
    landmarks, presence = crop_landmarks(load_facemesh(), x)
    (gradient,) = torch.autograd.grad(landmarks.square().sum() + presence.sum(), x)
    assert torch.isfinite(landmarks).all() and torch.isfinite(gradient).all()
    assert (presence < 0.5).all()


def test_following_the_gradient_opens_the_mouth():
    net = load_facemesh()
    start = to_unit([draw_face(256)]) * 2 - 1
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02)
    gaps = []
    for _ in range(12):
        landmarks, presence = crop_landmarks(net, x)
        gaps.append((landmarks[0, 14, 1] - landmarks[0, 13, 1]).item())
        optimizer.zero_grad()
        (landmarks[0, 13, 1] - landmarks[0, 14, 1] - 0.01 * presence.sum()).backward()
        optimizer.step()
    assert gaps[-1] > gaps[0] + 0.01


def test_a_batch_gives_what_single_images_give():
    images = to_unit([draw_face(), draw_face(degrees=10), draw_face(shift=(-0.05, 0.05))])
    with torch.no_grad():
        together, presence = load_facemesh()(images)
        for image, landmarks, p in zip(images, together, presence):
            alone, p_alone = load_facemesh()(image[None])
            torch.testing.assert_close(alone[0], landmarks, atol=1e-3, rtol=0)
            torch.testing.assert_close(p_alone[0], p, atol=1e-5, rtol=0)


def test_loading_is_cached_frozen_and_usable_for_gradients_even_from_inference_mode():
    load_facemesh.cache_clear()
    with torch.inference_mode():
        net = load_facemesh()
    assert net is load_facemesh() and not net.training
    assert not list(net.parameters()) and not net.state_dict()  # the project's files never contain the network
    x = torch.rand(1, 3, INPUT_SIZE, INPUT_SIZE, requires_grad=True)
    net(x)[0].sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(3, 192, 192), (1, 3, 256, 256), (1, 1, 192, 192)])
def test_wrong_shape_is_told(shape):
    with pytest.raises(ValueError, match="expected"):
        load_facemesh()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 256, 256), (1, 3, 256, 200), (1, 4, 256, 256)])
def test_wrong_crop_is_told(shape):
    with pytest.raises(ValueError, match="expected square RGB"):
        crop_landmarks(load_facemesh(), torch.zeros(shape))


def test_the_model_is_found_without_importing_mediapipe():
    code = "import sys, selfscan.face.facemesh as f; f.load_facemesh(); sys.exit('mediapipe' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


@pytest.fixture
def other_mediapipe(tmp_path, monkeypatch):
    """Put an empty package mediapipe first on the path; returns where its network would be."""
    (tmp_path / "mediapipe").mkdir()
    (tmp_path / "mediapipe" / "__init__.py").touch()
    real = model_path()
    for name in [n for n in sys.modules if n == "mediapipe"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    load_facemesh.cache_clear()
    target = tmp_path / "mediapipe" / MODEL
    target.parent.mkdir(parents=True)
    yield real, target
    load_facemesh.cache_clear()


def test_missing_model_is_told(other_mediapipe):
    with pytest.raises(ModelMissing, match="install mediapipe"):
        load_facemesh()


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "other network"])
def test_damaged_model_is_told(other_mediapipe, damage):
    real, target = other_mediapipe
    data = real.read_bytes()
    other = (real.parent / "face_landmark.tflite").read_bytes()
    target.write_bytes(
        {"empty": b"", "garbage": b"\x13" * 5000, "truncated": data[: len(data) // 2], "other network": other}[damage]
    )
    with pytest.raises(ModelMissing, match="expected"):
        load_facemesh()
