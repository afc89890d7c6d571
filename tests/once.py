"""What is made once in a run of the tests, for all its processes."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """Make a file or folder: the first process that asks makes it, the others wait and find it."""
    done = path.with_name(f"{path.name}.made")
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            if path.is_dir():  # what a process left that failed
                shutil.rmtree(path)
            make(path)
            done.touch()
    return path
