"""Losses of the hybrid engine against hand computations."""

import pytest
import torch

from mystudio.engines.hybrid import losses
from mystudio.engines.hybrid.losses import Critic
from mystudio.engines.hybrid.settings import LossSettings
from mystudio.engines.hybrid.stages import weighted


def test_codes_are_compared_in_standard_deviations():
    codes = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    aim, spread = torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]), torch.tensor([[1.0, 5.0], [2.0, 4.0]])
    assert losses.codes_apart(codes, aim, spread).tolist() == [pytest.approx((1 + 0 + 1 + 1) / 4)]


def test_every_moved_layer_counts_the_same():
    offsets = (torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0]]))
    aims, units = (torch.zeros(1, 2), torch.ones(1, 1)), (torch.tensor([1.0, 9.0]), torch.tensor([2.0]))
    assert losses.offsets_apart(offsets, aims, units).tolist() == [pytest.approx(((4 + 0) / 2 + 1) / 2)]
    assert losses.style_norm(offsets, units).tolist() == [pytest.approx(((4 + 0) / 2 + 9 / 4) / 2)]


def test_offsets_from_w0():
    codes = torch.tensor([[[1.0], [3.0], [1.0]], [[2.0], [2.0], [2.0]]])
    assert losses.deltas(codes, torch.tensor([[7.0], [2.0], [1.0]])).tolist() == [0.5, 0.0]


def test_identity_is_one_minus_the_cosine():
    a, b = torch.tensor([[3.0, 0.0], [1.0, 1.0], [1.0, 0.0]]), torch.tensor([[5.0, 0.0], [1.0, -1.0], [-2.0, 0.0]])
    assert losses.features_apart(a, b).tolist() == pytest.approx([0.0, 1.0, 2.0])


def test_the_slope_of_a_linear_critic():
    """Without hidden layers the critic is a line, whose slope is its weights over the spread."""
    torch.manual_seed(0)
    critic = Critic(3, width=3)
    critic.hidden = torch.nn.Identity()
    critic.mean, critic.spread = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0])
    slope = critic.out.weight[0] * critic.out.weight_gain
    found = losses.slope_penalty(critic, torch.randn(5, 3))
    assert torch.allclose(found, slope.square().sum().expand(5))
    assert torch.allclose(critic(torch.tensor([[2.0, 4.0, 7.0]])), slope.sum() + critic.out.bias)


def test_terms_are_weighted_by_name():
    terms = {"pixel": torch.tensor([1.0, 3.0]), "landmarks": torch.tensor([2.0]), "code": torch.tensor([5.0])}
    assert float(weighted(terms, LossSettings(pixel=0.5, landmarks=3.0))) == pytest.approx(0.5 * 2 + 3 * 2 + 5)
