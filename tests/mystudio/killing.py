"""Work in a process of its own that is killed."""

import multiprocessing
import time
from collections.abc import Callable


def killed_after(seconds: float | None, work: Callable, *arguments) -> float:
    """Do work in a child, kill it after so many seconds (None = when it is done); return the seconds it had."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    start = time.monotonic()
    child.join(seconds)
    child.kill()
    child.join()
    return time.monotonic() - start
