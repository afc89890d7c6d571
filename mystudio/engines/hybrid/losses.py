"""Losses of the hybrid engine. Each returns one value for every row; the caller weights and reduces them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mystudio.stylegan2.layers import FullyConnected


def codes_apart(codes: Tensor, aim: Tensor, spread: Tensor) -> Tensor:
    """Mean squared distance [N] of W+ codes [N, L, D] from their aims, in standard deviations [L, D] of W."""
    return ((codes - aim) / spread).square().mean((1, 2))


def offsets_apart(offsets: Sequence[Tensor], aims: Sequence[Tensor], units: Sequence[Tensor]) -> Tensor:
    """Mean squared distance [N] of style offsets from their aims, in standard deviations; each layer counts the same.

    Args: offsets, aims: of each moved layer [N, C]. units: [C] of each.
    """
    parts = [((a - b) / unit).square().mean(1) for a, b, unit in zip(offsets, aims, units)]
    return torch.stack(parts).mean(0)


def style_norm(offsets: Sequence[Tensor], units: Sequence[Tensor]) -> Tensor:
    """Mean square [N] of style offsets, in standard deviations: a deformation is as small as it can be."""
    return offsets_apart(offsets, [torch.zeros_like(x) for x in offsets], units)


def deltas(codes: Tensor, spread: Tensor) -> Tensor:
    """Mean square [N] of each layer's offset from w0 in W+ codes [N, L, D]: near W a code can be edited (e4e)."""
    return ((codes[:, 1:] - codes[:, :1]) / spread[1:]).square().mean((1, 2))


def features_apart(made: Tensor, aim: Tensor) -> Tensor:
    """1 - cosine [N] of feature vectors [N, E]: 0 = the same person, as far as the features tell."""
    return 1 - torch.cosine_similarity(made, aim, dim=1)


class Critic(nn.Module):
    """Tells codes of the mapping network from codes of the encoder: w [N, D] -> logits [N] (e4e, section 4.2).

    Args: w_dim: D. mean, spread: [D] of W, by which codes are normalised.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, w_dim: int, width: int = 256):
        super().__init__()
        sizes = [w_dim, width, width, width]
        self.hidden = nn.Sequential(*(FullyConnected(a, b, activation=True) for a, b in zip(sizes, sizes[1:])))
        self.out = FullyConnected(width, 1)
        self.register_buffer("mean", torch.zeros(w_dim))
        self.register_buffer("spread", torch.ones(w_dim))

    def forward(self, w: Tensor) -> Tensor:
        return self.out(self.hidden((w - self.mean) / self.spread))[:, 0]


def slope_penalty(critic: Critic, w: Tensor) -> Tensor:
    """R1: squared slope [N] of the critic at true codes w [N, D], in standard deviations of W."""
    w = w.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(w).sum(), w, create_graph=True)
    return (slope * critic.spread).square().sum(1)
