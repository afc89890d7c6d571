"""What jobs that were not added yet would take: seconds and bytes, from this machine's own done jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mystudio.errors import StudioError
from mystudio.jobs.queue import Queue
from mystudio.jobs.types import Job, State, Work
from mystudio.storage.manifest import open_folder
from selfscan.errors import SelfscanError
from selfscan.types import Span

BY_FRAME = ("reenact", "render")  # kinds whose work and result grow with the driving clip


@dataclass(frozen=True)
class Outlook:
    """What the jobs of one kind would take."""

    kind: str
    jobs: int
    frames: int | None  # of their driving clips; None = the work does not grow with a clip, or a clip is not there
    seconds: float | None  # of this machine; None = no job of this kind with these settings was done here
    bytes: int | None  # of the results; None = as above


def outlook(queue: Queue, works: Sequence[Work]) -> list[Outlook]:
    """Say what jobs would take, one row a kind, in the order of the work.

    Seconds and bytes are those of the newest done jobs of the same kind: for each frame of the clip, where the work
    grows with it, else for each job. One unknown job makes its row unknown.
    """
    rows: list[Outlook] = []
    lengths = _lengths(works)
    done = [job for job in queue.jobs(State.DONE) if job.out.exists()]
    done.sort(key=lambda job: job.ended or 0.0, reverse=True)
    sizes = {kind: next((job for job in done if job.work.kind == kind), None) for kind in {w.kind for w in works}}
    for kind in dict.fromkeys(work.kind for work in works):
        own = [work for work in works if work.kind == kind]
        frames = [lengths.get(str(work.out)) for work in own]
        seconds = [_seconds(queue, work, count) for work, count in zip(own, frames)]
        counts = [count for count in frames if count is not None]
        whole = sum(counts) if kind in BY_FRAME and len(counts) == len(own) else None
        known = [one for one in seconds if one is not None]
        rows.append(
            Outlook(kind, len(own), whole, sum(known) if len(known) == len(own) else None,
                    _bytes(queue, sizes[kind], len(own), whole))
        )  # fmt: skip
    return rows


def _lengths(works: Sequence[Work]) -> dict[str, int]:
    """Frames of the driving clip of each result: probed for a reenactment, and followed from take to take."""
    found: dict[str, int] = {}
    probed: dict[tuple[str, float, float | None], int | None] = {}
    for work in works:
        if work.kind == "reenact":
            key = str(work.inputs["video"]), work.options.get("start", 0.0), work.options.get("end")
            if key not in probed:
                probed[key] = _frames(*key)
            count = probed[key]
        else:
            count = found.get(str(work.inputs.get("take", "")))
        if count is not None:
            found[str(work.out)] = count
    return found


def _frames(clip: str, start: float, end: float | None) -> int | None:
    from selfscan.io import video

    try:
        return video.probe(clip, span=Span(start, end)).frames_estimate
    except (SelfscanError, OSError):
        return None


def _seconds(queue: Queue, work: Work, frames: int | None) -> float | None:
    if work.kind not in BY_FRAME:
        return queue.expected(work)
    pace = queue.pace(work)
    return None if pace is None or frames is None else pace * frames


def _bytes(queue: Queue, job: Job | None, jobs: int, frames: int | None) -> int | None:
    """Bytes of results, from the newest done job of the kind."""
    if job is None:
        return None
    size = size_of(job.out)
    if job.work.kind == "reenact":  # the clip's measurement lies beside the take
        try:
            size += size_of(open_folder(job.out, "take").source("performance"))
        except StudioError:
            return None
    if job.work.kind not in BY_FRAME:
        return size * jobs
    measured = queue.frames(job.id)
    return int(size * frames / measured) if measured and frames is not None else None


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(path) for name in names)
