"""Run work in a child process and kill it."""

import multiprocessing
import time
from collections.abc import Callable


def killed_after(seconds: float | None, work: Callable, *arguments) -> float:
    """Run work in a child process and kill it after some seconds (None = wait for the end); returns the seconds."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    start = time.monotonic()
    child.join(seconds)
    child.kill()
    child.join()
    return time.monotonic() - start
