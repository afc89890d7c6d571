"""The worker: runs the jobs of a queue, each in a child process, and keeps the queue's file up to date.

Whatever is killed, the stages' own checkpoints stay. A killed child's job is started again. A killed worker's children
stop by themselves, and the next worker takes its jobs over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mystudio.errors import BadQueue, OutputFailed
from mystudio.jobs import leftovers
from mystudio.jobs.place import preview_file
from mystudio.jobs.running import Run, Runner, Running
from mystudio.jobs.runs import NotOurs, Runs
from mystudio.jobs.store import Store
from mystudio.jobs.types import Job, State
from mystudio.storage.journal import write_bytes

TICK = 0.2  # s between two looks at the queue
STORE = 1.0  # s between two stores of a job's progress
BEAT = 2.0  # s between two signs of life, and two looks for dead workers


class Worker:
    """Runs jobs until it is stopped, or nothing is left to do.

    Args:
        studio: the studio folder. tell: takes a job and what happened to it, in a word or a sentence.
        heavy, light: how many heavy and light jobs run at once, those of all workers of the queue together.
        runner: starts a job; by default in a child process of this machine.
    """

    def __init__(
        self, studio: Path, tell: Callable[[Job, str], None], heavy: int = 1, light: int = 1, runner: Runner = Running
    ):
        self._studio, self._tell, self._runner = studio, tell, runner
        self._store = Store(studio)
        self._runs = Runs(self._store)
        self._most = ((False, heavy), (True, light))
        self._running: list[Run] = []
        self._beat_at = self._store_at = 0.0
        self._full = False  # the queue's file cannot be written: its disk is full

    def run(self, stop: threading.Event, idle: float = 0.0) -> None:
        """Work until ``stop`` is set, or nothing was left to do for ``idle`` s; then the children are stopped.

        Raises: BadQueue: the queue's file is damaged. What is done stays.
        """
        try:
            with self._runs.working():
                try:
                    self._work(stop, idle)
                finally:
                    self._stop_all()
        finally:
            self._store.close()

    def _work(self, stop: threading.Event, idle: float) -> None:
        busy = time.monotonic()
        while not stop.is_set():
            try:
                self._look()
                self._full = False
            except OutputFailed as error:  # the children go on; their ends are stored when there is space
                if not self._running and not self._full:
                    raise
                if not self._full:
                    self._tell(self._running[0].job, str(error))
                self._full = True
            if self._running or self._full or self._runs.left_to_do():
                busy = time.monotonic()
            elif time.monotonic() - busy >= idle:
                return
            stop.wait(TICK)

    def _look(self) -> None:
        """Look once at the children and at the queue."""
        now = time.monotonic()
        if now >= self._beat_at:
            self._runs.beat()
            self._runs.take_over()
            self._beat_at = now + BEAT
        store = now >= self._store_at
        for running in [*self._running]:
            try:
                self._look_at(running, store)
            except NotOurs:
                running.kill()
                if running.outcome():
                    self._running.remove(running)
        if store:
            self._store_at = now + STORE
        self._start()

    def _look_at(self, running: Run, store: bool) -> None:
        running.read()
        if self._ended(running):
            self._running.remove(running)
            return
        if self._runs.asked(running.job):
            running.stop()
        if store and (running.facts or running.spent):
            self._runs.progress(running.job, running.facts, running.spent)
            running.taken()
        if store and (picture := running.preview()):
            self._show(running.job, picture)

    def _show(self, job: Job, picture: bytes) -> None:
        with suppress(OSError):  # a preview less
            file = preview_file(self._studio, job.id)
            file.parent.mkdir(exist_ok=True)
            write_bytes(file, picture)
            self._runs.previewed(job)

    def _start(self) -> None:
        for light, most in self._most:
            while job := self._runs.claim(light, most):
                try:
                    self._running.append(self._runner(job, self._studio))
                except OSError as error:  # no space for its log, or no memory for its process
                    self._runs.end(job, "crashed", f"its process could not be started ({error.strerror or error})", {})
                    break
                self._tell(job, "running")

    def _ended(self, running: Run) -> bool:
        """Store the end of a run; False = it has not ended. Raises NotOurs, OutputFailed, BadQueue."""
        if (ended := running.outcome()) is None:
            return False
        state = self._runs.end(running.job, *ended, running.spent)
        if state in (State.FAILED, State.CANCELLED):
            with suppress(OSError):
                leftovers.tidy(running.job)
        self._tell(running.job, f"{state}: {ended[1]}" if ended[1] else str(state))
        return True

    def _stop_all(self) -> None:
        """Stop the children; their jobs wait again. What cannot be stored now, the next worker stores."""
        while self._running:
            for running in self._running:
                running.stop()
                with suppress(NotOurs, OutputFailed, BadQueue):
                    self._ended(running)
            self._running = [running for running in self._running if not running.outcome()]
            time.sleep(TICK / 4)
