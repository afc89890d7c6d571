"""Time left, from this machine's own measured speed. Where there is no past job to compare with, it is not known."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence

from mystudio.jobs.kinds import variant
from mystudio.jobs.types import Work

RECENT = 5  # past jobs that count
KEPT = 50  # past jobs of a kind that are kept
SURE = 3.0  # s of a part of the work after which its own speed counts alone


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


def rest_of_part(done: int, total: int, first: int, seconds: float) -> float | None:
    """Return the time left of the current part, s; None = not known yet.

    Args:
        done, total: steps. first: steps that were done when this run began the part, loaded from checkpoints.
        seconds: since then.
    """
    if total and done >= total:
        return 0.0
    if not total or done <= first or seconds <= 0:
        return None
    return (total - done) * seconds / (done - first)


def later_parts(db: sqlite3.Connection, work: Work, stage: str, total: int) -> float | None:
    """Return how long the parts after ``stage`` take, s, from the last done job that had this part; None = unknown.

    A part is taken to grow as the current part did: with ``total`` against that job's number of steps.
    """
    past = db.execute(
        "SELECT job, position, units FROM pace WHERE kind = ? AND variant = ? AND machine = ? AND whole AND stage = ?"
        " ORDER BY job DESC LIMIT 1",
        (work.kind, variant(work), machine(), stage),
    ).fetchone()
    if past is None:
        return None
    (seconds,) = db.execute(
        "SELECT COALESCE(SUM(seconds), 0) FROM pace WHERE job = ? AND position > ?", (past["job"], past["position"])
    ).fetchone()
    return float(seconds) * (total / past["units"] if total and past["units"] else 1.0)


def record(db: sqlite3.Connection, job: int, work: Work, parts: Sequence[str], spent: Mapping[str, tuple[int, float]]):
    """Add the time of parts to what earlier runs of the job took.

    Args: parts: names in their order. spent: part -> (steps, s since the last record).
    """
    for stage, (units, seconds) in spent.items():
        db.execute(
            "INSERT INTO pace (job, position, stage, kind, variant, machine, units, seconds)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job, stage) DO UPDATE SET"
            " position = excluded.position, units = excluded.units, seconds = seconds + excluded.seconds",
            (job, parts.index(stage), stage, work.kind, variant(work), machine(), units, seconds),
        )


def close(db: sqlite3.Connection, job: int, work: Work) -> None:
    """Let the times of a done job count, and drop those of the oldest ones."""
    db.execute("UPDATE pace SET whole = 1 WHERE job = ?", (job,))
    db.execute(
        "DELETE FROM pace WHERE whole AND kind = ? AND job NOT IN"
        " (SELECT DISTINCT job FROM pace WHERE whole AND kind = ? ORDER BY job DESC LIMIT ?)",
        (work.kind, work.kind, KEPT),
    )
