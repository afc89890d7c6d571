"""The queue as its users see it: add, read, cancel, pause, resume, retry, order and follow jobs."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from mystudio.errors import BadJob
from mystudio.jobs import estimate, leftovers
from mystudio.jobs.kinds import Kind, check
from mystudio.jobs.place import found, log_file, preview_file, stored, studio_folder
from mystudio.jobs.store import Store, changed, last_change
from mystudio.jobs.types import ENDED, Changes, Job, Log, State, Work, Worker
from mystudio.storage.scan_inputs import CLIPS

LOG_PIECE = 1 << 18  # bytes of a log that one call returns at most
APART = 1e-6  # two places that are nearer are spread out


class Queue:
    """The jobs of a studio folder. Each call is one transaction; several processes may use the same queue.

    Args: studio: the studio folder (``studio_folder``); it is made where it is missing.
    Raises: BadQueue: the file is damaged or of a newer version. OutputFailed: it cannot be written. All calls may
        raise both.
    """

    def __init__(self, studio: str | Path | None = None):
        self.studio = studio_folder(studio)
        self._store = Store(self.studio)

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def add(
        self, work: Work, *, after: Iterable[int] = (), title: str = "", light: bool | None = None, first: bool = False
    ) -> Job:
        """Add a job at the end of the queue, or with ``first`` before the others.

        Args:
            work: what it does. An input that an unfinished job makes is waited for, without being named in ``after``.
            after: jobs that must be done before. light: may run beside a heavy job; None = as its kind.
        Raises: BadJob: the kind, a name or a value is wrong, an input is missing, or a job in ``after`` is unknown.
        """
        kind = check(work)
        inputs = {name: stored(self.studio, path) for name, path in work.inputs.items()}
        out = stored(self.studio, work.out)
        with self._store.writing() as db:
            others = {*after, *self._makers(db, kind, work.kind, inputs)}
            for other in others:
                self._store.job(db, other)
            (low, high) = db.execute("SELECT COALESCE(MIN(place), 0), COALESCE(MAX(place), 0) FROM job").fetchone()
            row = {
                "kind": work.kind,
                "inputs": json.dumps(inputs),
                "out": out,
                "options": json.dumps(dict(work.options)),
                "title": title,
                "light": kind.light if light is None else light,
                "place": low - 1 if first else high + 1,
                "state": State.WAITING.value,
                "remaining": estimate.whole(db, work),
                "added": time.time(),
                "change": 0,
            }
            marks = ", ".join(f":{name}" for name in row)
            job = db.execute(f"INSERT INTO job ({', '.join(row)}) VALUES ({marks})", row).lastrowid
            assert job is not None, "sqlite3 tells it after an INSERT"
            db.executemany("INSERT INTO dependency VALUES (?, ?)", [(job, other) for other in sorted(others)])
            changed(db, [job])
            return self._store.job(db, job)

    def _makers(self, db: sqlite3.Connection, kind: Kind, name: str, inputs: dict[str, str]) -> set[int]:
        """The unfinished jobs that make inputs. Raises BadJob: an input does not exist, and no job makes it."""
        makers: set[int] = set()
        for role, path in inputs.items():
            rows = db.execute(
                "SELECT id FROM job WHERE out = ? AND state IN ('waiting', 'running', 'paused')", (path,)
            ).fetchall()
            makers |= {row["id"] for row in rows}
            needed = role in kind.needs or role in CLIPS
            if needed and not rows and not Path(whole := found(self.studio, path)).exists():
                raise BadJob(f"{whole}: expected the {role} of {name}, found nothing, and no job of the queue makes it")
        return makers

    def jobs(self, *states: State) -> list[Job]:
        """Return all jobs, or those of some states, in the order in which waiting ones start."""
        with self._store.reading() as db:
            marks = ", ".join("?" for _ in states)
            return self._store.jobs(db, f"state IN ({marks})" if states else "1", [state.value for state in states])

    def job(self, job: int) -> Job:
        """Return one job. Raises BadJob: there is none of this number."""
        with self._store.reading() as db:
            return self._store.job(db, job)

    def pause(self, job: int) -> Job:
        """Let a job rest, waiting or running; a running one stops within seconds and keeps what is done."""
        return self._turn(job, State.PAUSED, (State.WAITING,), {None: State.PAUSED})

    def cancel(self, job: int) -> Job:
        """Stop a job; what is done stays beside its result, so ``retry`` continues it."""
        asks = {None: State.CANCELLED, State.PAUSED: State.CANCELLED}
        return self._turn(job, State.CANCELLED, (State.WAITING, State.PAUSED), asks)

    def resume(self, job: int) -> Job:
        """Let a paused job go on where it stopped, in its place of the queue."""
        return self._turn(job, State.WAITING, (State.PAUSED,), {State.PAUSED: None})

    def retry(self, job: int) -> Job:
        """Let a failed or cancelled job go on where it stopped; jobs that wait for it follow."""
        return self._turn(job, State.WAITING, (State.FAILED, State.CANCELLED), {State.CANCELLED: None})

    def _turn(self, job: int, goal: State, ways: Sequence[State], asks: Mapping[State | None, State | None]) -> Job:
        """Change the state of a job that does not run, or what a running one is asked for.

        Args: ways: states that may become ``goal``. asks: what a running job is asked for -> what it is asked for then.
        Raises: BadJob: unknown, or its state does not allow it.
        """
        with self._store.writing() as db:
            now = self._store.job(db, job)
            if now.state == State.RUNNING and now.asked in asks:
                asked = asks[now.asked]
                db.execute("UPDATE job SET asked = ? WHERE id = ?", (asked and asked.value, job))
            elif now.state in ways:
                ended = time.time() if goal in ENDED else None
                db.execute(
                    "UPDATE job SET state = ?, ended = ?, error = '', note = '', not_before = 0, crashes = 0"
                    " WHERE id = ?",
                    (goal.value, ended, job),
                )
            elif goal not in (now.state, now.asked):
                words = [state.value for state in (*ways, *([State.RUNNING] if None in asks else []))]
                raise BadJob(f"job {job} is {now.state}, expected one that is {' or '.join(words)}")
            changed(db, [job])
            return self._store.job(db, job)

    def move(self, job: int, before: int | None = None) -> Job:
        """Move a job before another one in the queue, or to its end. Raises BadJob: one of them is unknown."""
        with self._store.writing() as db:
            self._store.job(db, job)
            rest = [one.id for one in self._store.jobs(db) if one.id != job]
            if before is not None and before not in rest:
                self._store.job(db, before)
                return self._store.job(db, job)  # before itself
            spot = len(rest) if before is None else rest.index(before)
            places = {row["id"]: row["place"] for row in db.execute("SELECT id, place FROM job")}
            low = places[rest[spot - 1]] if spot else places[rest[0]] - 2 if rest else 0.0
            high = places[rest[spot]] if spot < len(rest) else low + 2
            db.execute("UPDATE job SET place = ? WHERE id = ?", ((low + high) / 2, job))
            if high - low < APART:
                order = [*rest[:spot], job, *rest[spot:]]
                db.executemany("UPDATE job SET place = ? WHERE id = ?", [(n + 1, one) for n, one in enumerate(order)])
            changed(db, [job])
            return self._store.job(db, job)

    def remove(self, job: int) -> None:
        """Remove an ended job with its log and preview from the queue; its result stays.

        If it did not finish, its checkpoints are deleted, unless another job continues them.

        Raises: BadJob: unknown, not ended, or another job waits for it.
        """
        with self._store.writing() as db:
            now = self._store.job(db, job)
            if now.state not in ENDED:
                raise BadJob(f"job {job} is {now.state}, expected one that has ended; cancel it first")
            waiting = db.execute(
                "SELECT job.id FROM dependency JOIN job ON job.id = dependency.job"
                " WHERE dependency.other = ? AND job.state IN ('waiting', 'paused')",
                (job,),
            ).fetchall()
            if waiting and now.state != State.DONE:
                raise BadJob(f"job {waiting[0]['id']} waits for job {job}; cancel that one first")
            others = self._store.jobs(db, "state != 'done' AND id != ?", (job,))
            changed(db, [job])
            db.execute("DELETE FROM job WHERE id = ?", (job,))
            db.execute("DELETE FROM pace WHERE job = ? AND NOT whole", (job,))
            db.execute("INSERT INTO removed SELECT ?, change FROM counter", (job,))
        for file in (log_file(self.studio, job), preview_file(self.studio, job)):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        if now.tries and now.state != State.DONE:
            leftovers.forget(now, others)

    def changes(self, since: int = 0) -> Changes:
        """Return the jobs that have changed after a number; 0 = all jobs. Asking is cheap where nothing happened."""
        with self._store.reading() as db:
            number = last_change(db)
            if number == since:
                return Changes(number, (), ())
            gone = db.execute("SELECT id FROM removed WHERE change > ? ORDER BY id", (since,)).fetchall()
            jobs = tuple(self._store.jobs(db, "change > ?", (since,)))
            return Changes(number, jobs, tuple(row["id"] for row in gone))

    def log(self, job: int, start: int = 0) -> Log:
        """Return a piece of a job's log from ``start`` bytes on; a negative one counts from the end."""
        file = self.job(job).log
        try:
            with open(file, "rb") as opened:
                size = opened.seek(0, 2)
                at = opened.seek(max(0, size + start) if start < 0 else min(start, size))
                data = opened.read(LOG_PIECE)
        except FileNotFoundError:
            return Log("", 0)
        return Log(data.decode("utf-8", "replace"), at + len(data))

    def workers(self) -> list[Worker]:
        """Return the workers; one that was killed is listed until another one starts or looks after the queue."""
        with self._store.reading() as db:
            return [Worker(**dict(row)) for row in db.execute("SELECT * FROM worker ORDER BY started")]

    def expected(self, work: Work) -> float | None:
        """Return how long a job would take, s, from past jobs of this machine; None = not known yet."""
        with self._store.reading() as db:
            return estimate.whole(db, work)

    def pace(self, work: Work) -> float | None:
        """Return how long a job takes for each frame, s, from past jobs of this machine; None = not known yet."""
        with self._store.reading() as db:
            return estimate.by_unit(db, work)

    def frames(self, job: int) -> int | None:
        """Return how many frames, or steps, the longest part of a done job had; None = not known."""
        with self._store.reading() as db:
            return estimate.units(db, job)

    def forecast(self, work: Work, size: int) -> float | None:
        """Return how long a job would take, s, from a trial of this machine; None = there was none.

        Args: size: px, side of the scan's images.
        """
        with self._store.reading() as db:
            return estimate.forecast(db, work, size)

    def keep_forecast(self, work: Work, size: int, seconds: float) -> None:
        """Keep the result of a trial; it replaces an earlier one, and pages learn of it."""
        with self._store.writing() as db:
            estimate.keep_forecast(db, work, size, seconds)
            changed(db, [])
