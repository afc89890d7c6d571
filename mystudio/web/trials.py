"""Trials: how long the first training takes here, measured by a process beside the server, once for each scan size."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from mystudio.jobs import Queue, State

PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from mystudio.cli import main; main()"


class Trials:
    """Measures in the background, one scan at a time; what could not be measured is not tried again.

    Args: queue: of the studio, which keeps the results. allowed: whether this server may run anything.
    """

    def __init__(self, queue: Queue, allowed: bool):
        self._queue, self._allowed, self._lock = queue, allowed, threading.Lock()
        self._tried: set[tuple[Path, str]] = set()
        self._child: subprocess.Popen[bytes] | None = None

    def begin(self, scan: Path, digest: str, recipes: Sequence[str]) -> bool:
        """Measure, if nothing is measured or at work; returns whether a trial is running.

        Args: digest: of the scan. recipes: names of the recipes.
        """
        with self._lock:
            if self._child is not None and self._child.poll() is None:
                return True
            if not self._allowed or (scan, digest) in self._tried or self._queue.jobs(State.RUNNING, State.WAITING):
                return False  # beside a job, or one that is about to start, it would be measured too slow
            self._tried.add((scan, digest))
            words = ["jobs", "estimate", str(scan), "--studio", str(self._queue.studio)]
            for recipe in recipes:
                words += ["--recipe", recipe]
            paths = json.dumps([path for path in sys.path if path])
            program, none = [sys.executable, "-c", PROGRAM, paths, *words], subprocess.DEVNULL
            self._child = subprocess.Popen(program, stdin=none, stdout=none, stderr=none)
            return True

    def stop(self) -> None:
        """End the process, because something better needs the processor; the next ``begin`` measures again."""
        with self._lock:
            if self._child is not None and self._child.poll() is None:
                self._child.kill()
                self._child.wait()
                self._tried.clear()
