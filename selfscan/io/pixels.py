"""The only conversion between 8-bit pictures and tensors in [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from selfscan.types import Array


def to_tensor(images: Array | Tensor, device: torch.device | str | None = None) -> Tensor:
    """Convert pictures to a network's input.

    Args:
        images: [..., H, W, 3] uint8.
        device: of the result; None = the device of the images. The uint8 bytes are copied, which is less than floats.
    Returns: [..., 3, H, W] float32 in [-1, 1], a permuted view in channels_last order.
    """
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.ascontiguousarray(images))
    return dequantize(images.to(device).movedim(-1, -3))


def to_uint8(images: Tensor) -> Array:
    """Convert a network's output to pictures.

    Args:
        images: [..., 3, H, W] in [-1, 1], on any device.
    Returns: [..., H, W, 3] uint8.
    """
    return quantize(images).movedim(-3, -1).cpu().numpy()


def dequantize(values: Tensor) -> Tensor:
    """Tensor of 0..255 of any shape -> float32 in [-1, 1]."""
    return values.float() / 127.5 - 1


def quantize(values: Tensor) -> Tensor:
    """Tensor of [-1, 1] of any shape -> uint8, rounded to the nearest level; values outside the range are clamped."""
    return ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
