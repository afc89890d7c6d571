import math
import socket
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from selfscan.errors import ModelMissing
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.lpips_layers import BACKBONE_VARIABLE, convolutions, weighted_unit
from selfscan.perceptual.metric import Perceptual, load_perceptual, pairwise, perceptual_name
from selfscan.scan.select import k_centre, k_centre_distances


@pytest.fixture(scope="module")
def backbone(shared):
    return shared / "weights/squeezenet1_1_fp16.safetensors"


@pytest.fixture(scope="module")
def squeeze(backbone) -> Perceptual:
    return load_perceptual("squeeze", backbone)


@pytest.fixture(scope="module", params=["lpips-squeeze", "lpips-face"])
def metric(request) -> Perceptual:
    if request.param == "lpips-face":
        return load_perceptual("face")
    return request.getfixturevalue("squeeze")


@pytest.fixture(scope="module")
def faces(shared) -> np.ndarray:
    paths = sorted((shared / "faces256").glob("*.jpg"))[:12]
    return np.stack([np.asarray(Image.open(p).convert("RGB").resize((96, 96), Image.LANCZOS)) for p in paths])


def tensor(images: np.ndarray) -> torch.Tensor:
    return to_tensor(images)


def noisy(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator) * 2 - 1
    return x, (x + 0.3 * torch.randn(shape, generator=generator)).clamp(-1, 1)


