"""Changes of a picture that leave the person the same: light, camera, clothes, background.

In groups of actors a person keeps one light, one shirt and one wall. The appearance network must not tell people by
them, so they change from picture to picture while it is trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selfscan.face.landmarks import OVAL

SURE = 1.35  # size of the region around the face's oval, in its sizes, that stays as it is: hair is the person's
SOFT = 0.15  # width of its edge, likewise


def nuisance(images: Tensor, landmarks: Tensor, draw: torch.Generator) -> Tensor:
    """Another light and camera for each picture, and for half of them another one's clothes and background.

    Args:
        images: [N, 3, H, H] in [-1, 1]. landmarks: [N, 478, 3] in crops. draw: on the CPU.
    Returns: [N, 3, H, H] in [-1, 1].
    """
    n = len(images)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw).to(images)

    keep = head(landmarks, images.shape[-1])
    keep = torch.where(rand(n, 1, 1, 1) < 0.5, keep, torch.ones_like(keep))
    x = keep * images + (1 - keep) * images.roll(1, 0)
    ramp = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    side, height = (rand(n, 1, 1, 1) - 0.5 for _ in range(2))
    light = 1 + 0.6 * (rand(n, 1, 1, 1) - 0.5) + 0.5 * (side * ramp + height * ramp[:, None])
    colour = 1 + 0.3 * (rand(n, 3, 1, 1) - 0.5)
    x = (x + 1) * light * colour - 1 + 0.3 * (rand(n, 3, 1, 1) - 0.5)
    small = F.avg_pool2d(x, 2)
    soft = F.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False)
    x = x.lerp(soft, rand(n, 1, 1, 1).round())
    noise = torch.randn(x.shape, generator=draw).to(x)
    return (x + 0.08 * rand(n, 1, 1, 1) * noise).clamp(-1, 1)


def head(landmarks: Tensor, side: int) -> Tensor:
    """Mask [N, 1, side, side] of the head: 1 inside an ellipse around the face's oval, 0 far from it."""
    oval = landmarks[:, list(OVAL), :2]
    low, high = oval.amin(1), oval.amax(1)
    middle, half = (low + high) / 2, (high - low).clamp_min(1e-3) / 2
    cells = (torch.arange(side, device=landmarks.device, dtype=landmarks.dtype) + 0.5) / side
    across = (cells - middle[:, :1]) / half[:, :1]
    down = (cells - middle[:, 1:]) / half[:, 1:]
    distance = (across[:, None, :].square() + down[:, :, None].square()).sqrt()
    return ((SURE - distance) / SOFT + 0.5).clamp(0, 1)[:, None]
