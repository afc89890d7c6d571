"""Building blocks of StyleGAN2 (Karras et al., arXiv 1912.04958), without grouped convolutions or compiled code.

Modulation scales activations instead of weights: conv(W s, x) = conv(W, s x), so a batch needs only one convolution.
Parameter names and shapes are the official generator's, so that its weights load without conversion.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN = math.sqrt(2)  # factor after every leaky ReLU


def drawn(*shape: int) -> Tensor:
    """Standard normal numbers [*shape]; on the meta device a shape alone: drawing there imports the compiler."""
    return torch.empty(shape) if torch.get_default_device().type == "meta" else torch.randn(shape)


def fir_kernel(taps: tuple[float, ...] = (1, 3, 3, 1)) -> Tensor:
    """Normalised separable low-pass filter [4, 4], equal to the official ``resample_filter`` buffers."""
    f = np.outer(taps, taps)
    return torch.tensor((f / f.sum()).tolist())  # no arithmetic in torch, as for the weights of ``FullyConnected``


def blur(x: Tensor, kernel: Tensor, padding: tuple[int, int], gain: float = 1.0, stride: int = 1) -> Tensor:
    """Filter each channel of ``x`` [N, C, H, W] with ``kernel`` [k, k], zero padded (before, after)."""
    c, pad = x.shape[1], padding[0]
    if padding[0] != padding[1]:
        x, pad = F.pad(x, (padding[0], padding[1]) * 2), 0
    weight = (kernel * gain).flip((0, 1)).to(x.dtype).expand(c, 1, -1, -1)
    return F.conv2d(x, weight, stride=stride, padding=pad, groups=c)


def upsample_image(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the size of ``x`` [N, C, H, W]: zero insertion and low-pass, as the skip connection of toRGB."""
    n, c, h, w = x.shape
    taps = kernel * 4
    weight = taps.flip((0, 1)).to(x.dtype).expand(c, 1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=c)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate; names ``weight`` and ``bias`` as in the official code."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
        activation: bool = False,
    ):
        super().__init__()
        weight = drawn(out_features, in_features)
        # arithmetic on the meta device imports torch's compiler: two seconds for the shapes of a generator
        self.weight = nn.Parameter(weight if weight.is_meta else weight / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return F.leaky_relu(y, 0.2) * math.sqrt(2) if self.activation else y


class _ScaledAndShifted(torch.autograd.Function):
    """offset + x [N, C, H, W] * scale [N, C, 1, 1], differentiable twice; offset [1, C, 1, 1], [1, C, H, W] or as x.

    The gradient of the offset is written by hand for speed. On a CPU torch sums channels_last images over the batch 60
    times slower than over pixels. That took a fifth of the time of a forward and backward pass.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.shape = offset.shape
        return torch.addcmul(offset, x, scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        shared = _batch_sum(grad) if ctx.shape[0] == 1 else grad
        return grad * scale, (grad * x).sum((2, 3), keepdim=True), shared.sum_to_size(ctx.shape)


def _batch_sum(x: Tensor) -> Tensor:
    """x [N, ...] -> [1, ...], summed in float32 at least."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x.sum(0, keepdim=True)
    total, *rest = x.split(1)
    total = total.to(torch.promote_types(x.dtype, torch.float32), copy=True)
    for part in rest:
        total.add_(part)
    return total.to(x.dtype)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, demodulated, with noise, bias and leaky ReLU; optionally doubles the size.

    The official gain sqrt(2) after the leaky ReLU is applied by the next layer, as part of its style. This saves one
    pass over the pixels. ``gain`` is the outstanding gain of the layer's input.
    """

    noise_const: Tensor  # [resolution, resolution]
    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, up: bool = False):
        super().__init__()
        self.resolution, self.up = resolution, up
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(drawn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", drawn(resolution, resolution))
        self.register_buffer("resample_filter", fir_kernel())

    def forward(
        self,
        x: Tensor,
        style: Tensor,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
        gain: float = GAIN,
        delta: Tensor | None = None,
    ) -> Tensor:
        """x [N, C, h, w] without its gain, style [N, C] -> [N, C', H, W] without its gain.

        ``delta`` [N or 1, C', C] changes the weights W to W (1 + delta), equally for all taps of a filter.
        """
        if delta is not None and len(delta) > 1:  # each image has its own weights, so each needs its own pass
            rows = zip(x.split(1), style.split(1), delta.split(1))
            return torch.cat([self(a, s, noise_mode, generator, gain, d) for a, s, d in rows])
        weight, alone = _changed(self.weight, delta), len(x) == 1
        demod = torch.rsqrt(style.square() @ weight.square().sum((2, 3)).t() + 1e-8)
        if alone:  # for one image it is cheaper to scale the weights than the pixels
            weight = weight * (demod.t() * (style * gain))[..., None, None]
        else:
            x = x * (style * gain)[:, :, None, None].to(x.dtype)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1).to(x.dtype), stride=2)
            x = blur(x, self.resample_filter, (1, 1), gain=4.0)
        else:
            x = F.conv2d(x, weight.to(x.dtype), padding=1)
        offset = self.bias[None, :, None, None]
        if noise_mode == "const":
            offset = offset + self.noise_const * self.noise_strength
        elif noise_mode == "random":
            shape = (len(x), 1, self.resolution, self.resolution)
            noise = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
            offset = offset + noise * self.noise_strength
        offset = offset.to(x.dtype, memory_format=torch.channels_last)
        made = x + offset if alone else _ScaledAndShifted.apply(x, demod[:, :, None, None].to(x.dtype), offset)
        return F.leaky_relu_(made, 0.2)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels, not demodulated."""

    def __init__(self, in_channels: int, w_dim: int):
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(drawn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, style: Tensor, delta: Tensor | None = None) -> Tensor:
        """x [N, C, H, W] without its gain, style [N, C] -> [N, 3, H, W]; ``delta`` as for ``SynthesisLayer``."""
        if delta is not None and len(delta) > 1:
            return torch.cat([self(a, s, d) for a, s, d in zip(x.split(1), style.split(1), delta.split(1))])
        x = x * (style * (self.weight_gain * GAIN))[:, :, None, None].to(x.dtype)
        return F.conv2d(x, _changed(self.weight, delta).to(x.dtype), self.bias.to(x.dtype))


def _changed(weight: Tensor, delta: Tensor | None) -> Tensor:
    """W (1 + delta) of weights [C', C, k, k] and a delta [1, C', C]."""
    return weight if delta is None else weight * (1 + delta[0, :, :, None, None])
