"""Muon against torch's implementation for matrices, and against the definition of its step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mystudio.compute.muon import Muon, is_filter, orthogonal


def gradients(shape: tuple[int, ...], steps: int = 4) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draw) for _ in range(steps)]


@pytest.mark.parametrize("shape", [(8, 5, 3, 3), (40, 4, 3, 3)])
def test_filters_go_where_torchs_muon_takes_their_matrix(shape):
    ours, theirs = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape).flatten(1))
    mine = Muon([ours], lr=0.01, momentum=0.9, dtype=torch.bfloat16)
    reference = torch.optim.Muon(
        [theirs], lr=0.05, weight_decay=0.0, momentum=0.9, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )  # a fifth of its rate is the step's size
    for gradient in gradients(shape):
        ours.grad, theirs.grad = gradient.clone(), gradient.flatten(1)
        mine.step()
        reference.step()
    torch.testing.assert_close(ours.detach().flatten(1), theirs.detach(), rtol=0.02, atol=2e-3)
    assert ours.grad.equal(gradients(shape)[-1])  # gradients are still there after the step


def test_a_step_is_as_long_as_the_rate_says():
    filters = nn.Parameter(torch.zeros(64, 32, 3, 3))
    filters.grad = gradients(tuple(filters.shape))[0]
    Muon([filters], lr=0.01).step()
    assert 0.7 < float(filters.detach().square().mean().sqrt()) / 0.01 < 1.2


def test_all_directions_are_equally_long():
    draw = torch.Generator().manual_seed(1)
    u, _ = torch.linalg.qr(torch.randn(24, 24, generator=draw))
    v, _ = torch.linalg.qr(torch.randn(60, 24, generator=draw))
    matrix = (u * torch.logspace(0, -2, 24)) @ v.t() * 7
    for each in (matrix, matrix.t()):
        made = orthogonal(each)
        values = torch.linalg.svdvals(made)
        assert made.shape == each.shape and 0.6 < float(values.min()) and float(values.max()) < 1.25
    assert (u.t() @ orthogonal(matrix) @ v).diagonal().min() > 0.6  # each along its own direction


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_direction_far_above_the_others_makes_none_of_them_too_long(dtype):
    draw = torch.Generator().manual_seed(2)
    u, _ = torch.linalg.qr(torch.randn(64, 64, generator=draw))
    v, _ = torch.linalg.qr(torch.randn(576, 64, generator=draw))
    matrix = (u * torch.cat([torch.ones(1), torch.logspace(-2, -4, 63)])) @ v.t()
    assert torch.linalg.svdvals(orthogonal(matrix.to(dtype)).float()).max() < 1.25


def test_everything_else_is_adams():
    rest = [nn.Parameter(torch.randn(shape)) for shape in ((7,), (6, 5), (3, 8, 1, 1), ())]
    twins = copy.deepcopy(rest)
    assert not any(is_filter(p) for p in rest)
    mine, adam = Muon(rest, lr=0.01, betas=(0.9, 0.99)), torch.optim.Adam(twins, lr=0.01, betas=(0.9, 0.99))
    for step in range(3):
        for p, q in zip(rest, twins):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            q.grad = p.grad.clone()
        mine.step()
        adam.step()
    assert all(p.equal(q) for p, q in zip(rest, twins))


def test_no_gradient_no_step():
    filters = nn.Parameter(torch.ones(8, 4, 3, 3))
    optimizer = Muon([filters], lr=0.1)
    optimizer.step()
    assert filters.equal(torch.ones_like(filters))
    filters.grad = torch.zeros_like(filters)
    optimizer.step()
    assert filters.equal(torch.ones_like(filters))


def test_a_copy_of_its_state_goes_on_with_the_same_steps():
    first, second = (nn.Parameter(torch.zeros(8, 4, 3, 3)) for _ in range(2))
    one, two = Muon([first], lr=0.01), Muon([second], lr=0.01)
    for turn, gradient in enumerate(gradients((8, 4, 3, 3))):
        first.grad = gradient.clone()
        if turn == 2:
            second.data.copy_(first.detach())
            two.load_state_dict(copy.deepcopy(one.state_dict()))
        one.step()
        if turn >= 2:
            second.grad = gradient.clone()
            two.step()
    assert first.equal(second)
