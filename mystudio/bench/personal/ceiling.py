"""The ceiling: codes fitted directly to the true frames by pixels, as the best result possible with an avatar.

Codes are free on every layer, in the anchor space that the solver uses, and no prior limits them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mystudio.engines.personal.state import AXES, state_of
from mystudio.motion import losses
from mystudio.types import Avatar, Progress, Take, silent
from selfscan.io.pixels import to_uint8


@dataclass(frozen=True)
class FitSettings:
    """How codes are fitted to pixels."""

    steps: int = 60  # Adam steps
    rate: float = 0.08  # Adam's rate, in anchor standard deviations, with cosine decay
    perceptual: float = 1.0  # weight of the perceptual distance
    pixel: float = 1.0  # weight of the mean squared error
    batch: int = 8  # frames at once


def nearest(
    avatar: Avatar, take: Take, frames: np.ndarray, images: Tensor, perceptual, progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray]:
    """Fit codes to the true images of a take's frames, from the take's codes on, and draw them.

    Args:
        frames: [F] numbers of frames. images: [F, 3, H, H] in [-1, 1] on the device that fits.
    Returns: codes [F, L, K] and pictures [F, H, H, 3] uint8.
    """
    device, state = images.device, state_of(avatar)
    on_device = replace(state, anchors=state.anchors.to(device))
    fitted = replace(avatar, generator=avatar.generator.to(device), state=on_device)
    codes, _ = fit(fitted, images, take.codes[AXES][frames].to(device), perceptual, progress=progress)
    with torch.inference_mode():
        drawn = [to_uint8(fitted.generator(on_device.space.decode(part)).clamp(-1, 1)) for part in codes.split(8)]
    return codes.cpu().numpy(), np.concatenate(drawn)


def fit(
    avatar: Avatar,
    images: Tensor,
    start: Tensor,
    perceptual,
    settings: FitSettings = FitSettings(),
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:
    """Fit codes to images by pixels and perceptual distance, each frame separately.

    Args:
        avatar: its generator draws. images: [F, 3, H, H] in [-1, 1] at its resolution.
        start: [F, L, K] start codes. perceptual: ``selfscan.perceptual.metric.Perceptual``.
    Returns: the best codes found [F, L, K] and their loss [F]; never worse than the start.
    """
    codes, values = [], []
    for first in range(0, len(images), settings.batch):
        rows = slice(first, first + settings.batch)
        part = _fit_batch(avatar, images[rows], start[rows], perceptual, settings)
        codes.append(part[0])
        values.append(part[1])
        progress("ceiling", min(rows.stop, len(images)), len(images))
    return torch.cat(codes), torch.cat(values)


def _fit_batch(
    avatar: Avatar, images: Tensor, start: Tensor, perceptual, settings: FitSettings
) -> tuple[Tensor, Tensor]:
    space, generator = state_of(avatar).space, avatar.generator
    with torch.no_grad():
        aim = perceptual.embed(images)
    shared = start.mean(1, keepdim=True).clone().requires_grad_(True)
    offset = (start - start.mean(1, keepdim=True)).clone().requires_grad_(True)
    adam = torch.optim.Adam([shared, offset], lr=settings.rate, betas=(0.9, 0.99))
    best, kept = images.new_full((len(images),), math.inf), start.clone()
    for step in range(settings.steps + 1):
        codes = shared + offset
        made = generator(space.decode(codes))
        value = settings.perceptual * perceptual.distance_to(made, aim) + settings.pixel * losses.pixel(made, images)
        better = value.detach() < best
        best, kept = torch.where(better, value.detach(), best), torch.where(better[:, None, None], codes.detach(), kept)
        if step == settings.steps:
            break
        decay = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        adam.param_groups[0]["lr"] = settings.rate * (0.05 + 0.95 * decay)
        adam.zero_grad()
        value.sum().backward()
        adam.step()
    return kept, best
