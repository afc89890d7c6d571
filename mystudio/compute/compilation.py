"""torch.compile where it works, and not where it does not; and the generator as pictures are drawn with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mystudio.compute.device import feature_dtype

Precision = Literal["auto", "float32", "bfloat16"]  # of feature maps; auto: bfloat16 where it is multiplied fast
Compile = Literal["no", "yes", "graphs"]  # torch.compile; "graphs" records CUDA graphs as well (on a CPU as "yes")
log = logging.getLogger(__name__)


def drawer(
    forward: Callable[..., Tensor], device: torch.device, precision: Precision = "auto", how: Compile = "no"
) -> Callable[..., Tensor]:
    """A generator's forward pass as pictures are drawn with it: constant noise, at a precision, compiled or not.

    Args:
        forward: a ``Generator`` or its ``synthesize``. device: where it is.
    Returns: W+ or styles -> images [B, 3, H, W] float32 in about [-1, 1].
    """
    dtype, remarks = feature_dtype(precision, device), []
    fast = compiled(forward, remarks, how)

    def draw(latents) -> Tensor:
        images = fast(latents, "const", None, None, dtype).float()
        while remarks:
            log.warning(remarks.pop())
        return images

    return draw


def compiled(net: Callable, remarks: list[str], how: Compile = "yes") -> Callable:
    """A network's forward pass, compiled; plain where compiling fails, which ``remarks`` then say."""
    if how == "no":
        return net
    if how == "yes" or not torch.cuda.is_available():
        return with_fallback(torch.compile(net), net, remarks)
    recorded = torch.compile(net, mode="reduce-overhead")
    return with_fallback(lambda *given: recorded(*given).clone(), net, remarks)  # the next replay overwrites its output


def with_fallback(fast: Callable, plain: Callable, remarks: list[str]) -> Callable:
    """A function that is ``fast`` until that fails once, and ``plain`` from then on."""
    chosen = [fast]

    def call(*arguments):
        try:
            return chosen[0](*arguments)
        except Exception as error:  # of the compiler's making, many kinds; the plain form tells the true ones again
            if chosen[0] is plain:
                raise
            chosen[0] = plain
            remarks.append(f"compilation failed, going on without: {' '.join(str(error).split())[:120]}")
            return plain(*arguments)

    return call
