"""torch.compile with a fall-back to the plain network, and the generator's forward pass for drawing images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mystudio.compute.device import feature_dtype

Precision = Literal["auto", "float32", "bfloat16"]  # of feature maps; auto = bfloat16 if the hardware is fast in it
Compile = Literal["no", "yes", "graphs"]  # torch.compile; "graphs" also records CUDA graphs (on a CPU it equals "yes")
log = logging.getLogger(__name__)


def drawer(
    forward: Callable[..., Tensor],
    device: torch.device,
    precision: Precision = "auto",
    how: Compile = "no",
    resolution: int | None = None,
) -> Callable[..., Tensor]:
    """A generator's forward pass for drawing images: constant noise, the given precision, optionally compiled.

    Args:
        forward: a ``Generator`` or its ``synthesize``. device: the generator's device.
        resolution: px at which synthesis stops and returns the skip image; None = the full size.
    Returns: W+ or styles -> images [B, 3, H, W] float32 in about [-1, 1].
    """
    dtype, warnings = feature_dtype(precision, device), []
    fast = compiled(forward, warnings, how)

    def draw(latents) -> Tensor:
        images = fast(latents, "const", None, resolution, dtype).float()
        while warnings:
            log.warning(warnings.pop())
        return images

    return draw


def compiled(net: Callable, warnings: list[str], how: Compile = "yes") -> Callable:
    """A network's compiled forward pass; if compiling fails, the plain one, and ``warnings`` gets a sentence."""
    if how == "no":
        return net
    if how == "yes" or not torch.cuda.is_available():
        return with_fallback(torch.compile(net), net, warnings)
    recorded = torch.compile(net, mode="reduce-overhead")
    return with_fallback(
        lambda *given: recorded(*given).clone(), net, warnings
    )  # the next replay overwrites its output


def with_fallback(fast: Callable, plain: Callable, warnings: list[str]) -> Callable:
    """A function that calls ``fast`` until it fails once, and ``plain`` from then on; ``warnings`` gets the error."""
    chosen = [fast]

    def call(*arguments):
        try:
            return chosen[0](*arguments)
        except Exception as error:  # the compiler raises many kinds of errors; ``plain`` raises genuine ones again
            if chosen[0] is plain:
                raise
            chosen[0] = plain
            warnings.append(f"compilation failed, continuing without: {' '.join(str(error).split())[:120]}")
            return plain(*arguments)

    return call
