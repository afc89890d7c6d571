"""numba, asked for in one place: compiled code is kept between runs, and lets other threads run."""

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
#: for large functions with one place of call: merged into the caller by the optimiser
inline = partial(njit, forceinline=True)
#: for small functions of numbers: merged before anything else
splice = partial(njit, inline="always")
#: with a plain number in it, a sum or product of float32 goes on in float64
ONE = np.float32(1)
