"""The offline metric: early features of the landmark network and image gradients, combined as in LPIPS.

It replaces LPIPS if the machine has no backbone. The landmark network's first layers respond to skin, eyes and lips.
The gradients also respond to hair, clothes and background. Both are normalised to (about) unit length at each pixel, so
that weak texture counts as much as strong edges. All channels of a part have the same weight.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfscan.face.facemesh import load_facemesh
from selfscan.perceptual.lpips_layers import weighted_unit

# Weights of the parts, scaled so that two aligned faces are about as far apart as in LPIPS squeeze (0.5). The finest
# parts have the largest weights, so that blur costs more than a small shift.
FEATURE_WEIGHTS = (0.20, 0.15, 0.12)
GRADIENT_WEIGHTS = (0.06, 0.04, 0.02, 0.02)
FAINT = 0.05  # gradient length, in units of [-1, 1] a pixel; shorter gradients count as noise


class OfflineLayers(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] -> parts of the embedding, each [N, h, w, c]."""

    one: Tensor  # [] the number 1; carries the embedding's dtype and device

    def __init__(self):
        super().__init__()
        self.mesh = copy.deepcopy(load_facemesh())  # a copy, since the shared network must not change device or dtype
        self.register_buffer("one", torch.ones(()))

    def forward(self, x: Tensor) -> list[Tensor]:
        parts = []
        for f, share in zip(self.mesh.features((x + 1) / 2), FEATURE_WEIGHTS):
            f = f.permute(0, 2, 3, 1)
            parts.append(weighted_unit(f, self.one.expand(f.shape[-1]) * share**0.5))
        for level, share in enumerate(GRADIENT_WEIGHTS):
            if level:
                x = F.avg_pool2d(x, 2)
            parts.append(_gradients(x, share))
        return parts


def _gradients(x: Tensor, share: float) -> Tensor:
    """Forward differences [N, h-1, w-1, 6], of length < 1 at each pixel, times sqrt(share / (h w))."""
    across = x[:, :, :-1, 1:] - x[:, :, :-1, :-1]
    down = x[:, :, 1:, :-1] - x[:, :, :-1, :-1]
    g = torch.cat([across, down], 1).permute(0, 2, 3, 1)
    length = (g.square().sum(-1, keepdim=True) + FAINT**2).sqrt()
    return g / length * (share / (g.shape[1] * g.shape[2])) ** 0.5
