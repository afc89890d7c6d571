"""The project's only import of numba. Compiled code is cached between runs and releases the GIL."""

from __future__ import annotations

from functools import partial

import numpy as np

from mystudio.errors import StudioError

try:
    import numba
except ImportError as error:
    raise StudioError(
        "actors are drawn with numba, which is not installed; run `pip install 'mystudio[actors]'`"
    ) from error

njit = partial(numba.njit, cache=True, fastmath=True, nogil=True, error_model="numpy")
#: for large functions with one call site: LLVM inlines them
inline = partial(njit, forceinline=True)
#: for small functions of numbers: numba inlines them before type inference
splice = partial(njit, inline="always")
#: a plain Python number would turn float32 sums and products into float64
ONE = np.float32(1)
