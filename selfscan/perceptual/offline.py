"""The offline metric: early features of the bundled landmark network beside image gradients, built like LPIPS.

It stands in where no LPIPS backbone is on the machine. The landmark network's first layers see skin, eyes and lips;
the gradients also see hair, clothes and background. Both are brought to (about) unit length at each pixel, so weak
texture counts as strong edges do, and all channels weigh the same within a part.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfscan.face.facemesh import load_facemesh
from selfscan.perceptual.lpips_layers import weighted_unit

# Shares of the parts: two aligned faces are about as far apart as in LPIPS squeeze (0.5), and the finest parts weigh
# most, so that blur costs more than a shift of the same look.
FEATURE_WEIGHTS = (0.20, 0.15, 0.12)
GRADIENT_WEIGHTS = (0.06, 0.04, 0.02, 0.02)
FAINT = 0.05  # gradient length, in units of [-1, 1] a pixel, below which it counts as noise


class OfflineLayers(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] -> parts of the embedding, each [N, h, w, c]."""

    one: Tensor  # [] 1, of the type and on the device of the embedding

    def __init__(self):
        super().__init__()
        self.mesh = copy.deepcopy(load_facemesh())  # ours to move between devices and types
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
