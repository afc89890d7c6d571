"""The StyleGAN2 discriminator (residual architecture, arXiv 1912.04958, figure 7c), official parameter names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mystudio.stylegan2.layers import GAIN, FullyConnected, blur, fir_kernel

LOWEST = 16  # px: smaller feature maps, and the epilogue, stay float32, because they take little time
_RESIDUAL = math.sqrt(0.5)  # keeps the variance of a sum of two branches


class Convolution(nn.Module):
    """Convolution with equalised learning rate; optional low-pass and halving of the size, optional leaky ReLU."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        bias: bool = True,
        activation: bool = True,
        down: bool = False,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", fir_kernel())
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        self.activation, self.down = activation, down

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """x [N, C, H, W] -> [N, C', H, W], or [N, C', H / 2, W / 2]; the result is multiplied by ``gain``."""
        size = self.weight.shape[-1]
        if self.activation:
            gain = gain * GAIN  # leaky ReLU is homogeneous: its gain may be applied before it
        weight = (self.weight * (self.weight_gain * gain)).to(x.dtype, memory_format=torch.channels_last)
        bias = None if self.bias is None else (self.bias * gain).to(x.dtype)
        if self.down and size == 1:
            x = F.conv2d(blur(x, self.resample_filter, (1, 1), stride=2), weight, bias)
        elif self.down:
            x = F.conv2d(blur(x, self.resample_filter, (2, 2)), weight, bias, stride=2)
        else:
            x = F.conv2d(x, weight, bias, padding=size // 2)
        return F.leaky_relu_(x, 0.2) if self.activation else x


class Block(nn.Module):
    """One resolution: two convolutions, of which the second halves the size, plus a halved 1x1 skip connection."""

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__()
        self.register_buffer("resample_filter", fir_kernel())
        if in_channels == 0:
            self.fromrgb = Convolution(3, channels, 1)
        self.conv0 = Convolution(channels, channels, 3)
        self.conv1 = Convolution(channels, out_channels, 3, down=True)
        self.skip = Convolution(channels, out_channels, 1, bias=False, activation=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        return self.skip(x, _RESIDUAL) + self.conv1(self.conv0(x), _RESIDUAL)


class Epilogue(nn.Module):
    """The last layers, at 4 px: minibatch standard deviation, convolution, two fully connected layers."""

    def __init__(self, channels: int, group: int):
        super().__init__()
        self.group = group
        self.conv = Convolution(channels + 1, channels, 3)
        self.fc = FullyConnected(channels * 16, channels, activation=True)
        self.out = FullyConnected(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(with_minibatch_deviation(x, self.group))
        return self.out(self.fc(x.contiguous().flatten(1)))  # the weights expect the order C, H, W


class Discriminator(nn.Module):
    """StyleGAN2 residual discriminator.

    Args:
        resolution: px, a power of two from 8 up.
        channel_base, channel_max: a block of resolution r has min(channel_base // r, channel_max) channels.
        group: images over which the minibatch standard deviation is taken.
    """

    def __init__(self, resolution: int, channel_base: int = 32768, channel_max: int = 512, group: int = 4):
        super().__init__()
        if resolution < 8 or resolution & (resolution - 1):
            raise ValueError(f"expected a resolution that is a power of two from 8 up, got {resolution}")
        self.resolution = resolution
        self.resolutions = [2**i for i in range(int(math.log2(resolution)), 2, -1)]
        width = {r: min(channel_base // r, channel_max) for r in (*self.resolutions, 4)}
        for r in self.resolutions:
            self.add_module(f"b{r}", Block(width[r] if r < resolution else 0, width[r], width[r // 2]))
        self.b4 = Epilogue(width[4], group)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] -> logits [N]; positive means real.

        ``dtype`` is the type of feature maps of 16 px and more; all else has the type of the images.
        """
        x = images.contiguous(memory_format=torch.channels_last)
        for r in self.resolutions:
            x = x.to((dtype or images.dtype) if r >= LOWEST else images.dtype)
            x = getattr(self, f"b{r}")(x)
        return self.b4(x.to(images.dtype)).squeeze(1)


def with_minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append a channel with the standard deviation over the images of a group (arXiv 1710.10196, section 3).

    Sample i belongs to group i mod (N / G), as in the official code. So a strided share of a batch has the same groups.

    Args:
        x: [N, C, H, W]. group: G; if N is not a multiple of G, G becomes the largest smaller divisor of N.
    Returns: [N, C + 1, H, W].
    """
    n = len(x)
    size = next(g for g in range(min(group, n), 0, -1) if n % g == 0)
    y = x.unflatten(0, (size, -1))
    y = (y - y.mean(0)).square().mean(0)
    deviation = (y + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, deviation.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)
