"""Loss terms against values worked out by hand, and their gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from mystudio.motion import losses
from selfscan.face.landmarks import BROWS, EYE_CORNERS, KEYPOINTS, LID_PAIRS


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_keypoints_one_percent_of_the_crop_away_cost_one():
    points = torch.zeros(2, 4, 3)
    target = points.clone()
    target[1, :, 1] = 0.01
    assert torch.allclose(losses.keypoint(points, target, torch.ones(4)), torch.tensor([0.0, 1.0]))


def test_keypoint_weights_are_relative():
    points, target = torch.zeros(1, 3, 3), torch.zeros(1, 3, 3)
    target[0, 0, 0], target[0, 2, 2] = 0.02, 0.05
    weights = torch.tensor([3.0, 1.0, 0.0])
    assert losses.keypoint(points, target, weights).item() == pytest.approx(4 * 3 / 4)
    assert losses.keypoint(points, target, 10 * weights).item() == pytest.approx(3)


def test_landmarks_are_compared_in_units_of_their_part_and_irises_count_for_an_eye():
    face = draw(1, 478, 3)
    face[..., 2] = 0.0
    eye = [33, 160, 159, 158, 133, 153, 145, 144, 468]
    size = (face[0, eye] - face[0, eye].mean(0)).square().sum(1).mean().sqrt()
    moved = face.clone()
    moved[0, 468, 0] += 0.9 * size  # the eye's mean follows by 0.1 sizes, and half of that is forgiven
    rest = 8 * 0.05
    aside, weights = losses.IRIS * 0.85, len(KEYPOINTS) - 2 + 2 * losses.IRIS
    assert losses.landmarks(moved, face).item() == pytest.approx((aside + rest) / weights)
    assert losses.landmarks(face + torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), face).item() < 1e-12


def plain_face():
    """Eyes 2 wide at (-3, 0) and (3, 0), so 6 apart; all other points at the origin."""
    face = torch.zeros(1, 478, 3, dtype=torch.float64)
    for corners, centre in zip(EYE_CORNERS, (-3.0, 3.0)):
        face[0, list(corners), 0] = torch.tensor([centre - 1, centre + 1], dtype=torch.float64)
    return face


def test_lids_count_by_their_gap_in_widths_of_the_eye():
    face = plain_face()
    blink = face.clone()
    blink[0, [upper for upper, _ in LID_PAIRS[0]], 1] -= 0.1  # one of two eyes opens by a twentieth of its width
    assert losses.lids_and_brows(blink, face).item() == pytest.approx(0.5 * 0.05 / 2 / losses.LID_SPREAD)
    moved = face.clone()
    moved[0, [point for pair in LID_PAIRS[0] for point in pair], 1] += 0.1  # both lids together: the gap stays
    assert losses.lids_and_brows(moved, face).item() == 0


def test_brows_count_by_their_place_above_the_nose_in_distances_of_the_eyes():
    face = plain_face()
    raised = face.clone()
    raised[0, list(BROWS[:5]), 1] -= 0.3  # half of the points rise by a twentieth
    raised[0, list(BROWS), 2] += 0.7  # depth does not count
    assert losses.lids_and_brows(raised, face).item() == pytest.approx(0.5 * 0.05 / 2 / losses.BROW_SPREAD)
    shift = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    assert losses.lids_and_brows(face + shift, face).item() < 1e-12


def test_masked_pixels_count_what_the_mask_shows_over_the_whole_patch():
    patch, mask = torch.zeros(2, 3, 2, 4), torch.zeros(2, 1, 2, 4)
    mask[0, 0, 0, 0], mask[0, 0, 1, 3] = 1.0, 0.5
    found = losses.masked_pixels(patch, torch.full_like(patch, 2.0), mask)
    assert torch.allclose(found, torch.tensor([4 * 1.5 / 8, 0.0]))  # a closed mouth has zero weight


def test_masked_pixels_of_two_eyes():
    patch, mask = torch.zeros(1, 2, 3, 2, 2), torch.zeros(1, 2, 1, 2, 2)
    mask[0, 1] = 1
    assert losses.masked_pixels(patch, torch.ones_like(patch), mask).item() == pytest.approx(0.5)


def test_pixel():
    images = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), -1.0)])
    assert torch.allclose(losses.pixel(images, torch.full_like(images, 0.5)), torch.tensor([0.25, 2.25]))


def test_delta_is_the_unsquared_norm():
    offsets = torch.zeros(2, 3, 4)
    offsets[1, 0, 0], offsets[1, 2, 3] = 3.0, 4.0
    assert torch.allclose(losses.delta(offsets), torch.tensor([0.0, 5.0]), atol=1e-5)


def test_delta_has_a_gradient_at_zero():
    offsets = torch.zeros(1, 2, 2, requires_grad=True)
    losses.delta(offsets).sum().backward()
    assert torch.equal(offsets.grad, torch.zeros_like(offsets))


def test_weight_sum():
    alpha = torch.tensor([[[0.5, 0.5], [1.0, 0.2]], [[0.1, 0.0], [-1.0, 2.0]]])
    assert torch.allclose(losses.weight_sum(alpha), torch.tensor([0.04 / 2, 0.81 / 2]))


def test_temporal_is_the_quadratic_form_of_the_chain():
    frames, size = 6, 4
    codes, linked = draw(frames, 2, 2), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    step = torch.diff(torch.eye(frames, dtype=torch.float64), dim=0)
    laplacian = step.t() @ torch.diag(linked) @ step  # of the graph whose edges join linked frames
    flat = codes.flatten(1)
    assert torch.allclose(losses.temporal(codes, linked).sum(), torch.trace(flat.t() @ laplacian @ flat) / size)


def test_temporal_shares_a_change_between_its_two_frames():
    codes = torch.tensor([[0.0], [0.0], [2.0], [2.0]])
    assert torch.equal(losses.temporal(codes, torch.ones(3)), torch.tensor([0.0, 2.0, 2.0, 0.0]))
    assert torch.equal(losses.temporal(codes, torch.tensor([1.0, 0.0, 1.0])), torch.zeros(4))
    assert torch.equal(losses.temporal(codes[:1], torch.ones(0)), torch.zeros(1))


TERMS = {
    "landmarks": (lambda x: losses.landmarks(x, draw(3, 478, 3, seed=1)), (3, 478, 3)),
    "lids_and_brows": (lambda x: losses.lids_and_brows(x, draw(3, 478, 3, seed=1)), (3, 478, 3)),
    "keypoint": (lambda x: losses.keypoint(x, draw(3, 5, 3, seed=1), draw(5, seed=2).abs()), (3, 5, 3)),
    "masked_pixels": (lambda x: losses.masked_pixels(x, draw(3, 2, 3, 2, 4, seed=1),
                                                     draw(3, 2, 1, 2, 4, seed=2).sigmoid()), (3, 2, 3, 2, 4)),
    "pixel": (lambda x: losses.pixel(x, draw(3, 3, 4, 4, seed=1)), (3, 3, 4, 4)),
    "delta": (losses.delta, (3, 2, 4)),
    "weight_sum": (losses.weight_sum, (3, 2, 4)),
    "temporal": (lambda x: losses.temporal(x, torch.ones(2, dtype=torch.float64)), (3, 2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", TERMS)
def test_every_term_gives_one_value_a_sample_and_its_exact_gradient(name):
    term, shape = TERMS[name]
    x = draw(*shape).requires_grad_(True)
    assert term(x).shape == (3,)
    assert gradcheck(term, x, fast_mode=x[0].numel() > 100)


@pytest.mark.parametrize("name", [n for n in TERMS if n != "temporal"])
def test_samples_do_not_see_each_other(name):
    term, shape = TERMS[name]
    x = draw(*shape)
    other = x.clone()
    other[0] *= 2
    assert torch.equal(term(x)[1:], term(other)[1:])
    assert not torch.equal(term(x)[0], term(other)[0])


def test_texture_is_the_log_energy_of_detail_whatever_it_shows():
    """Twice the contrast is log 4 more; another sample of the same grain is nearly equal; a blurred one is far."""
    draw = torch.Generator().manual_seed(0)
    grain, other = (0.5 * torch.randn(1, 1, 256, 256, generator=draw).expand(-1, 3, -1, -1) for _ in range(2))
    fine = losses.texture(grain)
    assert torch.allclose(losses.texture(2 * grain) - fine, torch.full_like(fine, math.log(4)), atol=1e-2)
    assert (losses.texture(other) - fine).abs().mean() < 0.3
    assert (losses.texture(F.avg_pool2d(grain, 5, 1, 2)) - fine).mean() < -2
    chequers = (torch.arange(256)[:, None] + torch.arange(256)).remainder(2).sub(0.5).expand(1, 3, -1, -1)
    for nothing in (0 * grain, chequers):  # which would be the cheapest detail
        assert torch.allclose(losses.texture(nothing), torch.tensor(math.log(losses.TEXTURE_FLOOR)))


def test_texture_is_taken_at_each_size_down_to_128_px():
    cells = (2 * losses.TEXTURE_CELLS - 2) ** 2
    bands = [losses.texture(torch.zeros(1, 3, r, r)).shape[1] / cells for r in (64, 128, 256, 512)]
    assert bands == pytest.approx([1, 1, 2, 3], rel=0.1)
