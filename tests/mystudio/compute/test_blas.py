"""OpenBLAS allocates its buffers early, while memory is available."""

import os
import subprocess
import sys

import pytest

from mystudio.compute import blas

CHILD = """
import resource, sys
import numpy as np
from mystudio.compute import blas
blas.reserve()
blas.reserve()
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (int(sys.argv[1]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
a = np.ones((64, 64))
np.linalg.svd(a @ a)  # with what was taken before
try:
    blas.reserve()
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits address spaces as Linux does")
def test_what_was_reserved_serves_where_there_is_no_more():
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, "4"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "expected 256 MB of address space for linear algebra, got none\n"


def test_reserving_is_cheap_the_second_time():
    import time

    blas.reserve()
    started = time.perf_counter()
    blas.reserve()
    assert time.perf_counter() - started < 1
