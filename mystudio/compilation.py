"""torch.compile where it works, and not where it does not."""

from __future__ import annotations

from collections.abc import Callable

import torch


def compiled(net: Callable, remarks: list[str]) -> Callable:
    """A network's forward pass, compiled; plain where compiling fails, which ``remarks`` then say."""
    return with_fallback(torch.compile(net), net, remarks)


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
