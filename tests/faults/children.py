"""Run commands in child processes that are forked from a server process with all modules loaded.

``Studio`` starts the server (this file, run as a program) and sends requests to it. A forked command starts within
milliseconds, has one thread, and can run with a fault from ``suffering``. It can be killed, stopped and waited for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
}


@dataclass(frozen=True)
class Ended:
    """The result of a command that ended."""

    code: int  # exit code; the negative signal number if a signal ended it
    stdout: str
    stderr: str
    seconds: float  # processor time
    steps: list[tuple[str, int, int]] = field(default_factory=list)  # its progress reports
    files: list[str] = field(default_factory=list)  # its file operations, in order

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def sentence(self) -> str:
        """Return the error message; fails if it is not a single sentence."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and self.stderr.splitlines()[-1] == lines[0], self.stderr
        assert self.code == 1 and "Traceback" not in self.stderr and "should not happen" not in lines[0], self.stderr
        return lines[0].removeprefix("error: ")


class Running:
    """A running command."""

    def __init__(self, studio: Studio, pid: int, place: Path):
        self._studio, self.pid, self._place = studio, pid, place

    def wait(self, seconds: float = 300.0) -> Ended | None:
        """Wait for the end; None if it was stopped (SIGSTOP) or is still running after so many seconds."""
        told = self._studio.ask(wait=self.pid, seconds=seconds)
        if told["status"] is None:
            return None
        files = [self._place / name for name in ("out", "err", "steps", "files")]
        texts = [file.read_text(errors="replace") if file.exists() else "" for file in files]  # killed at once
        steps = [(stage, done, total) for stage, done, total in map(json.loads, texts[2].splitlines())]
        return Ended(told["status"], texts[0], texts[1], told["seconds"], steps, texts[3].splitlines())

    def kill(self) -> Ended:
        """Kill the command and return its result."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Studio:
    """The server process, in which all modules are loaded."""

    def __init__(self, home: Path):
        self._tmp = tempfile.TemporaryDirectory(prefix="children-")
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "mystudio"), str(Path(__file__).parent)])
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": path, "MYSTUDIO_HOME": str(home)},
        )
        self.ask(ready=True)
        self._count = 0

    def ask(self, **question) -> dict:
        """Send a request and return the answer."""
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def begin(self, *words, **fault) -> Running:
        """Start a command; ``fault`` holds the arguments of ``suffering.suffer``."""
        self._count += 1
        place = Path(self._tmp.name) / str(self._count)
        place.mkdir()
        pid = self.ask(begin=[str(word) for word in words], place=str(place), fault=fault)["pid"]
        return Running(self, pid, place)

    def run(self, *words, **fault) -> Ended:
        """Run a command until it ends or a fault stops it."""
        return self.begin(*words, **fault).wait()

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait(20)
        self._server.stdout.close()
        self._tmp.cleanup()


def serve() -> None:
    """Load all modules, then start and watch the requested commands."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from suffering import load_everything

    load_everything()
    for line in sys.stdin:
        question = json.loads(line)
        told = {}
        if "begin" in question:
            told = {"pid": _fork(question)}
        elif "wait" in question:
            told = _wait(question["wait"], question["seconds"])
        answers.write(json.dumps(told) + "\n")
        answers.flush()


def _fork(question: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        from suffering import carry_out

        code = carry_out(question["begin"], Path(question["place"]), question["fault"])
    finally:
        os._exit(code)


def _wait(pid: int, seconds: float) -> dict:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status, used = os.wait4(pid, os.WNOHANG | os.WUNTRACED)
        if ended and os.WIFSTOPPED(status):
            break
        if ended:
            return {"status": os.waitstatus_to_exitcode(status), "seconds": used.ru_utime + used.ru_stime}
        time.sleep(0.002)
    return {"status": None}


if __name__ == "__main__":
    serve()
