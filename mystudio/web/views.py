"""A person as every page shows it: the portrait, the ring around it, the rooms and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mystudio.jobs import ENDED, Job, State
from mystudio.web.library import names
from mystudio.web.library.facts import AvatarFacts
from mystudio.web.library.left_out import left_out
from mystudio.web.library.people import CLIPS, PICTURES, Person
from mystudio.web.portrait import address
from mystudio.web.studio import Studio
from mystudio.web.words import share_of

UNDER_WAY = (State.RUNNING, State.WAITING, State.PAUSED)


@dataclass(frozen=True)
class Door:
    """A room of a person, as the row of rooms shows it."""

    room: str
    title: str
    state: str  # class of the row's entry: "is-done", "is-busy" or ""


@dataclass(frozen=True)
class View:
    """What pages show of a person."""

    portrait: str  # address of a picture; "" = none yet
    parts: tuple[tuple[float, bool], ...]  # scan, avatar, takes: share, and whether it is finished
    words: str
    busy: bool
    doors: tuple[Door, ...]


def view_of(studio: Studio, person: Person) -> View:
    """Look at a person's folder and jobs."""
    jobs = jobs_of(studio, person)
    scan, avatar = studio.facts.scan(person.scan), studio.facts.avatar(person.avatar)
    takes, old = list(person.every_take()), bool(outdated(studio, person))
    ready = avatar is not None and not avatar.draft and not old
    active = {job.work.kind: job for job in jobs if job.state in UNDER_WAY}
    recorded = scan or any(names.listed(person.recordings, *CLIPS, *PICTURES))
    states = {
        "record": "is-done" if recorded else "",
        "scan": "is-busy" if "scan" in active else "is-done" if scan else "",
        "train": "is-busy" if "personalize" in active else "is-done" if ready else "",
        "avatar": "is-done" if avatar else "",
        "takes": "is-busy" if {"reenact", "render", "evaluate"} & {*active} else "is-done" if takes else "",
        "edit": "is-busy" if "edit" in active else "",
        "live": "is-done" if avatar else "",
    }
    rooms = ("record", "scan", "train", "avatar", "takes", "edit", "live")

    def part(done: bool, job: Job | None) -> tuple[float, bool]:
        return (share_of(job), False) if job and job.state in UNDER_WAY else (1.0 if done else 0.0, done)

    shown = f"/m/{person.id}/scan/{scan.portrait(left_out(person, scan))}?v={scan.digest[:8]}" if scan else ""
    return View(
        shown or address(person, avatar),
        (
            part(scan is not None, active.get("scan")),
            part(ready, active.get("personalize")),
            part(bool(takes), active.get("reenact")),
        ),
        _words(active, bool(scan), avatar, old, len(takes)),
        any(job.state == State.RUNNING for job in active.values()),
        tuple(Door(room, room.capitalize(), states[room]) for room in rooms),
    )


def jobs_of(studio: Studio, person: Person) -> list[Job]:
    """The jobs whose results lie in a person's folder, in the queue's order."""
    return [job for job in studio.queue.jobs() if job.out.is_relative_to(person.folder)]


def latest(jobs: list[Job], kind: str, out: Path | None = None) -> Job | None:
    """The last job of a kind, perhaps of one result."""
    found = [job for job in jobs if job.work.kind == kind and out in (None, job.out)]
    return max(found, key=lambda job: job.id, default=None)


def unfinished(job: Job | None) -> bool:
    """Whether a job is still to be done."""
    return job is not None and job.state not in ENDED


def outdated(studio: Studio, person: Person) -> str:
    """Why the avatar does not show what the scan holds now, as a sentence; "" = it does, or there is only one of them.

    An avatar that was brought from elsewhere has no scan here.
    """
    scan, avatar = studio.facts.scan(person.scan), studio.facts.avatar(person.avatar)
    if scan is None or avatar is None or not avatar.scan:
        return ""
    if avatar.scan != scan.digest:
        return "The avatar was made from another scan. Train it again to use this one."
    if avatar.left_out != left_out(person, scan):
        return "Images were left out or brought back since the avatar was made. Train it again to use this choice."
    return ""


def _words(active: dict[str, Job], scan: bool, avatar: AvatarFacts | None, old: bool, takes: int) -> str:
    if "scan" in active:
        return "The scan is being made"
    if "personalize" in active:
        return "Learning the face" + (", and usable already" if avatar else "")
    if avatar:
        counted = f"{takes} take{'s' * (takes != 1)}" if takes else "no take yet"
        state = "Avatar not up to date" if old else "A first avatar" if avatar.draft else "Avatar ready"
        return f"{state}, {counted}"
    return "Scan ready, no avatar yet" if scan else "Nothing recorded yet"
