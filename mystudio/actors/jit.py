"""numba, asked for in one place: compiled code is kept between runs, and lets other threads run."""

from __future__ import annotations

from functools import partial

from mystudio.errors import StudioError

try:
    import numba
except ImportError as error:
    raise StudioError("actors are drawn with numba, which is not installed; run `pip install 'mystudio[actors]'`"
                      ) from error

njit = partial(numba.njit, cache=True, fastmath=True, nogil=True, error_model="numpy")
inline = partial(numba.njit, cache=True, fastmath=True, nogil=True, error_model="numpy", forceinline=True)
