"""Losses of base training. Each returns one value per sample; the caller reduces them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.base.settings import SupervisedSettings
from mystudio.motion import losses
from selfscan.face.facemesh import crop_landmarks


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating loss of the generator (Goodfellow et al. 2014): -log sigmoid of logits [N]."""
    return F.softplus(-fake)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss of the discriminator on logits [N] of real and of generated images."""
    return F.softplus(-real) + F.softplus(fake)


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """R1 penalty without its weight: |grad_x D(x)|^2 at real images (Mescheder et al., arXiv 1801.04406, equation 9).

    Args:
        discriminate: images [N, 3, H, W] -> logits [N]. images: real ones.
    Returns: [N], differentiable in the discriminator's weights.
    """
    images = images.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminate(images).sum(), images, create_graph=True)
    return slope.square().sum((1, 2, 3))


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """|J_w^T y| for random images y (arXiv 1912.04958, equation 4), root mean square over layers.

    Args:
        images: [N, 3, H, W] made from ws [N, L, D]. noise: like images, standard normal.
    Returns: [N], differentiable in the generator's weights.
    """
    noise = noise / math.sqrt(images.shape[2] * images.shape[3])
    (slope,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


def multiscale(made: Tensor, aim: Tensor, levels: int) -> Tensor:
    """Mean absolute difference, summed over ``levels`` sizes, each half of the one before.

    Args:
        made, aim: [N, 3, H, W] in [-1, 1].
    Returns: [N].
    """
    difference = made - aim
    total = difference.abs().mean((1, 2, 3))
    for _ in range(1, levels):
        if difference.shape[-1] < 8:
            break
        difference = F.avg_pool2d(difference, 2)
        total = total + difference.abs().mean((1, 2, 3))
    return total


def likeness(made: Tensor, aim: Tensor, settings: SupervisedSettings, perceptual=None, mesh=None) -> Tensor:
    """Distance of generated images from their targets: pixels, perceptual distances, and measured landmarks.

    Args:
        made, aim: [N, 3, H, H] in [-1, 1]. perceptual: ``selfscan.perceptual.metric.Perceptual``. mesh:
            ``selfscan.face.facemesh.FaceMesh``; not compiled, for its backward pass would be slower.
    Returns: [N].
    """
    s, loss = settings, multiscale(made, aim, settings.levels)
    if s.perceptual and perceptual is not None and len(made):
        for weight, view in ((0.5, losses.whole), (0.5, losses.face), (s.eyes, losses.eyes)):
            if weight:
                loss = loss + s.perceptual * weight * perceptual.distance(view(made, s.view), view(aim, s.view))
    if (s.landmarks or s.lids) and mesh is not None and len(made):
        with torch.no_grad():
            there, _ = crop_landmarks(mesh, aim)
        here, _ = crop_landmarks(mesh, made)
        loss = loss + s.landmarks * losses.landmarks(here, there) + s.lids * losses.lids_and_brows(here, there)
    return loss
