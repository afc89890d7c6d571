"""What a worker does with the queue: claim jobs, store their progress and end, and take over from dead workers."""

from __future__ import annotations

import os
import platform
import secrets
import sqlite3
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mystudio.errors import StudioError
from mystudio.jobs import estimate
from mystudio.jobs.launch import lives
from mystudio.jobs.place import worker_file
from mystudio.jobs.store import Store, changed
from mystudio.jobs.types import Job, State
from mystudio.storage.locks import lock

CRASHES = 3  # after which a job fails that got no further in between
AGAIN = 2.0  # s until a job that could not run is tried again
_CLAIM = """
SELECT id FROM job AS wanted WHERE state = 'waiting' AND not_before <= ? AND light = ?
AND NOT EXISTS (
    SELECT 1 FROM dependency JOIN job ON job.id = other WHERE dependency.job = wanted.id AND job.state != 'done'
)
AND NOT EXISTS (SELECT 1 FROM job WHERE state = 'running' AND out = wanted.out)
AND (SELECT COUNT(*) FROM job WHERE state = 'running' AND light = wanted.light) < ?
ORDER BY place, id LIMIT 1
"""


class NotOurs(StudioError):
    """A job that this worker ran is no longer its own: it was taken over, or its queue is another file."""


class Runs:
    """One worker's view of the queue. Jobs are its own from ``claim`` to ``end``."""

    def __init__(self, store: Store):
        self.store, self.token = store, secrets.token_hex(8)

    @contextmanager
    def working(self) -> Generator[None]:
        """Be listed as a worker. The lock shows others that it lives; the system frees it when the process dies."""
        with lock(worker_file(self.store.studio, self.token)):
            self.beat()
            try:
                yield
            finally:
                with self.store.writing() as db:
                    db.execute("DELETE FROM worker WHERE token = ?", (self.token,))

    def beat(self) -> None:
        """Give a sign of life."""
        now = time.time()
        with self.store.writing() as db:
            db.execute(
                "INSERT INTO worker VALUES (?, ?, ?, ?, ?) ON CONFLICT (token) DO UPDATE SET beat = excluded.beat",
                (self.token, os.getpid(), platform.node(), now, now),
            )
            db.execute("UPDATE job SET beat = ? WHERE state = 'running' AND worker = ?", (now, self.token))

    def take_over(self) -> list[int]:
        """Let jobs of dead workers wait again, or become what they were asked to; returns their numbers."""
        with self.store.reading() as db:
            known = {row["token"] for row in db.execute("SELECT token FROM worker")}
            known |= {row["worker"] for row in db.execute("SELECT worker FROM job WHERE state = 'running'")}
        dead = [token for token in known if token != self.token and not lives(self.store.studio, token)]
        taken: list[int] = []
        for token in dead:
            with self.store.writing() as db:
                for job in self.store.jobs(db, "state = 'running' AND worker = ?", (token,)):
                    _leave(db, job, job.asked or State.WAITING, note="its worker ended unexpectedly; it goes on")
                    taken.append(job.id)
                db.execute("DELETE FROM worker WHERE token = ?", (token,))
        return taken

    def claim(self, light: bool, most: int) -> Job | None:
        """Take the next job that can start; None = there is none, or as many of this weight run in the whole queue.

        Args: light: whether a light job is wanted. most: how many of this weight may run at once.
        """
        now = time.time()
        with self.store.writing() as db:
            row = db.execute(_CLAIM, (now, light, most)).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE job SET state = 'running', asked = NULL, worker = ?, tries = tries + 1, started = ?, beat = ?,"
                " ended = NULL, stage = '', done = 0, total = 0, stage_remaining = NULL, note = '', error = ''"
                " WHERE id = ?",
                (self.token, now, now, row["id"]),
            )
            changed(db, [row["id"]])
            return self.store.job(db, row["id"])

    def left_to_do(self) -> bool:
        """Whether a job runs, or waits for nothing but its turn; one behind a failed or paused job does not count."""
        with self.store.reading() as db:
            jobs = self.store.jobs(db, "state IN ('waiting', 'running')")
            open_ = {job.id for job in jobs}
            done = {row["id"] for row in db.execute("SELECT id FROM job WHERE state = 'done'")}
        while stuck := {job.id for job in jobs if job.id in open_ and not {*job.after} <= open_ | done}:
            open_ -= stuck
        return bool(open_)

    def progress(self, job: Job, facts: Mapping[str, Any] | None, spent: Mapping[str, Sequence[float]]) -> None:
        """Store what the child of a job reported.

        Args: facts: "stage", "done", "total" and "left" of the last report, or None. spent: see ``estimate.record``.
        Raises: NotOurs.
        """
        with self.store.writing() as db:
            self._check(db, job)
            self._spend(db, job, spent)
            if facts is not None:
                self._progress(db, job, facts)

    def _progress(self, db: sqlite3.Connection, job: Job, facts: Mapping[str, Any]) -> None:
        stage, done, total, part = facts["stage"], facts["done"], facts["total"], facts["left"]
        part = estimate.of_part(db, job.work, stage, max(total - done, 0)) if part is None else part
        later = estimate.later_parts(db, job.work, stage, total)
        whole = None if part is None or later is None else part + later
        db.execute(
            "UPDATE job SET stage = ?, done = ?, total = ?, remaining = ?, stage_remaining = ?, beat = ? WHERE id = ?",
            (stage, done, total, whole, part, time.time(), job.id),
        )
        changed(db, [job.id])

    def previewed(self, job: Job) -> None:
        """Announce that the preview of a job was replaced. Raises NotOurs."""
        with self.store.writing() as db:
            self._check(db, job)
            db.execute("UPDATE job SET preview = preview + 1 WHERE id = ?", (job.id,))
            changed(db, [job.id])

    def asked(self, job: Job) -> State | None:
        """Return what a running job was asked to become. Raises NotOurs."""
        with self.store.reading() as db:
            return self._check(db, job)

    def end(self, job: Job, how: str, error: str, spent: Mapping[str, Sequence[float]]) -> State:
        """Store the end of a run.

        Args:
            how: "done", "same" (the result was up to date), "failed", "busy" (another process writes the result),
                "stopped", or "crashed". error: one sentence. spent: see ``estimate.record``.
        Returns: the job's new state. Raises: NotOurs.
        """
        with self.store.writing() as db:
            asked = self._check(db, job)
            self._spend(db, job, spent)
            if how == "done":
                estimate.close(db, job.id, job.work)
            if how == "same":
                db.execute("DELETE FROM pace WHERE job = ? AND NOT whole", (job.id,))
            if how in ("done", "same"):
                return _leave(db, job, State.DONE)
            if how == "failed":
                return _leave(db, job, State.FAILED, error=error)
            if how == "busy":
                return _leave(db, job, asked or State.WAITING, note=error, later=AGAIN)
            if how == "crashed" and asked is None:
                return self._crashed(db, job, error)
            return _leave(db, job, asked or State.WAITING)

    def _crashed(self, db: sqlite3.Connection, job: Job, error: str) -> State:
        part, done, crashes, last_part, last_done = db.execute(
            "SELECT COALESCE((SELECT position FROM pace WHERE pace.job = job.id AND pace.stage = job.stage), -1), done,"
            " crashes, crash_part, crash_done FROM job WHERE id = ?",
            (job.id,),
        ).fetchone()
        if (part, done) > (last_part, last_done):
            crashes, last_part, last_done = 0, part, done
        crashes += 1
        db.execute(
            "UPDATE job SET crashes = ?, crash_part = ?, crash_done = ? WHERE id = ?",
            (crashes, last_part, last_done, job.id),
        )
        if crashes < CRASHES:
            return _leave(db, job, State.WAITING, note=f"{error}; it goes on", later=AGAIN * (crashes - 1))
        return _leave(
            db,
            job,
            State.FAILED,
            error=f"{error}, {crashes} times at one place; close other programs if memory is short, and retry the job",
        )

    def _check(self, db: sqlite3.Connection, job: Job) -> State | None:
        """Return what a job was asked. Raises NotOurs."""
        row = db.execute(
            "SELECT asked FROM job WHERE id = ? AND state = 'running' AND worker = ?", (job.id, self.token)
        ).fetchone()
        if row is None:
            raise NotOurs(f"job {job.id} is no longer run by this worker")
        return State(row["asked"]) if row["asked"] else None

    def _spend(self, db: sqlite3.Connection, job: Job, spent: Mapping[str, Sequence[float]]) -> None:
        estimate.record(db, job.id, job.work, spent)
        seconds = sum(seconds for _, seconds in spent.values())
        db.execute("UPDATE job SET spent = spent + ? WHERE id = ?", (seconds, job.id))


def _leave(
    db: sqlite3.Connection, job: Job, state: State, error: str = "", note: str = "", later: float = 0.0
) -> State:
    """End a run; ``note``: why a waiting job waits, ``later``: s until it may start."""
    now = time.time()
    ended = now if state in (State.DONE, State.FAILED, State.CANCELLED) else None
    db.execute(
        "UPDATE job SET state = ?, asked = NULL, worker = '', beat = NULL, ended = ?, error = ?, note = ?,"
        " not_before = ?, stage_remaining = NULL, remaining = CASE WHEN ? THEN NULL ELSE remaining END WHERE id = ?",
        (state.value, ended, error, note, now + later if later else 0, state == State.DONE, job.id),
    )
    if state == State.DONE:
        db.execute("UPDATE job SET crashes = 0 WHERE id = ?", (job.id,))
    changed(db, [job.id])
    return state
