"""What the rooms put into the queue: the commands' own stages, with results in the person's folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mystudio.errors import StudioError
from mystudio.jobs import Job, State, Work
from mystudio.storage.manifest import open_folder
from mystudio.storage.scan_inputs import scan_inputs
from mystudio.web.library import names
from mystudio.web.library.left_out import left_out
from mystudio.web.library.people import Person
from mystudio.web.studio import Studio
from mystudio.web.views import UNDER_WAY, jobs_of, latest, unfinished

VIEWS = {"side-by-side": "beside the driver", "aligned": "alone", "paste": "in the driver's picture"}
Options = Mapping[str, Any]


def scan(studio: Studio, person: Person, recordings: Sequence[Path], options: Options) -> Job:
    """Scan recordings together. Raises StudioError: there was no consent, too many, or a scan is being made."""
    if not person.card.consented:
        raise StudioError(f"expected the consent of {person.card.name}, there is none; confirm it first")
    _refuse_second(studio, person, "scan", person.scan)
    who = {"consent": person.card.name, "fictional": person.card.fictional}
    made = Work("scan", dict(zip(scan_inputs(len(recordings)), recordings)), person.scan, {**who, **options})
    return studio.queue.add(made, title=f"Scan of {person.card.name}")


def scan_more(studio: Studio, person: Person, recording: Path) -> Job:
    """Scan a new recording together with those of the present scan.

    Raises: StudioError: see ``scan``; or a recording of the present scan is gone, so it would lose its images.
    """
    facts = studio.facts.scan(person.scan)
    before = [path for path in facts.files if path != recording.resolve()] if facts else []
    if gone := [path.name for path in before if not path.exists()]:
        raise StudioError(f"{gone[0]} of the present scan is not there any more; choose what to scan under Recordings")
    return scan(studio, person, [*before, recording], facts.options if facts else {})


def personalize(studio: Studio, person: Person, options: Options) -> Job:
    """Make ``me.avatar`` of the images that the Scan room shows, or go on with it.

    Raises: StudioError: it is being made, or a scan is being made and images of the present one are left out.
    """
    out = person.folder / "me.avatar"
    _refuse_second(studio, person, "personalize", out)
    if gone := sorted(left_out(person, studio.facts.scan(person.scan))):
        _refuse_second(studio, person, "scan", person.scan)  # it may choose other images
        options = {**options, "without": gone}
    made = Work("personalize", {"scan": person.scan}, out, options)
    return studio.queue.add(made, title=f"Avatar of {person.card.name}")


def drive(
    studio: Studio,
    person: Person,
    driver: Path,
    options: Options | None = None,
    *,
    name: str = "",
    avatar: Path | None = None,
) -> Job:
    """Drive the avatar with a clip, and draw the take beside the driver.

    A take needs the very avatar that it was made with. So it gets a copy of an avatar that is there, because training
    may replace that one.
    """
    avatar, beside = avatar or person.avatar, False
    if avatar.exists():
        avatar, beside = version_of(avatar), _beside_training(studio)
    person.takes.mkdir(mode=0o700, exist_ok=True)
    person.renders.mkdir(mode=0o700, exist_ok=True)
    take = person.takes / (name or names.new_name(f"{names.words_of(driver.name)}.take", ".take"))
    made = Work("reenact", {"avatar": avatar, "video": driver}, take, dict(options or {}))
    job = studio.queue.add(made, title=f"Take {take.stem}", light=beside or None)
    render(studio, person, take, "side-by-side")
    return job


def render(studio: Studio, person: Person, take: Path, view: str) -> Job:
    """Draw a take as a clip; one that is being drawn, or was, is not drawn twice."""
    out = render_of(person, take, view)
    person.renders.mkdir(mode=0o700, exist_ok=True)
    there = latest(jobs_of(studio, person), "render", out)
    if there and there.state in UNDER_WAY:
        return there
    made = Work("render", {"take": take}, out, {"view": view})
    light = _beside_training(studio) or None
    return studio.queue.add(made, title=f"Clip of {take.stem}, {VIEWS[view]}", light=light)


def edit(studio: Studio, person: Person, take: Path, edits: list[dict[str, Any]], name: str = "") -> Path:
    """Make an edited take of a take, and draw it beside the driver. Returns: where it will be.

    Args: edits: as the job ``edit`` takes them. name: words for its name; "" = after the take.
    """
    person.takes.mkdir(mode=0o700, exist_ok=True)
    out = person.takes / names.new_name(name.strip() or f"{take.stem}-edited", ".take")
    studio.queue.add(Work("edit", {"take": take}, out, {"edits": edits}), title=f"Edit {out.stem}")
    render(studio, person, out, "side-by-side")
    return out


def evaluate(studio: Studio, person: Person, take: Path) -> Job:
    """Measure a take."""
    person.reports.mkdir(mode=0o700, exist_ok=True)
    out = report_of(person, take)
    there = latest(jobs_of(studio, person), "evaluate", out)
    if there and there.state in UNDER_WAY:
        return there
    light = _beside_training(studio) or None
    return studio.queue.add(Work("evaluate", {"take": take}, out), title=f"Report on {take.stem}", light=light)


def forget_take(studio: Studio, person: Person, take: Path) -> None:
    """Delete a take with its clips and its report. Raises StudioError: another take or a job needs it."""
    jobs = jobs_of(studio, person)
    outs = [take, report_of(person, take), *(render_of(person, take, view) for view in VIEWS)]
    if any(unfinished(job) and (job.out in outs or take in map(Path, job.work.inputs.values())) for job in jobs):
        raise StudioError(f"{take.stem} is being worked on; cancel its jobs first")
    for other in person.every_take():
        facts = studio.facts.take(other)
        if facts and facts.before == take.resolve():
            raise StudioError(f"{other.stem} was edited from {take.stem}; delete that one first")
    for out in outs:
        _delete(out)
    for job in jobs:
        if job.out in outs and not unfinished(job):
            studio.queue.remove(job.id)


def forget_driver(studio: Studio, person: Person, driver: Path) -> None:
    """Delete a driving clip. Raises StudioError: a take or a job needs it."""
    for take in person.every_take():
        facts = studio.facts.take(take)
        if facts and facts.driver == driver.resolve():
            raise StudioError(f"the take {take.stem} needs {driver.name}; delete the take first")
    if any(unfinished(job) and driver in map(Path, job.work.inputs.values()) for job in jobs_of(studio, person)):
        raise StudioError(f"{driver.name} is in the queue; cancel its job first")
    driver.unlink(missing_ok=True)
    for rest in names.listed(person.takes, ".performance"):
        if _is_of(rest, driver):
            _delete(rest)


def _is_of(performance: Path, driver: Path) -> bool:
    """Whether a performance was measured in a clip."""
    try:
        recorded = open_folder(performance, "performance").manifest.inputs.get("video")
    except StudioError:
        return False
    return recorded is not None and (performance.parent / recorded.path).resolve() == driver.resolve()


def _delete(path: Path) -> None:
    """Delete a result with what its stage keeps beside it; it loses its name first."""
    for rest in (path, path.with_name(f"{path.name}.partial"), path.with_name(f".{path.name}.made")):
        if rest.is_dir():
            gone = rest.with_name(f".{rest.name.lstrip('.')}.deleted")
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(rest, gone)
            shutil.rmtree(gone)
        else:
            rest.unlink(missing_ok=True)


def render_of(person: Person, take: Path, view: str) -> Path:
    """Place of a take's clip."""
    return person.renders / f"{take.stem}.{view}.mp4"


