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
