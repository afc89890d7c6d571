"""Work in a child process that is killed."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

from mystudio.storage.locks import lock


def killed_after(seconds: float | None, work: Callable, *arguments) -> float:
    """Run work in a child process and kill it after some seconds (None = wait for the end); returns the seconds."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    start = time.monotonic()
    child.join(seconds)
    child.kill()
    child.join()
    return time.monotonic() - start


def hold(path: Path, held, release) -> None:
    """Work of a child process: lock an artifact, set the event ``held``, and wait for the event ``release``."""
    with lock(path):
        held.set()
        release.wait(30)
