"""Throughput of base training against a plain float32 StyleGAN2 with the same weights, in the same run.

The reference follows the papers literally: grouped convolutions with weights modulated for each sample, filters after
zero insertion, unfused operations, NCHW. Both do one update of the generator and one of the discriminator.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.base.data import Batch
from mystudio.base.objectives import discriminator_loss, generator_loss
from mystudio.base.settings import AdversarialSettings, BaseSettings, ModelSettings
from mystudio.base.trainer import Trainer
from mystudio.stylegan2.discriminator import Discriminator
from mystudio.stylegan2.generator import Block, Generator
from selfscan.io.pixels import to_tensor


@dataclass(frozen=True)
class TrainingCase:
    """What is measured."""

    model: ModelSettings = field(default_factory=ModelSettings)
    batch: int = 16  # images per step
    steps: int = 5  # measured steps, after the same number of warm-up steps
    precision: str = "auto"  # precision of mystudio's training; the reference is float32


def measure(case: TrainingCase, device: torch.device) -> dict[str, float]:
    """Measure images per second of mystudio and of the reference, without regularisers and augmentation.

    Returns: {"ours": images/s, "reference": images/s, "times": ratio}.
    """
    settings = BaseSettings(
        case.model,
        adversarial=AdversarialSettings(batch=case.batch, wait_kimg=0, r1_every=0, path_every=0, noise="none"),
    )
    settings = replace(settings, train=replace(settings.train, precision=case.precision))
    size = case.model.resolution
    images = np.random.default_rng(0).integers(0, 256, (case.batch, size, size, 3), np.uint8)
    none = np.zeros(case.batch, bool)
    batch = Batch(images, np.zeros((case.batch, 0), np.float32), none, 0)
    trainer = Trainer(settings, device)
    trainer.enter("adversarial")
    ours = _images_per_s(lambda: trainer.step(batch), case, device)
    plain = Trainer(settings, device)
    plain.enter("adversarial")
    step = reference_step(plain.g, plain.d, plain.adams, torch.from_numpy(images), device)
    reference = _images_per_s(step, case, device)
    return {"ours": ours, "reference": reference, "times": ours / reference}


def reference_step(
    g: Generator, d: Discriminator, adams: dict, images: Tensor, device: torch.device
) -> Callable[[], None]:
    """Return a function that does one plain training step of both networks."""
    real = to_tensor(images, device).contiguous()

    def draw() -> Tensor:
        return g.broadcast(g.mapping(torch.randn(len(real), g.z_dim, device=device)))

    def step() -> None:
        adams["g"].zero_grad()
        generator_loss(reference_discriminator(d, reference_synthesis(g, draw()))).mean().backward()
        adams["g"].step()
        adams["d"].zero_grad()
        with torch.no_grad():
            fake = reference_synthesis(g, draw())
        loss = discriminator_loss(reference_discriminator(d, real), reference_discriminator(d, fake))
        loss.mean().backward()
        adams["d"].step()

    return step


def reference_synthesis(g: Generator, ws: Tensor) -> Tensor:
    """Draw images [N, 3, H, W] from W+ [N, L, D] by grouped convolutions, without noise."""
    styles = iter(g.styles(ws).vectors)
    first, *larger = g.synthesis.blocks()
    x = _layer(first.const.contiguous()[None].repeat(len(ws), 1, 1, 1), first.conv1, next(styles))
    image = _to_rgb(x, first, next(styles))
    for block in larger:
        x = _layer(x, block.conv0, next(styles))
        x = _layer(x, block.conv1, next(styles))
        image = _to_rgb(x, block, next(styles)) + _filtered(_spread(image), block.resample_filter * 4, 2, 1)
    return image


def _to_rgb(x: Tensor, block: Block, style: Tensor) -> Tensor:
    rgb = _modulated(x, block.torgb.weight, style * block.torgb.weight_gain, demodulate=False)
    return rgb + block.torgb.bias[:, None, None]


def reference_discriminator(d: Discriminator, x: Tensor) -> Tensor:
    """Return logits [N] of images [N, 3, H, W], computed with unfused operations."""
    for r in d.resolutions:
        block = getattr(d, f"b{r}")
        if r == d.resolution:
            x = _convolved(x, block.fromrgb)
        skip = _filtered(x, block.skip.resample_filter, 1, 1)[:, :, ::2, ::2]
        skip = _convolved(skip, block.skip)
        x = _convolved(x, block.conv0)
        x = (skip + _convolved(_filtered(x, block.conv1.resample_filter, 2, 2), block.conv1, stride=2)) * math.sqrt(0.5)
    size = next(k for k in range(min(d.b4.group, len(x)), 0, -1) if len(x) % k == 0)
    y = x.view(size, -1, *x.shape[1:])
    deviation = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3)).repeat(size)
    x = torch.cat([x, deviation[:, None, None, None].expand(-1, 1, 4, 4)], 1)
    return d.b4.out(d.b4.fc(_convolved(x, d.b4.conv).flatten(1)))[:, 0]


def _layer(x: Tensor, layer, style: Tensor) -> Tensor:
    x = _modulated(x, layer.weight, style, demodulate=True, up=layer.up)
    if layer.up:
        x = _filtered(x, layer.resample_filter * 4, 1, 1)
    return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * math.sqrt(2)


def _modulated(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool = False) -> Tensor:
    """Convolve each sample with its own modulated weights as one group (arXiv 1912.04958, equations 1 and 3)."""
    n, channels, height, width = x.shape
    weight = weight.contiguous()[None] * style[:, None, :, None, None]
    if demodulate:
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, n * channels, height, width)
    if up:
        x = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    else:
        x = F.conv2d(x, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
    return x.view(n, -1, *x.shape[2:])


def _convolved(x: Tensor, layer, stride: int = 1) -> Tensor:
    padding = layer.weight.shape[-1] // 2 if stride == 1 else 0
    x = F.conv2d(x, layer.weight.contiguous() * layer.weight_gain, layer.bias, stride, padding)
    return F.leaky_relu(x, 0.2) * math.sqrt(2) if layer.activation else x


def _spread(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return F.pad(x.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)


def _filtered(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    x = F.pad(x, (before, after, before, after))
    return F.conv2d(x, kernel.flip((0, 1)).expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def _images_per_s(step: Callable[[], object], case: TrainingCase, device: torch.device) -> float:
    for _ in range(case.steps):
        step()
    return case.batch / wall(step, device, case.steps)


def wall(work: Callable[[], object], device: torch.device, rounds: int = 1) -> float:
    """Return wall-clock seconds per call, including all work queued on the device."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(rounds):
        work()
    _wait(device)
    return (time.perf_counter() - started) / rounds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
