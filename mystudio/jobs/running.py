"""A job whose child process runs: its reports, its preview, stopping it, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from mystudio.jobs.child import GRACE
from mystudio.jobs.types import Job
from mystudio.storage.journal import journal_of

MAX_PREVIEW = 16 << 20  # bytes
#: the child's program: it imports what this process imports, and nothing from the folder that it runs in
CHILD = "import sys; sys.path[:] = sys.argv[1:]; from mystudio.jobs.child import main; main()"


class Run(Protocol):
    """A job that a runner has started, here or elsewhere; ``Running`` is the one of this machine."""

    job: Job
    facts: Mapping[str, Any] | None
    spent: dict[str, tuple[int, float]]

    def read(self) -> None:
        """Take the reports that have come."""
        ...

    def taken(self) -> None:
        """Forget the reports that were stored."""
        ...

    def stop(self) -> None:
        """Ask the job to stop. To be called again until it has ended."""
        ...

    def kill(self) -> None:
        """End the job and what it has started."""
        ...

    def outcome(self) -> tuple[str, str] | None:
        """How the run ended, and its error, as ``Runs.end`` takes them; None = it has not ended."""
        ...

    def preview(self) -> bytes | None:
        """Return the newest picture that the stage has shown; None = none since the last call."""
        ...


#: starts a job, in the studio folder
Runner = Callable[[Job, Path], Run]


class Running:
    """The child of a job; it starts here.

    Args: studio: the folder in which it runs. share: of a pass (``selfscan.checkpoints.Share``), if it stops there.
    """

    def __init__(self, job: Job, studio: Path, share: Mapping[str, Any] | None = None):
        self.job = job
        self.facts: Mapping[str, Any] | None = None  # of the last report
        self.spent: dict[str, tuple[int, float]] = {}  # part of the stage -> steps, s; of all reports not yet taken
        self._end: Mapping[str, Any] | None = None
        self._outcome: tuple[str, str] | None = None
        self._stop_at, self._rest, self._seen = 0.0, b"", 0
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CHILD, *filter(None, sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                cwd=studio,
                start_new_session=True,  # Ctrl-C reaches the worker alone, which stops its children in order
            )
        assert self._process.stdin is not None and self._process.stdout is not None, "Popen makes both"
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._out.fileno(), False)
        work = job.work
        request = {"kind": work.kind, "inputs": work.inputs, "out": work.out, "options": work.options, "try": job.tries}
        request |= {"share": share} if share else {}
        with suppress(BrokenPipeError):  # killed at once
            self._in.write(json.dumps(request).encode() + b"\n")

    def read(self) -> None:
        """Take the reports that have come."""
        if self._out.closed:
            return
        with suppress(BlockingIOError):
            while data := os.read(self._out.fileno(), 1 << 16):
                self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for report in map(json.loads, lines):
            for part, (units, seconds) in report["spent"].items():
                before, so_far = self.spent.get(part, (0, 0.0))
                self.spent[part] = max(units, before), so_far + seconds
            if "end" in report:
                self._end = report
            else:
                self.facts = report

    def taken(self) -> None:
        """Forget the reports that were stored."""
        self.facts, self.spent = None, {}

    def stop(self) -> None:
        """Ask the child to stop; after ``GRACE`` it is killed. To be called again until it has ended."""
        now = time.monotonic()
        if not self._stop_at:
            self._stop_at = now + GRACE
            self._process.send_signal(signal.SIGINT)
        elif now > self._stop_at:
            self.kill()

    def kill(self) -> None:
        """End the child and what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def outcome(self) -> tuple[str, str] | None:
        """How the run ended, and its error, as ``Runs.end`` takes them; None = it has not ended."""
        if self._outcome is None and self._process.poll() is not None:
            self.read()
            self._in.close()
            self._out.close()
            self._outcome = self._told(self._process.returncode)
        return self._outcome

    def _told(self, code: int) -> tuple[str, str]:
        end = self._end["end"] if self._end else ""
        if self._end and end != "stopped":
            return "same" if end == "done" and self._end["same"] else end, self._end["error"]
        if self._stop_at:
            return "stopped", ""
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return "crashed", f"its process ended unexpectedly ({how if not end else 'it was interrupted'})"

    def preview(self) -> bytes | None:
        """Return the newest picture that the stage has shown; None = none since the last call."""
        content, self._seen = newest_picture(journal_of(self.job.out), self._seen)
        return content


def newest_picture(folder: Path, since: int) -> tuple[bytes | None, int]:
    """Return the newest PNG of a folder that is newer than ``since``, in ns, or None, and its time."""
    newest, when = None, since
    with suppress(OSError):  # the stage removes the folder when it is done
        for entry in os.scandir(folder):
            if entry.name.endswith(".png") and (shown := entry.stat().st_mtime_ns) > when:
                newest, when = Path(entry.path), shown
        if newest is not None and newest.stat().st_size <= MAX_PREVIEW:
            return newest.read_bytes(), when
    return None, since
