"""Losses of the training of ``hyper``. Each returns one value a sample; the caller weights and reduces them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selfscan.face.landmarks import EYE_CORNERS, IRISES


def pixels(made: Tensor, aim: Tensor) -> Tensor:
    """Mean absolute difference [N] of images [N, 3, H, W] in [-1, 1]."""
    return (made - aim).abs().mean((1, 2, 3))


def identity(made: Tensor, aim: Tensor) -> Tensor:
    """1 - cosine [N] of embeddings [N, E] of unit length."""
    return 1 - (made * aim).sum(1)


def gaze(points: Tensor, target: Tensor) -> Tensor:
    """Distance of the irises' places between their eye's corners, [N], in the target's eye widths, mean of both eyes.

    Args: points, target: landmarks [N, 478, 3] in crops; only x and y count.
    """
    total = points.new_zeros(len(points))
    for corners, iris in zip(EYE_CORNERS, IRISES):
        width = (target[:, corners[0], :2] - target[:, corners[1], :2]).norm(dim=-1).clamp_min(1e-4)
        here, there = (m[:, iris[0], :2] - m[:, list(corners), :2].mean(1) for m in (points, target))
        total = total + (here - there).norm(dim=-1) / width
    return total / len(IRISES)


def margin(embeddings: Tensor, people: Tensor, person: Tensor, scale: float, angle: float) -> Tensor:
    """Additive angular margin loss (ArcFace, arXiv 1801.07698, equation 3), [N].

    Args:
        embeddings: [N, E] of unit length. people: [P, E] a direction for each person, of any length.
        person: [N] int64. scale: of the logits. angle: margin, radians.
    """
    cosine = (embeddings @ F.normalize(people, dim=1).t()).clamp(-1 + 1e-6, 1 - 1e-6)
    own = F.one_hot(person, len(people)).bool()
    harder = torch.cos((torch.acos(cosine) + angle).clamp_max(torch.pi))
    return F.cross_entropy(scale * torch.where(own, harder, cosine), person, reduction="none")
