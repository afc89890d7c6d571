"""8-bit pictures as numbers in [-1, 1], and back: no other module converts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from selfscan.types import Array


def to_tensor(images: Array | Tensor, device: torch.device | str | None = None) -> Tensor:
    """Pictures as networks take them.

    Args:
        images: [..., H, W, 3] uint8. device: of the result; None = where the images are. The bytes move, not the
            floats.
    Returns: [..., 3, H, W] float32 in [-1, 1]; the channels are moved in the strides alone, as in channels_last.
    """
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.ascontiguousarray(images))
    return dequantize(images.to(device).movedim(-1, -3))


def to_uint8(images: Tensor) -> Array:
    """Pictures as files take them.

    Args:
        images: [..., 3, H, W] in [-1, 1], on any device.
    Returns: [..., H, W, 3] uint8.
    """
    return quantize(images).movedim(-3, -1).cpu().numpy()


def dequantize(values: Tensor) -> Tensor:
    """Tensor of 0..255 of any shape -> float32 in [-1, 1]."""
    return values.float() / 127.5 - 1


def quantize(values: Tensor) -> Tensor:
    """Tensor of [-1, 1] of any shape -> uint8 of the nearest levels; what is beyond the range is clamped."""
    return ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
