"""Checkpoints of a job that has not finished: kept for a retry, deleted when nobody can continue them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from glob import escape
from pathlib import Path

from mystudio.errors import ArtifactBusy, OutputFailed
from mystudio.jobs.types import Job
from mystudio.storage.journal import KEY, SUFFIX, discard, journal_of, key_of
from mystudio.storage.locks import lock


def forget(job: Job, others: Iterable[Job]) -> None:
    """Delete the checkpoints of a job that leaves the queue; those that another unfinished job continues stay.

    Args: others: the unfinished jobs of the queue, failed and cancelled ones among them.
    """
    needed = {path for other in others for path in _journals(other)}
    for journal, result in _journals(job).items():
        if journal not in needed:
            _discard(journal, result)


def tidy(job: Job) -> None:
    """Delete journals of a job that hold no checkpoint: there is nothing to continue."""
    for journal, result in _journals(job).items():
        if {path.name for path in journal.iterdir()} == {KEY}:
            _discard(journal, result)


def _journals(job: Job) -> dict[Path, Path]:
    """The journals of a job that are there, and what they are for: its result, and a driving clip's performance."""
    found = {journal_of(job.out): job.out}
    if job.work.kind == "reenact":
        clip = escape(Path(job.work.inputs["video"]).stem)
        rest = job.out.parent.glob(f"{clip}-*.performance{SUFFIX}")
        found |= {path: path.with_name(path.name.removesuffix(SUFFIX)) for path in rest}
    return {path: result for path, result in found.items() if key_of(path) is not None}


def _discard(journal: Path, result: Path) -> None:
    with suppress(ArtifactBusy, OutputFailed, OSError), lock(result):  # busy: a command continues it
        discard(journal)
