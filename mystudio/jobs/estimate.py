"""Time left, from this machine's own measured speed. Where there is no past job to compare with, it is not known."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from collections import deque
from collections.abc import Mapping, Sequence

from mystudio.jobs.kinds import variant
from mystudio.jobs.types import Work

RECENT = 5  # past jobs that count
KEPT = 50  # past jobs of a kind that are kept
SURE = 2.0  # s of a part of the work after which its own speed counts
SHORTEST = 10.0  # s over which a speed is measured at least


def machine() -> str:
    """Name what the speed depends on: this computer and its number of processors."""
    return f"{platform.node()}/{os.cpu_count()}"


def whole(db: sqlite3.Connection, work: Work) -> float | None:
    """Return how long a job would take, s: the median of the last done jobs of its kind and options; None = unknown."""
    rows = db.execute(
        "SELECT SUM(seconds) AS seconds FROM pace WHERE kind = ? AND variant = ? AND machine = ? AND whole"
        " GROUP BY job ORDER BY job DESC LIMIT ?",
        (work.kind, variant(work), machine(), RECENT),
    ).fetchall()
    seconds = sorted(row["seconds"] for row in rows)
    return float(seconds[len(seconds) // 2]) if seconds else None


def by_unit(db: sqlite3.Connection, work: Work) -> float | None:
    """Return how long a job takes for each step of its longest part, s: the median as in ``whole``; None = unknown."""
    rows = db.execute(
        "SELECT SUM(seconds) / MAX(units) AS seconds FROM pace WHERE kind = ? AND variant = ? AND machine = ? AND whole"
        " GROUP BY job HAVING MAX(units) > 0 ORDER BY job DESC LIMIT ?",
        (work.kind, variant(work), machine(), RECENT),
    ).fetchall()
    seconds = sorted(row["seconds"] for row in rows)
    return float(seconds[len(seconds) // 2]) if seconds else None


def units(db: sqlite3.Connection, job: int) -> int | None:
    """Return the steps of a done job's longest part; None = unknown."""
    (most,) = db.execute("SELECT MAX(units) FROM pace WHERE job = ? AND whole", (job,)).fetchone()
    return int(most) if most else None


def of_part(db: sqlite3.Connection, work: Work, stage: str, steps: int) -> float | None:
    """Return how long so many steps of a part take, s, from the last done job that had it; None = unknown."""
    past = _past(db, work, stage)
    return steps * past["seconds"] / past["units"] if past is not None and past["units"] else None


def later_parts(db: sqlite3.Connection, work: Work, stage: str, total: int) -> float | None:
    """Return how long the parts after ``stage`` take, s, from the last done job that had this part; None = unknown.

    A part is taken to grow as the current part did: with ``total`` against that job's number of steps.
    """
    past = _past(db, work, stage)
    if past is None:
        return None
    (seconds,) = db.execute(
        "SELECT COALESCE(SUM(seconds), 0) FROM pace WHERE job = ? AND position > ?", (past["job"], past["position"])
    ).fetchone()
    return float(seconds) * (total / past["units"] if total and past["units"] else 1.0)


def forecast(db: sqlite3.Connection, work: Work, size: int) -> float | None:
    """Return how long a job would take, s, from a trial; None = there was none. Args: size: px of the scan's images."""
    row = db.execute(
        "SELECT seconds FROM forecast WHERE kind = ? AND variant = ? AND machine = ? AND size = ?",
        (work.kind, variant(work), machine(), size),
    ).fetchone()
    return float(row["seconds"]) if row is not None else None


def keep_forecast(db: sqlite3.Connection, work: Work, size: int, seconds: float) -> None:
    """Keep the result of a trial."""
    db.execute(
        "INSERT OR REPLACE INTO forecast VALUES (?, ?, ?, ?, ?, ?)",
        (work.kind, variant(work), machine(), size, seconds, time.time()),
    )


def _past(db: sqlite3.Connection, work: Work, stage: str) -> sqlite3.Row | None:
    return db.execute(
        "SELECT * FROM pace WHERE kind = ? AND variant = ? AND machine = ? AND whole AND stage = ?"
        " ORDER BY job DESC LIMIT 1",
        (work.kind, variant(work), machine(), stage),
    ).fetchone()


def record(db: sqlite3.Connection, job: int, work: Work, spent: Mapping[str, Sequence[float]]) -> None:
    """Add the time of parts to what earlier runs of the job took.

    Args: spent: part -> (steps, s since the last record).
    """
    for stage, (units, seconds) in spent.items():
        db.execute(
            "INSERT INTO pace (job, position, stage, kind, variant, machine, units, seconds) VALUES"
            " (?, (SELECT COUNT(*) FROM pace WHERE job = ?), ?, ?, ?, ?, ?, ?) ON CONFLICT (job, stage) DO UPDATE SET"
            " units = MAX(units, excluded.units), seconds = seconds + excluded.seconds",
            (job, job, stage, work.kind, variant(work), machine(), units, seconds),
        )


def close(db: sqlite3.Connection, job: int, work: Work) -> None:
    """Let the times of a done job count, and drop those of the oldest ones."""
    db.execute("UPDATE pace SET whole = 1 WHERE job = ?", (job,))
    db.execute(
        "DELETE FROM pace WHERE whole AND kind = ? AND job NOT IN"
        " (SELECT DISTINCT job FROM pace WHERE whole AND kind = ? ORDER BY job DESC LIMIT ?)",
        (work.kind, work.kind, KEPT),
    )


class Speed:
    """The speed of one part of the work, over its last half: what was loaded from checkpoints soon stops counting.

    Args: begin: time at which it began, s.
    """

    def __init__(self, begin: float):
        self._begin = begin
        self._points: deque[tuple[float, int]] = deque()

    def left(self, now: float, done: int, total: int) -> float | None:
        """Take a report of ``done`` steps; return the time left of the part, s; None = not known yet."""
        points = self._points
        points.append((now, done))
        window = max(SHORTEST, (now - self._begin) / 2)
        while len(points) > 2 and points[1][0] <= now - window:
            points.popleft()
        if total and done >= total:
            return 0.0
        (first, before) = points[0]
        if not total or done <= before or now - first < SURE:
            return None
        return (total - done) * (now - first) / (done - before)
