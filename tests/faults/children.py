"""Commands of the studio in processes of their own, begun by forking one that has everything loaded.

``Studio`` talks to that process (this file, run as a program). A command begins within milliseconds there, has one
thread, and may suffer what ``suffering`` can do to it; it can be killed, stopped and waited for from here.
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
    """How a command ended."""

    code: int  # exit code; minus the signal if one ended it
    stdout: str
    stderr: str
    seconds: float  # of processor time
    steps: list[tuple[str, int, int]] = field(default_factory=list)  # what it told as progress
    files: list[str] = field(default_factory=list)  # its file operations, in order

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def sentence(self) -> str:
        """The one sentence of a failure; fails if it is not one."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and self.stderr.splitlines()[-1] == lines[0], self.stderr
        assert self.code == 1 and "Traceback" not in self.stderr and "should not happen" not in lines[0], self.stderr
        return lines[0].removeprefix("error: ")


class Running:
    """A command that was begun."""

    def __init__(self, studio: Studio, pid: int, place: Path):
        self._studio, self.pid, self._place = studio, pid, place

    def wait(self, seconds: float = 300.0) -> Ended | None:
        """How it ended; None if it was stopped (SIGSTOP), or has not ended after so many seconds."""
        told = self._studio.ask(wait=self.pid, seconds=seconds)
        if told["status"] is None:
            return None
        files = [self._place / name for name in ("out", "err", "steps", "files")]
        texts = [file.read_text(errors="replace") if file.exists() else "" for file in files]  # killed before it began
        steps = [(stage, done, total) for stage, done, total in map(json.loads, texts[2].splitlines())]
        return Ended(told["status"], texts[0], texts[1], told["seconds"], steps, texts[3].splitlines())

    def kill(self) -> Ended:
        """Kill it, whatever it does."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Studio:
    """The process that has everything loaded."""

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
        """One question, one answer."""
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def begin(self, *words, **fault) -> Running:
        """Begin a command; ``fault`` is what it suffers (``suffering.suffer``)."""
        self._count += 1
        place = Path(self._tmp.name) / str(self._count)
        place.mkdir()
        pid = self.ask(begin=[str(word) for word in words], place=str(place), fault=fault)["pid"]
        return Running(self, pid, place)

    def run(self, *words, **fault) -> Ended:
        """Run a command to its end, or until it is stopped by what it suffers."""
        return self.begin(*words, **fault).wait()

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait(20)
        self._server.stdout.close()
        self._tmp.cleanup()


def serve() -> None:
    """Load everything, then begin and watch what is asked for."""
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
