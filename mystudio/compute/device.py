"""Which processor does the work."""

from __future__ import annotations

import torch

from mystudio.errors import StudioError

NAMES = ("auto", "cpu", "cuda")


def choose(name: str = "auto") -> torch.device:
    """Return the device for a name: "auto" takes a GPU where there is one.

    Raises: StudioError: a GPU was asked for and there is none that torch can use.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudioError("expected a CUDA device, torch finds none; use --device cpu, or see `mystudio doctor`")
    return torch.device(name)


def feature_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Type of the feature maps: a torch type by name, or "auto" for bfloat16 where the hardware multiplies in it."""
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    return torch.bfloat16 if fast else torch.float32
