"""Where things of a studio are on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from mystudio.errors import BadJob

VARIABLE = "MYSTUDIO_STUDIO"  # environment variable that names the studio folder
JOBS = "jobs"  # folder in the studio folder that holds everything of the queue


def studio_folder(given: str | Path | None = None) -> Path:
    """Return the studio folder: the given one, else ``$MYSTUDIO_STUDIO``, else ``~/mystudio``; it may not exist.

    Raises: BadJob: the user has no home, and no folder is named.
    """
    if named := given or os.environ.get(VARIABLE):
        return Path(os.path.realpath(Path(named).expanduser()))
    try:
        return Path(os.path.realpath(Path.home() / "mystudio"))
    except RuntimeError:
        raise BadJob(f"expected a studio folder, this user has no home; name one with --studio or {VARIABLE}") from None


def queue_file(studio: Path) -> Path:
    """Return the path of the queue."""
    return studio / JOBS / "jobs.sqlite"


def log_file(studio: Path, job: int) -> Path:
    """Return the path of a job's log."""
    return studio / JOBS / "logs" / f"{job}.log"


def preview_file(studio: Path, job: int) -> Path:
    """Return the path of a job's newest preview."""
    return studio / JOBS / "previews" / f"{job}.png"


def worker_file(studio: Path, token: str) -> Path:
    """Return the path whose lock a worker holds while it lives."""
    return studio / JOBS / "workers" / token


def stored(studio: Path, path: str | Path) -> str:
    """Return a path as the queue stores it: relative where it is in the studio folder, so that this can be moved."""
    text = str(path)
    whole = os.path.abspath(studio / text)
    inside = os.path.relpath(whole, studio) if Path(whole).is_relative_to(studio) else whole
    return f"{inside}{os.sep}" if text.endswith(os.sep) else inside


def found(studio: Path, text: str) -> str:
    """Return a stored path as an absolute one."""
    return os.path.join(studio, text)
