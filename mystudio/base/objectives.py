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

VIEWS = (losses.whole, losses.face, losses.eyes)  # whose change counts in ``change``


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


Marks = tuple[Tensor, Tensor]  # landmarks [N, 478, 3] of generated images and of their targets


def marks_of(made: Tensor, aim: Tensor, mesh) -> Marks:
    """Landmarks of generated images [N, 3, H, H], differentiable, and of their targets.

    Args: mesh: ``selfscan.face.facemesh.FaceMesh``; not compiled, for its backward pass would be slower.
    """
    with torch.no_grad():
        there, _ = crop_landmarks(mesh, aim)
    return crop_landmarks(mesh, made)[0], there


def likeness(
    made: Tensor, aim: Tensor, settings: SupervisedSettings, perceptual=None, marks: Marks | None = None
) -> Tensor:
    """Distance of generated images from their targets: pixels, perceptual distances, and measured landmarks.

    Args:
        made, aim: [N, 3, H, H] in [-1, 1]. perceptual: ``selfscan.perceptual.metric.Perceptual``. marks: of both.
    Returns: [N].
    """
    s, loss = settings, multiscale(made, aim, settings.levels)
    if s.perceptual and perceptual is not None and len(made):
        for weight, view in ((0.5, losses.whole), (0.5, losses.face), (s.eyes, losses.eyes)):
            if weight:
                loss = loss + s.perceptual * weight * perceptual.distance(view(made, s.view), view(aim, s.view))
    return loss + _faces(*marks, settings) if marks else loss


def change(
    made: Tensor, aim: Tensor, pairs: Tensor, settings: SupervisedSettings, marks: Marks | None = None
) -> Tensor:
    """Distance of the change within pairs of generated images from the change within their targets.

    People differ more than their lids and brows move. In a pair of images of one person only the motion differs, so
    that its error is not hidden behind the look's.

    Args:
        made, aim, marks: as ``likeness``. pairs: [P, 2] rows of the images.
    Returns: [P].
    """
    a, b = pairs.unbind(1)
    here, there = made[a] - made[b], aim[a] - aim[b]
    loss = sum((multiscale(view(here), view(there), settings.levels) for view in VIEWS), made.new_zeros(len(pairs)))
    if marks is None:
        return loss
    points, targets = marks
    return loss + _faces(targets[b] + points[a] - points[b], targets[a], settings)


def _faces(here: Tensor, there: Tensor, settings: SupervisedSettings) -> Tensor:
    return settings.landmarks * losses.landmarks(here, there) + settings.lids * losses.lids_and_brows(here, there)
