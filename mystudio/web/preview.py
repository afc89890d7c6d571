"""Pictures of edits while a slider moves, from a process beside the server.

The process keeps takes and avatars loaded (``mystudio.web.drawing``). It ends by itself when nothing was asked for some
minutes, or when the server is gone, so that its memory is free again. A request that a newer one of the same page has
overtaken is not drawn.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mystudio.errors import StudioError
from selfscan.io.isolation import pipes, stop, wait_for

#: the process imports what the server imports, and nothing from the folder that it runs in
CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from mystudio.web.drawing import main; main()"
LONGEST = 120.0  # s for one answer, which may include reading an avatar from a slow disk
MOST_PAGES = 64  # whose newest request is remembered
CHUNK = 1 << 16  # bytes

Edits = Sequence[Mapping[str, Any]]


class _Gone(Exception):
    """The process ended, or did not answer in time."""


class Previews:
    """Asks the drawing process, one question at a time; it is started when it is needed.

    Args: idle: s without a question after which it ends.
    """

    def __init__(self, idle: float = 300.0):
        self._idle = idle
        self._child: subprocess.Popen[bytes] | None = None
        self._asking = threading.Lock()
        self._newest: dict[str, int] = {}  # page -> number of its newest request
        self._counting = threading.Lock()
        self._closed = False

    def open(self, take: Path) -> dict[str, Any]:
        """Load a take and its avatar.

        Returns: "directions": names, "times": s of every frame, "size": px of the whole picture.
        Raises: StudioError: they cannot be read, or memory ran out.
        """
        with self._asking:
            return self._ask({"do": "open", "take": str(take)})[0]

    def draw(
        self, take: Path, edits: Edits, frame: int, draft: bool, page: str = "", number: int = 0
    ) -> tuple[dict[str, Any], bytes] | None:
        """Draw a frame of a take with edits.

        Args:
            edits: as the job ``edit`` takes them. frame: from 0; a larger one than the last counts as the last.
            draft: a smaller picture will do where the whole one takes long.
            page, number: requests of one page count up; the older of two that wait is not drawn.
        Returns: "frame", "size" (px), "full" (whether this is the whole size), "seconds" and "processor" (s of
            processor time); and the picture as PNG. None: a newer request has arrived.
        Raises: StudioError: the edits or the take cannot be used, or memory ran out.
        """
        self._arrived(page, number)
        with self._asking:
            if self._newest.get(page, number) > number:
                return None
            wish = {"edits": list(edits), "frame": frame, "draft": draft}
            return self._ask({"do": "draw", "take": str(take), **wish})

    def close(self) -> None:
        """End the process, also while it draws."""
        self._closed = True
        if (child := self._child) is not None:
            child.kill()
        with self._asking:
            self._end()

    def _arrived(self, page: str, number: int) -> None:
        with self._counting:
            latest = max(number, self._newest.pop(page, number))
            self._newest[page] = latest  # the page that asked last is the last to be forgotten
            while len(self._newest) > MOST_PAGES:
                del self._newest[next(iter(self._newest))]

    def _ask(self, question: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Ask once more if the process ended: it ends while it is idle, and the system may end it."""
        for _ in range(0 if self._closed else 2):
            child = self._child = self._child or self._start()
            try:
                return self._answer(child, question)
            except (_Gone, OSError):
                self._end()
        raise StudioError(
            "the process that draws previews ended unexpectedly, twice; close other programs if memory is short, "
            "and try again"
        )

    def _answer(self, child: subprocess.Popen[bytes], question: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        questions, answers = pipes(child)
        rest = memoryview(json.dumps(question).encode() + b"\n")
        while rest:
            rest = rest[questions.write(rest) :]
        found = bytearray()
        while b"\n" not in found:
            found += self._more(answers.fileno(), answers)
        line, _, content = found.partition(b"\n")
        told = json.loads(line)
        if "error" in told:
            raise StudioError(told["error"]) if told["expected"] else RuntimeError(told["error"])
        while len(content) < told["bytes"]:
            content += self._more(answers.fileno(), answers)
        return told, bytes(content)

    def _more(self, handle: int, answers: Any) -> bytes:
        block = answers.read(CHUNK) if wait_for(handle, LONGEST) else b""
        if not block:
            raise _Gone
        return block

    def _start(self) -> subprocess.Popen[bytes]:
        paths = json.dumps([path for path in sys.path if path])
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, paths, str(self._idle)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is the server's; the process ends with it
        )

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with suppress(OSError):
                stop(child)
