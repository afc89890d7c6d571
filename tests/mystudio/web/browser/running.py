"""The studio's own server in a process, and the system's Chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT = 120  # s for a server to start on a busy machine


def chromium() -> str:
    """Path of Chromium; without it, the test is skipped."""
    found = os.environ.get("MYSTUDIO_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip(f"a real browser is needed: install {NAMES[0]}, or name one in MYSTUDIO_CHROMIUM")
    return found


def until(tab, expression: str, seconds: float = 30) -> None:
    """Wait for a truth of a page; its policy forbids what the browser's driver would do."""
    end = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


class Server:
    """`mystudio studio` on a folder. Args: port: 0 = any free one. worker: run the jobs, too."""

    def __init__(self, folder: Path, port: int = 0, worker: bool = False):
        self.folder = folder
        words = ["studio", str(folder), "--port", str(port), "--no-open", *([] if worker else ["--no-worker"])]
        self._log = folder.parent / f"server-{time.monotonic_ns()}.log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mystudio", *words],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        self.link = self._told()
        self.address = self.link.split("/?")[0]
        self.port = int(self.address.rpartition(":")[2])

    def _told(self) -> str:
        end = time.monotonic() + WAIT
        while time.monotonic() < end and self.process.poll() is None:
            if found := re.search(r"http://\S+token=\w+", self._log.read_text()):
                return found.group()
            time.sleep(0.1)
        raise AssertionError(f"the server did not start: {self._log.read_text()}")

    def said(self) -> str:
        """What it wrote after its address: errors."""
        return self._log.read_text().partition("Ctrl-C")[2].partition("\n")[2]

    def kill(self) -> None:
        """As the system does when memory runs out."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(2)
            self.process.wait(30)
