"""Start a worker in the background, which outlives the process that starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mystudio.errors import ArtifactBusy
from mystudio.jobs.place import JOBS, worker_file
from mystudio.jobs.store import Store
from mystudio.storage.locks import lock

IDLE = 600.0  # s without anything to do after which a worker in the background ends
#: the worker's program: it imports what this process imports, and nothing from the folder that it runs in
WORKER = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from mystudio.cli import main; main()"


def lives(studio: Path, token: str) -> bool:
    """Whether a worker lives: the system frees its lock when its process dies."""
    try:
        with lock(worker_file(studio, token)):
            return False
    except ArtifactBusy:
        return True


def start_worker(studio: Path, idle: float = IDLE) -> subprocess.Popen[bytes] | None:
    """Start a worker for a studio folder, unless one lives; its output goes to jobs/worker.log there.

    Args: idle: s without anything to do after which it ends.
    Returns: its process, which is not ended with this one; None = a worker lives already.
    Raises: BadQueue, OutputFailed: see ``Queue``.
    """
    store = Store(studio)
    try:
        with store.reading() as db:
            tokens = [row["token"] for row in db.execute("SELECT token FROM worker")]
    finally:
        store.close()
    if any(lives(studio, token) for token in tokens):
        return None
    words = ["jobs", "run", "--studio", str(studio), "--idle", f"{idle:g}"]
    with open(studio / JOBS / "worker.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps([path for path in sys.path if path]), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=studio,
            start_new_session=True,
        )
