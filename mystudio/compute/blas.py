"""Memory for OpenBLAS, reserved at the start of a stage: where an allocation fails, OpenBLAS retries without end."""

from __future__ import annotations

import mmap

ROOM = 256 << 20  # bytes of address space: numpy's and scipy's libraries take 32 MB a thread each
SIDE = 256  # side of matrices whose product uses all threads of a library


def reserve() -> None:
    """Let numpy's and scipy's OpenBLAS allocate the memory that they keep. It costs milliseconds, once a process.

    Raises: MemoryError: there is no room for it; inside OpenBLAS the same failure would hang.
    """
    try:
        mmap.mmap(-1, ROOM).close()
    except OSError as error:
        raise MemoryError(f"expected {ROOM >> 20} MB of address space for linear algebra, got none") from error
    import numpy as np
    from scipy.linalg.blas import dgemm  # pyright: ignore[reportAttributeAccessIssue] - made by f2py, in no stub

    square = np.ones((SIDE, SIDE))
    np.matmul(square, square)
    np.linalg.svd(square[:3, :3])
    dgemm(1.0, square, square)
