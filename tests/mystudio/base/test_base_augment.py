"""Adaptive augmentation: identities, the published distributions, derivatives, feedback."""

import math

import pytest
import torch

from mystudio.base import augment as ada
from mystudio.base.augment import AugmentSettings, adjust, augment, colour, draw, geometry, recolour, warp


def _numbers(count, seed=0):
    return draw(count, torch.Generator().manual_seed(seed))


@pytest.fixture
def smooth():
    """Two smooth images, 40 px."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    waves = [torch.sin(x / 7 + k) * torch.cos(y / 9 - k) for k in range(6)]
    return torch.stack(waves).view(2, 3, 40, 40).double()


def _only(name, p_of_others=2.0, count=20_000):
    """Return settings with which only one transform is chosen."""
    numbers = _numbers(count)
    chosen = numbers[:, ada._DECISIONS.index(name)].clone()
    numbers[:, : len(ada._DECISIONS)] = p_of_others
    numbers[:, ada._DECISIONS.index(name)] = chosen
    return numbers


def test_probability_zero_is_the_identity(smooth):
    assert torch.equal(augment(smooth, _numbers(2), 0.0), smooth)
    assert torch.equal(geometry(_numbers(5), 0.0, 64), torch.eye(3).expand(5, 3, 3))
    assert torch.equal(colour(_numbers(5), 0.0), torch.eye(4).expand(5, 4, 4))


def test_the_two_low_pass_filters_cancel_where_nothing_moves(smooth):
    noise = torch.randn(2, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    same = warp(noise, torch.eye(3).expand(2, 3, 3))
    assert (same - noise)[..., 4:-4, 4:-4].abs().max() < 1e-9  # sym6 is orthonormal to its even shifts
    assert (warp(smooth, torch.eye(3).expand(2, 3, 3)) - smooth).abs().max() < 0.03  # the border costs a little


def test_sampling_is_where_the_matrix_says(smooth):
    quarter = ada._rotation(torch.full((2,), math.pi / 2))
    assert (warp(smooth, quarter) - torch.rot90(smooth, 1, (2, 3)))[..., 2:-2, 2:-2].abs().max() < 0.01
    right = ada._translation(torch.full((2,), 5.0), torch.zeros(2))
    assert (warp(smooth, right)[..., 5:] - smooth[..., :-5])[..., 4:-4, 4:-4].abs().max() < 0.01
    mirrored = ada._scaling(-torch.ones(2), torch.ones(2))
    assert (warp(smooth, mirrored) - smooth.flip(3))[..., 4:-4].abs().max() < 0.02


def test_strengths_are_the_published_ones():
    size, p = 64, 0.5
    flip = geometry(_only("flip"), p, size)[:, 0, 0]
    assert abs((flip == -1).float().mean() - p / 2) < 0.02  # chosen with p, then one of {no flip, flip}
    turn = geometry(_only("turn"), p, size)[:, 0, 0].round()
    assert abs((turn == 0).float().mean() - p / 2) < 0.02
    shift = geometry(_only("shift"), 1.0, size)[:, :2, 2]
    assert shift.abs().max() == size / 8 and torch.equal(shift, shift.round())
    scale = -geometry(_only("scale"), 1.0, size)[:, 0, 0].log2()
    assert abs(scale.std() - 0.2) < 0.01 and abs(scale.mean()) < 0.01
    stretch = geometry(_only("stretch"), 1.0, size)
    assert torch.allclose(stretch[:, 0, 0] * stretch[:, 1, 1], torch.ones(len(stretch)), atol=1e-5)
    assert abs(stretch[:, 1, 1].log2().std() - 0.2) < 0.01
    slide = geometry(_only("slide"), 1.0, size)[:, :2, 2]
    assert abs(slide.std() - size / 8) < 0.2
    assert abs(_shift_of(colour(_only("brightness"), 1.0)).std() - 0.2) < 0.01
    assert abs(colour(_only("contrast"), 1.0)[:, 0, 0].log2().std() - 0.5) < 0.02


def _shift_of(matrices):
    return matrices[:, :3, 3]


def test_rotations_come_with_probability_p_in_all_and_turn_every_way():
    numbers, p = _numbers(20_000), 0.5
    keep = {"rotate_before", "rotate_after"}
    for k, name in enumerate(ada._DECISIONS):
        if name not in keep:
            numbers[:, k] = 2.0
    m = geometry(numbers, p, 64)
    turned = (m[:, 0, 0] - 1).abs() > 1e-6
    assert abs(turned.float().mean() - p) < 0.02
    assert torch.allclose(m[:, :2, :2].det(), torch.ones(len(m)), atol=1e-5)
    angle = torch.atan2(m[turned, 1, 0], m[turned, 0, 0])
    assert abs((angle.abs() < math.pi / 2).float().mean() - 0.5) < 0.02


def test_geometry_is_invertible_and_colour_of_full_rank():
    numbers = _numbers(500)
    assert geometry(numbers, 1.0, 64)[:, :2, :2].det().abs().min() > 0.05
    assert colour(numbers, 1.0).det().abs().min() > 1e-6


@pytest.mark.parametrize("name", ["hue", "saturation"])
def test_hue_and_saturation_keep_luma(name):
    matrices = colour(_only(name, count=200), 1.0)
    images = torch.rand(200, 3, 4, 4) * 2 - 1
    changed = recolour(images, matrices)
    assert torch.allclose(changed.mean(1), images.mean(1), atol=1e-5)
    assert (changed - images).abs().mean() > 0.1
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(recolour(grey, matrices), grey, atol=1e-5)


def test_luma_flip_is_its_own_inverse_and_keeps_chroma():
    matrices = colour(_only("luma", count=200), 1.0)
    images = torch.rand(200, 3, 4, 4)
    once = recolour(images, matrices)
    assert torch.allclose(recolour(once, matrices), images, atol=1e-5)
    assert torch.allclose(once - once.mean(1, keepdim=True), images - images.mean(1, keepdim=True), atol=1e-5)
    assert 0.3 < torch.isclose(once.mean((1, 2, 3)), -images.mean((1, 2, 3)), atol=1e-4).float().mean() < 0.7


def test_first_and_second_derivatives():
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    numbers = _numbers(1, seed=3)

    def through(x):
        return augment(x, numbers, 0.8)[:, :, ::3, ::3]

    assert torch.autograd.gradcheck(through, images)
    assert torch.autograd.gradgradcheck(lambda x: through(x).square(), images)


def test_probability_follows_the_discriminator():
    settings = AugmentSettings(target=0.6, speed_kimg=1.0, limit=0.8)
    assert adjust(0.1, 0.9, 100, settings) == pytest.approx(0.2)
    assert adjust(0.1, 0.3, 100, settings) == pytest.approx(0.0)
    assert adjust(0.05, 0.3, 100, settings) == 0.0
    assert adjust(0.75, 0.9, 100, settings) == 0.8
    assert adjust(0.3, 0.9, 100, AugmentSettings(target=0.0)) == 0.3


def test_numbers_do_not_depend_on_p():
    assert torch.equal(_numbers(4, 7), _numbers(4, 7))
    low, high = geometry(_numbers(400), 0.2, 64), geometry(_numbers(400), 0.4, 64)
    still = [(m - torch.eye(3)).abs().amax((1, 2)) < 1e-6 for m in (low, high)]
    assert 0 < still[1].sum() < still[0].sum() and not (still[1] & ~still[0]).any()
