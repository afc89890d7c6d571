"""What the queue gives out: jobs, their states, changes and logs. All times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any


class State(str, Enum):
    """State of a job. The queue's file stores these words."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        return self.value


ENDED = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Work:
    """What a job does: one stage with its files and options (``mystudio.jobs.KINDS``)."""

    kind: str  # "scan", "personalize", ...
    inputs: Mapping[str, str | Path]  # name -> file or artifact; a relative path starts at the studio folder
    out: str | Path  # result; a slash at the end of a text stands for a folder of pictures, as in `mystudio render`
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])  # JSON values by name; absent = default


@dataclass(frozen=True)
class Job:
    """A job as it was when it was read. Paths in ``work`` are absolute."""

    id: int
    work: Work
    title: str  # words of the user; "" = none
    state: State
    asked: State | None  # PAUSED or CANCELLED: what a running job was asked to become; it stops within seconds
    light: bool  # may run beside a heavy job
    after: tuple[int, ...]  # jobs that must be done before
    waits_for: str  # why a waiting job cannot start, as a sentence; "" = it is only not its turn
    stage: str  # the stage's current part, such as "tune"; "" = none was reported
    done: int  # steps of that part
    total: int  # 0 = not known
    left: float | None  # s until the whole job is done, when ``beat`` was written; None = not known yet
    stage_left: float | None  # s until the current part is done; None = not known yet
    preview: Path | None  # PNG of the work so far; it is replaced while the job runs and stays when it is done
    error: str  # of a failed job, one sentence
    log: Path  # text file; it may not exist
    worker: str  # token of the worker that runs it; "" = none
    tries: int  # how often it was started
    added: float
    started: float | None  # last start
    ended: float | None
    beat: float | None  # last sign of life while it runs
    spent: float  # s of running, over all tries
    change: int  # number of the last change of this job

    @property
    def out(self) -> Path:
        """Path of the result."""
        return Path(self.work.out)

    def facts(self) -> dict[str, Any]:
        """Return all fields as JSON values; paths are absolute text."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Changes:
    """What happened since an earlier number."""

    number: int  # of the last change: ask with it the next time
    jobs: tuple[Job, ...]  # jobs that were added or have changed
    removed: tuple[int, ...]  # jobs that were removed


@dataclass(frozen=True)
class Log:
    """A piece of a job's log."""

    text: str
    end: int  # bytes: where the next piece starts


@dataclass(frozen=True)
class Worker:
    """A worker that runs jobs of this queue."""

    token: str
    process: int
    host: str
    started: float
    beat: float  # last sign of life, some seconds old at most


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Path):
        return str(value)
    return value.value if isinstance(value, State) else value
