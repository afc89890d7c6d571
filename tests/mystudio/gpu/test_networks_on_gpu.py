"""Networks and measures that look at pictures, on the GPU."""

import numpy as np
import pytest
import torch
from simulated_gpu import simulated_gpu

from mystudio.base.features import load_features
from mystudio.evaluation import metrics
from mystudio.types import Styles
from selfscan.face import patches
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.pixels import to_uint8
from selfscan.perceptual.lpips_layers import convolutions, find_heads
from selfscan.perceptual.metric import load_perceptual

CPU = torch.device("cpu")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kind", ["squeeze", "alex", "face"])
def test_perceptual_distances(images, tmp_path, kind):
    weights = None
    if kind != "face":
        if not find_heads(kind):
            pytest.skip("the package lpips is not here")
        weights = tmp_path / "backbone.pth"
        torch.manual_seed(0)
        torch.save({f"features.{name}": value for name, value in convolutions(kind).state_dict().items()}, weights)
    metric = load_perceptual(kind, weights)  # the simulation cannot read files of pickled tensors
    rows, pictures = metric.embed(images.flip(0)), to_uint8(images)
    expected = metric.distance(images, images.flip(0)), metric.embed(images, 64), metric.embed_images(pictures)
    with simulated_gpu() as gpu:
        there = images.to(gpu).requires_grad_(True)
        distance = metric.distance_to(there, rows)  # targets may still be on the CPU
        distance.sum().backward()
        assert there.grad.device == gpu and torch.allclose(distance.detach().cpu(), expected[0], rtol=1e-4)
        assert torch.allclose(metric.embed(images.to(gpu), 64).cpu(), expected[1], atol=1e-4)
        assert np.allclose(metric.embed_images(pictures), expected[2], atol=1e-4)  # where the metric is
        assert metric.embed(images).device == CPU  # and it follows its inputs back


def test_landmarks_patches_and_statistics(gpu, images):
    def look(device):
        given = images.to(device).requires_grad_(True)
        marks, presence = crop_landmarks(load_facemesh(device=device), given)
        mouth, irises = patches.mouth_and_irises(given, marks.detach())
        (marks.sum() + mouth.sum() + irises.sum()).backward()
        masks = patches.masks(marks.detach())
        known = patches.statistics(given.detach(), marks.detach())
        found = [marks, presence, mouth, irises, *masks, *known.values(), given.grad]
        assert all(value.device == device for value in found)
        return [value.detach().cpu() for value in found]

    for mine, theirs in zip(look(gpu), look(CPU)):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-3)


def test_metrics_of_pairs(gpu, images):
    for measure in (metrics.psnr, metrics.ssim):
        there = measure(images.to(gpu), images.flip(0).to(gpu))
        assert there.device == gpu and torch.allclose(there.cpu(), measure(images, images.flip(0)), atol=1e-4)
    assert load_features(gpu).embed(images.to(gpu)).device == gpu


def test_weight_deltas(tiny_avatar, avatar_there):
    def draw(generator, device):
        w = torch.randn(2, generator.w_dim, generator=torch.Generator().manual_seed(0)).to(device)
        styles = generator.styles(generator.broadcast(w))
        deltas = tuple(0.1 * torch.ones(1, *layer.weight.shape[:2], device=device) for layer in generator.layers())
        return generator.synthesize(Styles(styles.vectors, deltas)).cpu()

    there = draw(avatar_there.generator, torch.device("cuda", 0))
    assert torch.allclose(there, draw(tiny_avatar.generator, CPU), atol=1e-4)
