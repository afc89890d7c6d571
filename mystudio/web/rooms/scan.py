"""Scan: recordings, the chosen images, what was rejected and what is missing."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mystudio.errors import StudioError
from mystudio.live.recording import words_of
from mystudio.web import work
from mystudio.web.guidance import GROUPS
from mystudio.web.library import names
from mystudio.web.library.facts import image_name
from mystudio.web.library.left_out import change, left_out
from mystudio.web.library.people import CLIPS, PICTURES
from mystudio.web.pages import get, page, person_of, post, studio_of, text_of, upload
from mystudio.web.views import jobs_of, latest, outdated

FACES = ("largest", "left", "right", "1", "2", "3", "4")
NEEDED = 0.01  # share of the frames from which on a bin counts as seen


def scan(request: Request) -> Response:
    """The room."""
    studio, person = studio_of(request), person_of(request)
    facts = studio.facts.scan(person.scan)
    job = latest(jobs_of(studio, person), "scan", person.scan)
    recordings = list(names.listed(person.recordings, *CLIPS, *PICTURES))
    seen = _seen(facts.share) if facts else {}
    gone = left_out(person, facts)
    faces = person.scan.with_name(f"{person.scan.name}.faces.png")
    return page(
        request,
        "scan.html",
        "scan",
        person=person,
        facts=facts,
        job=job,
        recordings=recordings,
        scanned={path.name: share for path, share in zip(facts.files, facts.shares)} if facts else {},
        seen=seen,
        image_name=image_name,
        left_out=gone,
        portrait=facts.portrait(gone) if facts else "",
        outdated=outdated(studio, person),
        covered=[sum(ok for _, ok in group) / len(group) for group in seen.values()],
        several=job is not None and "face" in job.error and faces.exists(),
        faces=FACES,
    )


def _seen(share: dict[str, float]) -> dict[str, list[tuple[str, bool]]]:
    """Group -> names of its bins, and whether the recording shows enough of each."""
    short = {name: name.removeprefix("yaw ").removeprefix("pitch ") for bins in GROUPS.values() for name in bins}
    return {title: [(short[name], share.get(name, 0.0) >= NEEDED) for name in bins] for title, bins in GROUPS.items()}


async def record(request: Request, given: str) -> dict[str, Any]:
    """Take a recording, and scan it at once."""
    studio, person = studio_of(request), await run_in_threadpool(person_of, request)
    if not person.card.consented:
        raise StudioError("expected the statement of consent to be confirmed before a recording is kept; confirm it")
    clip = await studio.uploads.store(request, person.recordings, given, (*CLIPS, *PICTURES))
    try:
        await run_in_threadpool(work.scan_more, studio, person, clip)
    except StudioError as error:  # a scan is being made
        return {"say": f"The recording is kept; {error}."}
    return {"say": "Kept. The scan begins."}


def again(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Scan recordings that are there, perhaps with another face; each is named by a value that is true."""
    studio, person = studio_of(request), person_of(request)
    wanted = {name for name, value in values.items() if value is True}
    chosen = [path for path in names.listed(person.recordings, *CLIPS, *PICTURES) if path.name in wanted]
    if not wanted:
        raise StudioError("expected at least one recording to scan, got none; choose one")
    if len(chosen) < len(wanted):
        raise StudioError("a chosen recording is not there any more; reload the page and choose another one")
    before = {path: k for k, path in enumerate(facts.files)} if (facts := studio.facts.scan(person.scan)) else {}
    chosen.sort(key=lambda path: before.get(path.resolve(), len(before)))  # removed images keep their numbers
    face = text_of(values, "face", "largest")
    work.scan(studio, person, chosen, {"face": face} if face in FACES[1:] else {})
    return {"say": "The scan begins."}


def choose(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Leave an image out of the training, or bring it back."""
    studio, person, number = studio_of(request), person_of(request), values.get("image")
    facts = studio.facts.scan(person.scan)
    if facts is None or type(number) is not int:
        raise StudioError("expected the number of an image of the scan; reload the page and choose one")
    with studio.choosing:
        change(person, facts, number, values.get("out") is True)
    return {}


def consent(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Confirm the consent for a person whose folder was put there by hand."""
    studio_of(request).people.confirm(person_of(request), values.get("consent") is True)
    return {"say": "Confirmed."}


def remove(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Delete a recording, and the words that were shown in it."""
    clip = names.find(person_of(request).recordings, text_of(values, "recording"))
    if clip is not None:
        clip.unlink(missing_ok=True)
        words_of(clip).unlink(missing_ok=True)
    return {"say": "Deleted."}


ROUTES = [
    get("/p/{person}/scan", scan),
    upload("/p/{person}/recordings", record),
    post("/p/{person}/scan", again),
    post("/p/{person}/scan/images", choose),
    post("/p/{person}/consent", consent),
    post("/p/{person}/recordings/remove", remove),
]