def report_of(person: Person, take: Path) -> Path:
    """Place of a take's report."""
    return person.reports / f"{take.stem}.report"


def _beside_training(studio: Studio) -> bool:
    """Whether a short job should run beside a long one: nobody waits an hour for a clip because a face is learnt."""
    return any(job.work.kind == "personalize" for job in studio.queue.jobs(State.RUNNING))


def version_of(avatar: Path) -> Path:
    """A copy of ``me.avatar`` that nothing replaces, named after its content; it shares the disk's blocks if it can."""
    if avatar.stem != "me":
        return avatar
    digest = open_folder(avatar, "avatar").manifest.digest
    copy = avatar.with_name(f"{avatar.stem}-{digest[:10]}.avatar")
    if copy.exists():
        return copy
    half = avatar.with_name(f".{copy.name}.copy")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(avatar, half, copy_function=_link)
    if open_folder(half, "avatar").manifest.digest != digest:  # training replaced it meanwhile
        shutil.rmtree(half)
        return version_of(avatar)
    os.rename(half, copy)
    return copy


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _refuse_second(studio: Studio, person: Person, kind: str, out: Path) -> None:
    job = latest(jobs_of(studio, person), kind, out)
    if job and job.state in UNDER_WAY:
        words = "is paused" if job.state == State.PAUSED else "is in the queue"
        raise StudioError(f"{job.title or kind} {words} already; wait for it, continue it or cancel it")