def reference(net: str, metric: Perceptual):
    """The lpips package's own distance with the backbone weights of ``metric``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lpips = pytest.importorskip("lpips", reason="lpips or its torchvision cannot be imported")
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    state = metric.layers.features.state_dict()
    for i in range(1, len(metric.layers.taps) + 1):
        for name, module in getattr(model.net, f"slice{i}")._modules.items():
            own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
            module.load_state_dict(own)
    return lambda x, y: model(x, y).detach().flatten()


@pytest.mark.parametrize("height,width", [(32, 32), (64, 96), (131, 131)])
def test_squeeze_equals_the_lpips_package(squeeze, height, width):
    x, y = noisy((3, 3, height, width))
    truth = reference("squeeze", squeeze)(x, y)
    assert torch.allclose(squeeze.distance(x, y), truth, rtol=1e-4, atol=0)
    gap = (squeeze.embed(x) - squeeze.embed(y)).square().sum(1)
    assert torch.allclose(gap, truth, rtol=1e-4, atol=0)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_other_backbones_equal_the_lpips_package(tmp_path, net):
    torch.manual_seed(0)
    state = {f"features.{k}": v for k, v in convolutions(net).state_dict().items()}
    torch.save(state, tmp_path / "random.pth")
    metric = load_perceptual(net, tmp_path / "random.pth")
    assert metric.name == f"lpips-{net}"
    x, y = noisy((2, 3, 64, 64))
    assert torch.allclose(metric.distance(x, y), reference(net, metric)(x, y), rtol=1e-4, atol=0)


def test_all_pairs_equal_single_distances(metric, faces):
    n = len(faces)
    matrix = pairwise(metric.embed_images(faces, batch=5), block=10007)
    x = tensor(faces)
    with torch.no_grad():
        truth = np.stack([metric.distance(x[i : i + 1].expand(n, -1, -1, -1), x).numpy() for i in range(n)])
    np.testing.assert_allclose(matrix, truth, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(matrix, matrix.T)


def test_blocks_within_bounded_memory_give_the_same_distances(metric, faces):
    whole = pairwise(metric.embed_images(faces))
    width = metric.embed_images(faces[:1]).shape[1]
    blocked = metric.distances(faces, memory=4 * width * 5, batch=2)
    np.testing.assert_allclose(blocked, whole, rtol=1e-4, atol=1e-6)


def test_picks_are_those_of_brute_force_distances(squeeze, faces):
    x, n = tensor(faces), len(faces)
    truth = reference("squeeze", squeeze)
    matrix = np.stack([truth(x[i : i + 1].expand(n, -1, -1, -1), x).numpy() for i in range(n)])
    assert k_centre(squeeze.embed_images(faces), 8).tolist() == k_centre_distances(matrix, 8).tolist()


def test_embedded_targets_give_the_same_loss_and_gradient(metric):
    x, y = noisy((2, 3, 64, 64))
    gradients = []
    for loss in (lambda v: metric.distance(v, y), lambda v: metric.distance_to(v, metric.embed(y))):
        v = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(v).sum(), v)
        gradients.append(gradient)
    assert torch.allclose(metric.distance(x, y), metric.distance_to(x, metric.embed(y)), rtol=1e-5)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-7)
    assert gradients[0].abs().max() > 0


def test_gradient_is_right(metric):
    x, y = (v.double() for v in noisy((1, 3, 40, 40)))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(metric.distance(x, y).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-7  # small, as the networks have kinks
    with torch.no_grad():
        slope = (metric.distance(x + step * direction, y) - metric.distance(x - step * direction, y)) / (2 * step)
        metric.distance(x.float(), y.float())  # back to the usual precision for the tests that follow
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_gradient_through_the_unit_length_is_exact():
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    root = torch.rand(5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: weighted_unit(v, root), f)


def test_projection_keeps_distances_within_its_stated_error(metric, faces):
    exact = pairwise(metric.embed_images(faces))
    sketch = pairwise(metric.embed_images(faces, dims=1024))
    off = ~np.eye(len(faces), dtype=bool)
    relative = (sketch[off] - exact[off]) / exact[off]
    assert np.sqrt(np.mean(relative**2)) < 1.5 * math.sqrt(2 / 1024)
    np.testing.assert_array_equal(metric.embed_images(faces[:2], dims=64), metric.embed_images(faces[:2], dims=64))


def test_distance_orders_what_the_eye_orders(metric, faces):
    """A slightly blurred face is closer than a heavily blurred one, a darker one closer than another person."""
    x = tensor(faces)
    blur = [torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, s), x.shape[2:], mode="bilinear")
            for s in (2, 6)]  # fmt: skip
    with torch.no_grad():
        slight, heavy = (metric.distance(b, x) for b in blur)
        darker = metric.distance(x * 0.8 - 0.1, x)
        other = metric.distance(x.roll(1, 0), x)
        same = metric.distance(x, x)
    assert (slight < heavy).all() and (slight < other).all() and (darker < other / 4).all()
    assert same.abs().max() == 0
    assert 0.1 < other.mean() < 1.0


def test_descending_the_distance_sharpens(metric, faces):
    """As a training loss: from a blurred image the gradient leads back towards the sharp one."""
    y = tensor(faces[:1])
    blurred = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(y, 4), y.shape[2:], mode="bilinear")
    target, x = metric.embed(y), blurred.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        metric.distance_to(x, target).sum().backward()
        optimizer.step()

    def edges(v):  # of the same place and sign as in the sharp image
        d = y[..., 1:] - y[..., :-1]
        return ((v[..., 1:] - v[..., :-1]) * d).mean() / (d * d).mean()

    assert metric.distance_to(x, target) < 0.4 * metric.distance_to(blurred, target)
    assert edges(x) > 1.1 * edges(blurred)


def test_no_download_ever(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(BACKBONE_VARIABLE, raising=False)
    assert load_perceptual().name == perceptual_name() == perceptual_name("face") == "lpips-face"
    assert perceptual_name("alex") == "lpips-alex"
    for net in ("squeeze", "alex", "vgg"):
        with pytest.raises(ModelMissing, match="net='face'"):
            load_perceptual(net)


def test_backbone_comes_from_argument_then_variable_then_cache(monkeypatch, tmp_path, backbone):
    from safetensors.torch import load_file

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(BACKBONE_VARIABLE, raising=False)
    assert load_perceptual("auto", backbone).name == perceptual_name("auto", backbone) == "lpips-squeeze"
    monkeypatch.setenv(BACKBONE_VARIABLE, str(backbone))
    assert load_perceptual().name == "lpips-squeeze"
    monkeypatch.delenv(BACKBONE_VARIABLE)
    cache = tmp_path / "hub/checkpoints"
    cache.mkdir(parents=True)
    torch.save(load_file(backbone), cache / "squeezenet1_1-b8a52dc0.pth")
    assert load_perceptual().name == perceptual_name() == "lpips-squeeze"


def test_works_without_torchvision(monkeypatch, backbone):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # import torchvision now fails
    assert load_perceptual("face").name == "lpips-face"


def test_the_distilled_network_is_near_lpips_on_new_pictures(squeeze, shared):
    """Faces and disturbed faces: distances are in the same order, and gradients point the same way."""
    paths = sorted((shared / "faces256").glob("*.jpg"))[10::300]  # portraits that its training never saw
    x = tensor(np.stack([np.asarray(Image.open(p).convert("RGB").resize((128, 128), Image.LANCZOS)) for p in paths]))
    seeded = torch.Generator().manual_seed(0)
    soft = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 4), x.shape[2:], mode="bilinear")
    others = [x.roll(1, 0), soft, x * 0.8 - 0.1, (x + 0.1 * torch.randn(x.shape, generator=seeded)).clamp(-1, 1)]
    found: list[list[torch.Tensor]] = []
    for net in (load_perceptual("face"), squeeze):
        points = [o.clone().requires_grad_() for o in others]
        distances = [net.distance(o, x) for o in points]
        gradients = torch.autograd.grad(torch.cat(distances).sum(), points)
        found.append([torch.cat(distances).detach(), torch.cat(gradients).flatten(1)])
    (ours, slope), (true, true_slope) = found
    assert spearmanr(ours, true).statistic >= 0.97
    assert ((ours - true).abs() / true).median() < 0.05
    assert torch.nn.functional.cosine_similarity(slope, true_slope).mean() >= 0.9


@pytest.mark.parametrize("damage", ["absent", "cut", "flipped", "nan", "hostile", "other"])
def test_damaged_backbones_are_named_not_used(tmp_path, backbone, damage):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "weights.safetensors"
    data = bytearray(backbone.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    if damage == "flipped":
        data[2] ^= 0xFF
        path.write_bytes(data)
    if damage == "nan":
        state = load_file(backbone)
        state["features.0.weight"][0, 0, 0, 0] = float("nan")
        save_file(state, path)
    if damage == "hostile":
        path = tmp_path / "weights.pth"
        torch.save({"features.0.weight": torch.zeros(1), "run": print}, path)
    if damage == "other":
        save_file({"features.0.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelMissing, match=path.name):
        load_perceptual("auto", path)


def test_unusable_images_are_refused(metric):
    with pytest.raises(ValueError, match="32 px"):
        metric.distance(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="one size"):
        metric.distance(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 48, 48))
    with pytest.raises(ValueError, match="same size"):
        metric.distance_to(torch.zeros(1, 3, 64, 64), metric.embed(torch.zeros(1, 3, 48, 48)))


def test_constant_images_have_finite_gradients(metric):
    x = torch.zeros(1, 3, 64, 64, requires_grad=True)
    metric.distance(x, torch.ones(1, 3, 64, 64)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.slow
def test_a_thousand_frames_fit(squeeze):
    import resource

    images = np.random.default_rng(0).integers(0, 255, (1000, 8, 8, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    matrix = squeeze.distances(images, memory=1 << 30)
    assert matrix.shape == (1000, 1000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # kB
