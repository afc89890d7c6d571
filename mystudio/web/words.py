"""Words for states, parts and times."""

from __future__ import annotations

from pathlib import Path

from mystudio.jobs import Job, State
from mystudio.storage.manifest import MANIFEST

STAGES = {
    "track": "following the face", "measure": "measuring the face", "quality": "judging every frame",
    "identity": "checking that it is one person", "persons": "checking for other people",
    "compare": "comparing frames", "images": "cutting out the images", "invert": "finding the first codes",
    "tune": "learning the face", "samples": "drawing samples", "regress": "learning to follow",
    "patches": "measuring mouth and eyes", "solve": "following the driver", "render": "drawing the clip",
}  # fmt: skip


def share_of(job: Job) -> float:
    """How far a job is, 0..1, from the time spent and left; from the steps of its part where the time is not known."""
    if job.state == State.DONE:
        return 1.0
    if job.left is not None and job.spent + job.left > 0:
        return min(0.99, job.spent / (job.spent + job.left))
    return min(0.99, job.done / job.total) if job.total else 0.0


def left_words(job: Job) -> str:
    """How long a running job still takes, in words."""
    if job.state != State.RUNNING:
        return ""
    return clock(job.left if job.left is not None else job.stage_left)


def clock(seconds: float | None) -> str:
    """A time left in words."""
    if seconds is None:
        return "measuring the speed"
    if seconds < 5:
        return "a moment left"
    return f"{length_words(seconds)} left"


def length_words(seconds: float) -> str:
    """A length of time: "40 s", "12 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def state_words(job: Job) -> str:
    """A job's state in words."""
    if job.state == State.RUNNING and job.asked:
        return "stopping"
    if job.state == State.WAITING:
        before = job.after and "job" in job.waits_for
        return "waits for what comes before" if before else job.waits_for or "waits for its turn"
    return {"running": "at work", "done": "done", "failed": "failed"}.get(str(job.state), str(job.state))


def stage_words(stage: str) -> str:
    """The part of a job in words."""
    return STAGES.get(stage.split(": ")[-1], stage)


def size_words(count: int) -> str:
    """A size in words: "31 MB"."""
    if count > 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count > 1e6 else f"{count / 1e3:.0f} kB"


def seen(job: Job) -> str:
    """A text that changes with each preview of a job, and with each draft of its result; "" = there are none."""
    return "-".join(filter(None, (_when(job.preview), _when(job.out / MANIFEST))))


def previewed(job: Job) -> bool:
    """Whether there is a preview of a job."""
    return bool(_when(job.preview))


def _when(path: Path | None) -> str:
    try:
        return str(path.stat().st_mtime_ns) if path else ""
    except OSError:
        return ""


def as_part(share: float) -> tuple[float, bool]:
    """A share as a part of a ring; all of it is good."""
    return share, share >= 1
