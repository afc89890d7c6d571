"""The identity encoder: a feature pyramid that reads W+ off a picture, as e4e does (arXiv 2102.02766).

Layout and names are e4e's, so that weights which a user brings load without conversion; our own encoder is the same
with fewer and narrower layers. The code of the first layer is w0, and every other layer adds an offset to it.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COARSE, MIDDLE = 3, 7  # first layers that read the middle and the fine map of the pyramid
SLOPE = 0.01  # of the leaky ReLU in a style block, as in e4e
SQUEEZE = 16  # a channel gate has so many times fewer channels inside


@dataclass(frozen=True)
class PyramidShape:
    """Sizes of the identity encoder."""

    units: tuple[int, int, int, int] = (2, 2, 3, 2)  # residual units of each stage; a stage halves the size
    #   (e4e: 3, 4, 14, 3)
    channels: tuple[int, int, int, int] = (16, 48, 128, 256)  # of each stage (e4e: 64, 128, 256, 512)
    styles: int = 64  # channels inside a style block (e4e: 512)


E4E = PyramidShape((3, 4, 14, 3), (64, 128, 256, 512), 512)


class Gate(nn.Module):
    """Squeeze and excitation: a factor for each channel, from its mean."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, max(1, channels // SQUEEZE), 1, bias=False)
        self.fc2 = nn.Conv2d(max(1, channels // SQUEEZE), channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class Unit(nn.Module):
    """A residual unit of IR-SE (ArcFace, arXiv 1801.07698) with a channel gate."""

    def __init__(self, before: int, channels: int, stride: int):
        super().__init__()
        if before == channels:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            Gate(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate, with e4e's names."""

    def __init__(self, size: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, size))
        self.bias = nn.Parameter(torch.zeros(out))
        self.gain = 1 / math.sqrt(size)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias)


class StyleBlock(nn.Module):
    """A map [N, C, S, S] -> the code of one layer [N, D]: convolutions that halve S until it is 1."""

    def __init__(self, channels: int, inside: int, out: int, size: int):
        super().__init__()
        layers: list[nn.Module] = []
        for k in range(int(math.log2(size))):
            layers += [nn.Conv2d(inside if k else channels, inside, 3, 2, 1), nn.LeakyReLU(SLOPE)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(inside, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class Pyramid(nn.Module):
    """A picture -> W+ and the coarse map.

    Args:
        resolution: px of the picture, a power of two from 32 up. layers: L of W+. w_dim: D of W+. shape: sizes.
    """

    def __init__(self, resolution: int, layers: int, w_dim: int, shape: PyramidShape = PyramidShape()):
        super().__init__()
        if resolution < 32 or resolution & (resolution - 1):
            raise ValueError(f"resolution: expected a power of two from 32 up, got {resolution}")
        c = shape.channels
        self.input_layer = nn.Sequential(nn.Conv2d(3, c[0], 3, 1, 1, bias=False), nn.BatchNorm2d(c[0]), nn.PReLU(c[0]))
        self.body = nn.Sequential()
        before, self.ends = c[0], list[int]()
        for count, channels in zip(shape.units, c):
            for k in range(count):
                self.body.append(Unit(before, channels, 1 if k else 2))
                before = channels
            self.ends.append(len(self.body) - 1)
        sizes = (resolution // 16, resolution // 8, resolution // 4)
        self.styles = nn.ModuleList(
            StyleBlock(c[3], shape.styles, w_dim, sizes[(k >= COARSE) + (k >= MIDDLE)]) for k in range(layers)
        )
        self.latlayer1, self.latlayer2 = nn.Conv2d(c[2], c[3], 1), nn.Conv2d(c[1], c[3], 1)
        self.resolution, self.map_channels = resolution, c[3]
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, active: int | None = None) -> tuple[Tensor, Tensor]:
        """Offsets from the mean w, and the coarse map.

        Args:
            images: [N, 3, R, R] in [-1, 1]. active: layers that have an offset of their own; the rest uses w0.
                None = all. Training adds one after the other, so that W+ stays near W.
        Returns: [N, L, D], and [N, C, R / 16, R / 16].
        """
        x = self.input_layer(images.contiguous(memory_format=torch.channels_last))
        maps = []
        for k, unit in enumerate(self.body):
            x = unit(x)
            if k in self.ends[1:]:
                maps.append(x)
        fine, middle, coarse = maps
        features = coarse
        first = self.styles[0](coarse)
        codes = [first]
        last = len(self.styles) if active is None else min(active, len(self.styles))
        for k in range(1, len(self.styles)):
            if k >= last:
                codes.append(first)
                continue
            if k == COARSE:
                features = _grown(features, self.latlayer1(middle))
            elif k == MIDDLE:
                features = _grown(features, self.latlayer2(fine))
            codes.append(first + self.styles[k](features))
        return torch.stack(codes, 1), coarse


def _grown(x: Tensor, beside: Tensor) -> Tensor:
    """A map at twice the size, added to the finer one."""
    return F.interpolate(x, beside.shape[-2:], mode="bilinear", align_corners=True) + beside
