"""The queue's file in use: transactions, numbers of changes, and rows as jobs."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mystudio.errors import BadJob
from mystudio.jobs.place import found, log_file, preview_file, queue_file
from mystudio.jobs.schema import connect, told
from mystudio.jobs.types import Job, State, Work

ORDER = "ORDER BY place, id"


class Store:
    """One connection to a queue, for all threads of a process; a forked child must open its own.

    Args: studio: the studio folder; it is made where it is missing.
    Raises: BadQueue, OutputFailed: see ``schema.connect``.
    """

    def __init__(self, studio: Path):
        self.studio, self.file = studio, queue_file(studio)
        self._lock = threading.RLock()
        self._db = connect(self.file)
        self._which = _which(self.file)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Give the connection within one snapshot."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Give the connection within one transaction: all of it is stored or nothing."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str) -> Generator[sqlite3.Connection]:
        with self._lock, told(self.file):
            if _which(self.file) != self._which:  # moved away or removed while it was open
                self._db.close()
                self._db = connect(self.file)
                self._which = _which(self.file)
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def jobs(self, db: sqlite3.Connection, where: str = "1", values: Sequence[Any] = ()) -> list[Job]:
        """Read jobs, in the order of their places."""
        rows = db.execute(f"SELECT * FROM job WHERE {where} {ORDER}", values).fetchall()
        others = _others(db, [row["id"] for row in rows])
        return [self._job(row, others.get(row["id"], [])) for row in rows]

    def job(self, db: sqlite3.Connection, job: int) -> Job:
        """Read one job. Raises BadJob: there is none of this number."""
        if one := self.jobs(db, "id = ?", (job,)):
            return one[0]
        raise BadJob(f"there is no job {job}; `mystudio jobs list` shows all")

    def _job(self, row: sqlite3.Row, others: Sequence[sqlite3.Row]) -> Job:
        state = State(row["state"])
        inputs = {name: found(self.studio, path) for name, path in json.loads(row["inputs"]).items()}
        return Job(
            id=row["id"],
            work=Work(row["kind"], inputs, found(self.studio, row["out"]), json.loads(row["options"])),
            title=row["title"],
            state=state,
            asked=State(row["asked"]) if row["asked"] else None,
            light=bool(row["light"]),
            after=tuple(other["id"] for other in others),
            waits_for=(_waits_for(others) or row["note"]) if state == State.WAITING else "",
            stage=row["stage"],
            done=row["done"],
            total=row["total"],
            left=row["remaining"],
            stage_left=row["stage_remaining"],
            preview=preview_file(self.studio, row["id"]) if row["preview"] else None,
            error=row["error"],
            log=log_file(self.studio, row["id"]),
            worker=row["worker"],
            tries=row["tries"],
            added=row["added"],
            started=row["started"],
            ended=row["ended"],
            beat=row["beat"],
            spent=row["spent"],
            change=row["change"],
        )


def _which(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def changed(db: sqlite3.Connection, jobs: Iterable[int]) -> None:
    """Give the jobs a new number of change; jobs that wait for them get it too, because their reason changes."""
    db.execute("UPDATE counter SET change = change + 1")
    for job in jobs:
        db.execute(
            "UPDATE job SET change = (SELECT change FROM counter)"
            " WHERE id = ? OR id IN (SELECT job FROM dependency WHERE other = ?)",
            (job, job),
        )


def last_change(db: sqlite3.Connection) -> int:
    """Return the number of the last change."""
    (number,) = db.execute("SELECT change FROM counter").fetchone()
    return int(number)


def _others(db: sqlite3.Connection, jobs: Sequence[int]) -> dict[int, list[sqlite3.Row]]:
    """Job -> id and state of each job that it waits for."""
    found: dict[int, list[sqlite3.Row]] = {}
    where = "" if len(jobs) != 1 else f"WHERE dependency.job = {int(jobs[0])}"
    for row in db.execute(
        "SELECT dependency.job, job.id, job.state FROM dependency JOIN job ON job.id = dependency.other"
        f" {where} ORDER BY job.id"
    ):
        found.setdefault(row["job"], []).append(row)
    return found


def _waits_for(others: Sequence[sqlite3.Row]) -> str:
    """Say which job a waiting job waits for: one that does not go on by itself comes first."""
    words = {
        State.FAILED: "waits for job {}, which failed; retry that one, and this one follows",
        State.CANCELLED: "waits for job {}, which was cancelled; retry that one, and this one follows",
        State.PAUSED: "waits for job {}, which is paused; resume that one, and this one follows",
        State.RUNNING: "waits for job {}, which is running",
        State.WAITING: "waits for job {}",
    }
    for state, sentence in words.items():
        for other in others:
            if other["state"] == state.value:
                return sentence.format(other["id"])
    return ""
