"""Infer codes of unlabelled images, so that they take part in the supervised phase.

A variational autoencoder (arXiv 1312.6114) around the generator. The reader is a temporary encoder. It learns the
meaning of a code's numbers from images with codes, and infers codes of the other images. The generator's loss compares
each image with the one generated from its inferred code. The reader is not part of the finished base.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 64  # px at which images are read


class Reader(nn.Module):
    """Image -> mean and log variance of its z.

    Args:
        z_dim: numbers of a z.
    """

    def __init__(self, z_dim: int):
        super().__init__()
        widths = [3, 48, 96, 192, 256]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for b in widths[1:])
        self.hidden = nn.Linear(widths[-1] * (SIZE // 16) ** 2, 512)
        self.head = nn.Linear(512, 2 * z_dim)
        nn.init.zeros_(self.head.bias)
        self.head.weight.data[z_dim:] *= 0.1
        self.head.bias.data[z_dim:] = -3.0  # a small variance at first, so that the image depends on the code
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [N, 3, H, W] in [-1, 1] -> mean [N, Z], log variance [N, Z]."""
        x = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        x = x.contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        mean, variance = self.head(F.leaky_relu(self.hidden(x.flatten(1)), 0.2)).chunk(2, 1)
        return mean, variance.clamp(-8, 2)


def divergence(mean: Tensor, variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, exp(variance)) from the standard normal, mean over numbers: [N]."""
    return 0.5 * (mean.square() + variance.exp() - 1 - variance).mean(1)
