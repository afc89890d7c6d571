"""Selection of the device and of the feature maps' type."""

from __future__ import annotations

import torch

from mystudio.errors import StudioError

NAMES = ("auto", "cpu", "cuda")


def choose(name: str = "auto") -> torch.device:
    """Return the device for a name; "auto" = a GPU if there is one, else the CPU.

    Raises: StudioError: a GPU was requested, but torch can use none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudioError("expected a CUDA device, torch finds none; use --device cpu, or see `mystudio doctor`")
    return torch.device(name)


def feature_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Type of the feature maps: a torch type by name; "auto" = bfloat16 if the hardware multiplies in it."""
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    return torch.bfloat16 if fast else torch.float32
