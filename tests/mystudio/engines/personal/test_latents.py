"""Hull weights, principal axes of the anchors, projection on the hull, smoothing over time."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mystudio.engines.personal.space import AnchorSpace, hull_weights, softplus_weights
from mystudio.motion.smoothing import smooth_over_time


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="module")
def space() -> AnchorSpace:
    return AnchorSpace.of(draw(10, 12), rank=3)


@pytest.mark.parametrize("dilation", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("dtype, rounding", [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_hull_weights_sum_to_one_and_stay_above_minus_beta(dilation, dtype, rounding):
    alpha = hull_weights(30 * draw(50, 7, 100).to(dtype), dilation)
    beta = (dilation - 1) / 100
    assert (alpha.sum(-1) - 1).abs().max() < 100 * rounding
    assert alpha.min() >= -beta - rounding
    assert alpha.min() < -beta + 1e-6  # the border is reached


def test_hull_weights_are_the_hull_dilated_about_the_mean():
    logits, anchors = draw(20, 9, seed=1), draw(9, 5, seed=2)
    inside = hull_weights(logits) @ anchors
    dilated = hull_weights(logits, 4.0) @ anchors
    mean = anchors.mean(0)
    assert torch.allclose(dilated, mean + 4 * (inside - mean), atol=1e-12)


def test_hull_weights_of_equal_logits_are_the_mean():
    assert torch.allclose(hull_weights(torch.full((3, 8), 5.0), 3.0), torch.full((3, 8), 1 / 8))


def test_hull_weights_gradient():
    assert torch.autograd.gradcheck(lambda u: hull_weights(u, 2.5), draw(2, 4).requires_grad_(True))


def test_softplus_weights_clip_softly_at_minus_beta_and_are_brought_to_sum_one():
    beta = 0.03
    raw = torch.tensor([0.5, 0.3, 0.25, -0.4], dtype=torch.float64)  # far from the bend at -beta: clipping is exact
    clipped = torch.tensor([0.5, 0.3, 0.25, -beta], dtype=torch.float64)
    assert torch.allclose(softplus_weights(raw, beta), clipped / clipped.sum(), atol=1e-9)
    alpha = softplus_weights(0.05 * draw(40, 100), beta)
    assert (alpha.sum(-1) - 1).abs().max() < 1e-12


def test_axes_of_full_rank_keep_the_anchors():
    anchors = draw(8, 20)
    space = AnchorSpace.of(anchors, rank=0)
    assert space.rank == 7  # N points span N - 1 directions
    assert torch.allclose(space.decode(space.codes), anchors, atol=1e-10)
    assert torch.allclose(space.encode(anchors), space.codes, atol=1e-10)


def test_codes_survive_decode_and_encode(space):
    codes = draw(2, 4, 3)
    assert torch.allclose(space.encode(space.decode(codes)), codes, atol=1e-10)


def test_encode_is_the_nearest_point_on_the_axes(space):
    w = draw(12)
    residual = w - space.decode(space.encode(w))
    assert (space.axes @ residual).abs().max() < 1e-10


def test_direction_is_the_linear_part_of_encode(space):
    w, d = draw(12, seed=3), draw(12, seed=4)
    assert torch.allclose(space.encode(w + 0.7 * d), space.encode(w) + 0.7 * space.direction(d), atol=1e-10)


def test_axes_are_the_anchors_principal_ones(space):
    codes = space.codes
    assert codes.mean(0).abs().max() < 1e-10
    covariance = codes.t() @ codes / (len(codes) - 1)
    assert torch.allclose(covariance, torch.eye(3, dtype=torch.float64), atol=1e-10)
    lengths = space.axes.norm(dim=1)
    assert (lengths.diff() <= 0).all()
    gram = space.axes @ space.axes.t()
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-10)


def test_axes_do_not_depend_on_the_signs_or_order_of_anchors():
    anchors = draw(10, 12)
    shuffled = AnchorSpace.of(anchors[torch.randperm(10, generator=torch.Generator().manual_seed(0))], 3)
    assert torch.allclose(AnchorSpace.of(anchors, 3).axes, shuffled.axes, atol=1e-10)
    assert (shuffled.axes.gather(1, shuffled.axes.abs().argmax(1, keepdim=True)) > 0).all()


def test_rank_never_exceeds_what_the_anchors_span():
    flat = draw(10, 2) @ draw(2, 12, seed=1)
    assert AnchorSpace.of(flat, 8).rank == 2
    assert AnchorSpace.of(flat.float(), 8).codes.dtype == torch.float32


def by_slsqp(corners: np.ndarray, point: np.ndarray, dilation: float) -> np.ndarray:
    n = len(corners)
    low = -(dilation - 1) / n
    found = minimize(lambda a: np.square(a @ corners - point).sum(), np.full(n, 1 / n),
                     jac=lambda a: 2 * corners @ (a @ corners - point), method="SLSQP", bounds=[(low, None)] * n,
                     constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(n)},
                     options={"ftol": 1e-12, "maxiter": 500})  # fmt: skip
    assert abs(found.x.sum() - 1) < 1e-8 and found.x.min() > low - 1e-8
    return found.x @ corners


@pytest.mark.parametrize("dilation", [1.0, 2.5])
def test_projection_finds_the_nearest_point_of_the_hull(space, dilation):
    codes = 2.5 * dilation * draw(8, 3, seed=5)
    expected = np.stack([by_slsqp(space.codes.numpy(), c.numpy(), dilation) for c in codes])
    away = (codes - torch.as_tensor(expected)).norm(dim=1)
    assert away.max() > 1
    assert (space.project(codes, dilation) - torch.as_tensor(expected)).norm(dim=1).max() < 1e-3
    assert torch.allclose(space.outside(codes, dilation), away, atol=1e-3)


def test_projection_on_a_segment_is_known_by_hand():
    space = AnchorSpace.of(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), 1)
    end = space.codes.abs().max()
    codes = torch.tensor([[10.0], [-10.0], [0.3 * float(end)]])
    assert torch.allclose(space.project(codes)[:, 0], torch.stack([end, -end, 0.3 * end]), atol=1e-5)
    assert torch.allclose(space.project(codes, 3.0)[:2, 0], torch.stack([3 * end, -3 * end]), atol=1e-5)


def test_points_inside_the_hull_stay(space):
    for dilation in (1.0, 4.0):
        codes = hull_weights(2 * draw(30, 10, seed=6), dilation) @ space.codes
        assert (space.project(codes, dilation) - codes).norm(dim=1).max() < 1e-3
        assert space.outside(codes, dilation).max() < 1e-3


def test_projection_is_idempotent_and_lands_in_the_hull(space):
    codes = 6 * draw(5, 4, 3, seed=7)
    once = space.project(codes, 1.5)
    assert once.shape == codes.shape
    assert (space.project(once, 1.5) - once).norm(dim=-1).max() < 1e-3
    assert space.outside(once, 1.5).max() < 1e-3


def test_the_anchors_are_in_their_own_hull(space):
    assert space.outside(space.codes).max() < 1e-3


def test_smoothing_keeps_constants_and_straight_lines():
    t = np.arange(60.0)
    assert np.allclose(smooth_over_time(np.full((60, 2), 3.0), 2.0), 3.0)
    assert np.allclose(smooth_over_time(t, 2.0)[10:-10], t[10:-10])


@pytest.mark.parametrize("count", [2, 5, 40])
def test_smoothing_equals_its_definition_and_ignores_invalid_frames(count):
    values = draw(count, 2, 3, seed=8).numpy()
    valid = np.arange(count) % 3 != 1
    hidden = values.copy()
    hidden[~valid] = 1e6
    t = np.arange(count)
    kernel = np.exp(-0.5 * ((t[:, None] - t) / 1.3) ** 2) * valid * (abs(t[:, None] - t) <= 6)
    expected = np.einsum("ts,sij->tij", kernel / kernel.sum(1, keepdims=True), values)
    smoothed = smooth_over_time(hidden, 1.3, valid)
    assert smoothed.shape == values.shape
    assert np.allclose(smoothed, expected, atol=1e-8)


def test_smoothing_stops_at_the_ends_of_shots():
    values, valid = draw(14, 3, seed=9).numpy(), np.ones(14, bool)
    valid[6:9] = False
    shots = (slice(0, 6), slice(6, 9), slice(9, 14))
    smoothed = smooth_over_time(values, 2.0, valid, shots)
    for shot in (shots[0], shots[2]):
        assert np.allclose(smoothed[shot], smooth_over_time(values[shot], 2.0))
    assert np.array_equal(smoothed[6:9], values[6:9])  # a shot without a valid frame


def test_no_smoothing_returns_the_input():
    values = draw(5, 2).numpy()
    assert smooth_over_time(values, 0) is values
    assert smooth_over_time(values[:1], 2.0).shape == (1, 2)
