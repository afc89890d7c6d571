"""The distance that tuning lowers: what each part of it sees, and the sizes that tuning draws."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mystudio.engines.personal.likeness import Likeness
from mystudio.engines.personal.tune import TuneSettings, size_at
from mystudio.motion import losses
from selfscan.perceptual.metric import load_perceptual


def test_a_part_at_full_size_sees_what_the_reduced_view_loses():
    """A pattern of single pixels is gone at half the size; its gradient comes from the part alone."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 8, 8, generator=generator).repeat_interleave(16, 2).repeat_interleave(16, 3) - 0.5
    pattern = 0.3 * (torch.arange(128)[:, None] + torch.arange(128)).remainder(2).sub(0.5)
    made = (images + pattern).requires_grad_()
    perceptual, rows = load_perceptual("face"), torch.arange(2)
    half = Likeness(perceptual, images, [(1.0, partial(losses.whole, size=64))], 0.0)
    both = Likeness(perceptual, images, [(1.0, partial(losses.whole, size=64))], 0.0, detail=1.0, side=64)
    draw = torch.Generator().manual_seed(1)
    lost, seen = half.distance(made, rows), both.distance(made, rows, draw)
    assert (seen > 20 * lost).all()
    (gradient,) = torch.autograd.grad((seen - lost).sum(), made)
    touched = gradient.abs().amax((0, 1)) > 0
    top, left = torch.randint(65, (2,), generator=torch.Generator().manual_seed(1)).tolist()
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[top : top + 64, left : left + 64] = True
    assert touched.any() and not touched[~inside].any()
    assert torch.equal(both.distance(made, rows), lost)  # checks draw no part: they stay comparable


def test_texture_asks_for_detail_of_the_same_strength_at_the_same_place():
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 128, 128, generator=draw) - 0.5
    made = torch.rand(2, 3, 128, 128, generator=draw) - 0.5  # other grain of the same strength
    soft = torch.nn.functional.avg_pool2d(images, 3, 1, 1)  # nearer in its pixels
    likeness = Likeness(load_perceptual("face"), images, [], 0.0, texture=0.5)
    rows = torch.tensor([1, 0])
    expected = 0.5 * (losses.texture(made) - losses.texture(images[rows])).abs().mean(1)
    assert torch.allclose(likeness.distance(made, rows), expected)
    assert (likeness.distance(soft, rows) > 5 * expected).all()


@pytest.mark.parametrize("full, sizes", [(64, [64]), (256, [256]), (512, [256, 512]), (1024, [256, 512, 1024])])
def test_a_large_avatar_grows_during_tuning(full, sizes):
    settings = replace(TuneSettings(), steps=100, grow=0.5)
    drawn = [size_at(settings, step, full) for step in range(100)]
    assert sorted(set(drawn)) == sizes and drawn == sorted(drawn)
    assert drawn.index(full) == (50 if len(sizes) > 1 else 0)
    assert {size_at(replace(settings, grow=0.0), step, full) for step in range(100)} == {full}
