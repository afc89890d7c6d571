"""Work that goes on with less when memory runs out."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from mystudio.errors import memory_ran_out

Result = TypeVar("Result")


def attempt(work: Callable[[], Result], may_fail: bool) -> Result | None:
    """What ``work`` returns; None where memory ran out, and what it held is free again.

    Args:
        may_fail: whether there is less to go on with.
    Raises: MemoryError, torch.OutOfMemoryError, RuntimeError: memory ran out and may not; and what ``work`` raises.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not may_fail or not memory_ran_out(error):
            raise
    _give_back()
    return None


def _give_back() -> None:
    """Hand freed memory back to the system, and not only to the next that asks the same library.

    glibc keeps what was freed for its own next requests, and the next may be another library's. oneDNN takes memory for
    its machine code from the system, keeps it, and where it gets none may call code that is not there (seen in its
    brgemm transposed convolution): the process dies.
    """
    gc.collect()  # only now is what a failed run held free
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # none where the C library is another
    if trim is not None:
        trim(0)
