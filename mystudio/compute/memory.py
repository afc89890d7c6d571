"""Out of memory: catch it, free memory, and let the caller retry with less."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from mystudio.errors import memory_ran_out

Result = TypeVar("Result")


def attempt(work: Callable[[], Result], may_fail: bool) -> Result | None:
    """The result of ``work``; None if memory ran out, after the memory it held was freed.

    Args:
        may_fail: whether the caller can retry with less.
    Raises: MemoryError, torch.OutOfMemoryError, RuntimeError: memory ran out and ``may_fail`` is False; and what
        ``work`` raises.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not may_fail or not memory_ran_out(error):
            raise
    _give_back()
    return None


def _give_back() -> None:
    """Return freed memory to the system, so that other libraries can have it.

    glibc keeps freed memory for its own next requests. oneDNN takes memory for its machine code from the system. Where
    it gets none, it may call code that is not there, and the process dies (seen in its brgemm transposed convolution).
    """
    gc.collect()  # frees what the failed run held
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # None for other C libraries than glibc
    if trim is not None:
        trim(0)
