"""Takes: driving clips in, clips of the avatar out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mystudio.errors import StudioError
from mystudio.jobs import Job
from mystudio.storage.products import read_sidecar
from mystudio.web import work
from mystudio.web.library import names
from mystudio.web.library.facts import TakeFacts
from mystudio.web.library.people import CLIPS, Person
from mystudio.web.pages import get, number_of, page, person_of, post, studio_of, text_of, upload
from mystudio.web.studio import Studio
from mystudio.web.views import jobs_of, latest, unfinished

FACES = {"largest": "the largest", "left": "the left one", "right": "the right one", "1": "number 1", "2": "number 2",
         "3": "number 3", "4": "number 4"}  # fmt: skip
LONGEST = 3600.0  # s of a driving clip


@dataclass(frozen=True)
class Shown:
    """A take, or one that is being made."""

    path: Path
    facts: TakeFacts | None  # None: not made yet
    job: Job | None  # that makes it, or draws its first clip, while it is not done
    clips: dict[str, Path]  # view -> finished clip
    drawing: dict[str, Job]  # view -> unfinished job
    report: Path | None
    measuring: Job | None

    @property
    def name(self) -> str:
        """Its name, as in the terminal."""
        return self.path.stem


def takes(request: Request) -> Response:
    """The room."""
    studio, person = studio_of(request), person_of(request)
    jobs = jobs_of(studio, person)
    training = latest(jobs, "personalize")
    return page(
        request,
        "takes.html",
        "takes",
        person=person,
        avatar=studio.facts.avatar(person.avatar),
        training=training if unfinished(training) else None,
        drivers=list(reversed(list(names.listed(person.drivers, *CLIPS)))),
        takes=[shown(studio, person, path, jobs) for path in _paths(person, jobs)],
        faces=FACES,
    )


def take(request: Request) -> Response:
    """One take: its clip in step with the driver, its faults, its downloads."""
    studio, person = studio_of(request), person_of(request)
    path = _find(request, person)
    found = shown(studio, person, path, jobs_of(studio, person))
    made = {view: read_sidecar(clip) for view, clip in found.clips.items()}
    marked = {view: bool(known.get("facts", {}).get("manifest")) for view, known in made.items()}
    return page(request, "take.html", "takes", person=person, take=found, views=work.VIEWS, marked=marked)


async def receive(request: Request, given: str) -> dict[str, Any]:
    """Take a driving clip."""
    studio, person = studio_of(request), await run_in_threadpool(person_of, request)
    await studio.uploads.store(request, person.drivers, given, CLIPS)
    return {}


def drive(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Drive the avatar with a clip, or a part of it."""
    studio, person = studio_of(request), person_of(request)
    driver = names.find(person.drivers, text_of(values, "driver"), *CLIPS)
    if driver is None:
        raise StudioError("this clip is not there any more; reload the page and choose another one")
    if not person.avatar.exists() and not unfinished(latest(jobs_of(studio, person), "personalize")):
        raise StudioError("expected an avatar, there is none; train it first")
    work.drive(studio, person, driver, part_of(values))
    return {"say": "In the queue."}


def part_of(values: dict[str, Any]) -> dict[str, Any]:
    """Options of a take: face, start and end; what is left at its default is left out."""
    face, start, end = text_of(values, "face", "largest"), number_of(values, "start"), number_of(values, "end")
    for moment in (start, end):
        if moment is not None and not 0 <= moment <= LONGEST:
            raise StudioError(f"expected a time of 0 to {LONGEST:.0f} s, got {moment:g}; correct start and end")
    if start is not None and end is not None and start >= end:
        raise StudioError(f"expected a start before the end, got {start:g} and {end:g} s; correct them")
    part = {"start": start or None, "end": end}
    return {name: value for name, value in part.items() if value is not None} | (
        {"face": face} if face in FACES and face != "largest" else {}
    )


def render(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Draw a take in a view."""
    studio, person = studio_of(request), person_of(request)
    view = text_of(values, "view")
    if view not in work.VIEWS:
        raise StudioError(f"expected one of {', '.join(work.VIEWS)}; choose a view")
    work.render(studio, person, _find(request, person), view)
    return {"say": "In the queue."}


def measure(request: Request, _: dict[str, Any]) -> dict[str, Any]:
    """Measure a take."""
    person = person_of(request)
    work.evaluate(studio_of(request), person, _find(request, person))
    return {"say": "In the queue."}


def remove(request: Request, _: dict[str, Any]) -> dict[str, Any]:
    """Delete a take with its clips and its report; the driving clip stays."""
    studio, person = studio_of(request), person_of(request)
    work.forget_take(studio, person, _find(request, person))
    return {"go": f"/p/{person.id}/takes", "say": "Deleted."}


def remove_driver(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Delete a driving clip that no take needs."""
    studio, person = studio_of(request), person_of(request)
    driver = names.find(person.drivers, text_of(values, "driver"), *CLIPS)
    if driver is not None:
        work.forget_driver(studio, person, driver)
    return {"say": "Deleted."}


def shown(studio: Studio, person: Person, path: Path, jobs: list[Job]) -> Shown:
    """A take with its clips and jobs."""
    making = latest([job for job in jobs if job.work.kind in ("reenact", "edit")], _kind(jobs, path), path)
    clips, drawing = dict[str, Path](), dict[str, Job]()
    for view in work.VIEWS:
        clip, job = work.render_of(person, path, view), latest(jobs, "render", work.render_of(person, path, view))
        if clip.is_file():
            clips[view] = clip
        if job and (unfinished(job) or job.error):
            drawing[view] = job
    report, measuring = work.report_of(person, path), latest(jobs, "evaluate", work.report_of(person, path))
    return Shown(
        path,
        studio.facts.take(path),
        making if making and (unfinished(making) or making.error or making.state == "cancelled") else None,
        clips,
        drawing,
        report if report.is_dir() else None,
        measuring if measuring and (unfinished(measuring) or measuring.error) else None,
    )


def _kind(jobs: list[Job], path: Path) -> str:
    return next((job.work.kind for job in jobs if job.out == path), "reenact")


def _paths(person: Person, jobs: list[Job]) -> list[Path]:
    """Takes, the newest first, and those that are being made or failed."""
    made = list(person.every_take())
    ours = (job.out for job in jobs if job.work.kind in ("reenact", "edit"))
    coming = [out for out in ours if out not in made and out.parent == person.takes]
    return [*dict.fromkeys(reversed(coming)), *reversed(made)]


def _find(request: Request, person: Person) -> Path:
    found = next((p for p in person.every_take() if p.stem == request.path_params["take"]), None)
    if found is None:
        raise StudioError("this take is not there, or not yet; go back to the takes")
    return found


ROUTES = [
    get("/p/{person}/takes", takes),
    upload("/p/{person}/drivers", receive),
    post("/p/{person}/drivers/remove", remove_driver),
    post("/p/{person}/drive", drive),
    get("/p/{person}/takes/{take}", take),
    post("/p/{person}/takes/{take}/render", render),
    post("/p/{person}/takes/{take}/measure", measure),
    post("/p/{person}/takes/{take}/remove", remove),
]
