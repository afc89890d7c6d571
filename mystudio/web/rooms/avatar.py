"""Avatar: how good it is, all its edits in one picture, download, import, delete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mystudio import recipe
from mystudio.drafts import quality
from mystudio.errors import StudioError
from mystudio.pipeline import run_sheet
from mystudio.storage import archive, removal
from mystudio.web import work
from mystudio.web.library import names
from mystudio.web.library.people import Person
from mystudio.web.media import downloaded, shown
from mystudio.web.pages import get, page, person_of, post, studio_of, upload
from mystudio.web.portrait import NAME as PORTRAIT
from mystudio.web.views import jobs_of, outdated, unfinished

ARCHIVE = ".zip"


def avatar(request: Request) -> Response:
    """The room."""
    studio, person = studio_of(request), person_of(request)
    facts = studio.facts.avatar(person.avatar)
    busy = any(unfinished(job) for job in jobs_of(studio, person))
    planned = plans(person, True) if facts and not busy else []
    return page(
        request,
        "avatar.html",
        "avatar",
        person=person,
        facts=facts,
        quality=quality(facts.info) if facts else "",
        outdated=outdated(studio, person),
        scanned=studio.facts.scan(person.scan) is not None,
        sheet=facts is not None and _sheet(person, facts.digest).exists(),
        goes=[str(item.path.name) + f" ({item.kind}, {item.bytes / 1e6:.1f} MB)" for p in planned for item in p.items],
        stays=sorted({text.replace(f"{person.folder}{os.sep}", "") for p in planned for text in p.left}),
        busy_here=busy,
    )


def draw_sheet(request: Request, _: dict[str, Any]) -> dict[str, Any]:
    """Draw every edit that the avatar offers; it is marked as by the command."""
    studio, person = studio_of(request), person_of(request)
    facts = studio.facts.avatar(person.avatar)
    if facts is None:
        raise StudioError("expected an avatar, there is none; train it first")
    with studio.drawing:
        if not (place := _sheet(person, facts.digest)).exists():
            for old in person.folder.glob(".sheet-*.png"):
                old.unlink(missing_ok=True)
            run_sheet(work.version_of(person.avatar), place, recipe.resolve())
    return {}


def sheet(request: Request) -> Response:
    """The picture of the edits."""
    person = person_of(request)
    facts = studio_of(request).facts.avatar(person.avatar)
    return shown(facts and _sheet(person, facts.digest))


def pack(request: Request) -> Response:
    """The avatar as one file, as ``mystudio avatar pack`` writes it."""
    studio, person = studio_of(request), person_of(request)
    part = studio.folder / ".uploads" / names.new_name("pack", ".avatar.zip")
    archive.pack(person.avatar, part)
    answer = downloaded(part, f"{person.id}.avatar.zip")
    answer.background = BackgroundTask(part.unlink, missing_ok=True)
    return answer


async def bring(request: Request, given: str) -> dict[str, Any]:
    """Take an avatar that somebody packed, after every byte was verified."""
    studio, person = studio_of(request), await run_in_threadpool(person_of, request)
    if not given.lower().endswith(ARCHIVE):
        raise StudioError("expected a file that ends with .avatar.zip, as the download gives it; choose another file")
    if person.avatar.exists():
        raise StudioError(f"{person.card.name} has an avatar already; add a new person for this one")
    async with studio.uploads.received(request) as part:
        await run_in_threadpool(archive.unpack, part, person.folder / "me.avatar")
    return {"reload": True}


def delete(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Delete the avatar, and what the page said that goes with it."""
    studio, person = studio_of(request), person_of(request)
    if any(unfinished(job) for job in jobs_of(studio, person)):
        raise StudioError(f"{person.card.name} has unfinished jobs; cancel them first")
    for planned in plans(person, values.get("takes") is True):
        removal.carry_out(planned)
    for drawn in (".sheet-*.png", PORTRAIT.format("*")):
        for old in person.folder.glob(drawn):
            old.unlink(missing_ok=True)
    return {"reload": True}


def plans(person: Person, with_takes: bool) -> list[removal.Plan]:
    """What deleting every version of the avatar removes; scans and recordings stay."""
    places = [folder for folder in (person.takes, person.reports, person.renders) if folder.is_dir()]
    return [removal.plan(path, False, with_takes, places) for path in names.listed(person.folder, ".avatar")]


def _sheet(person: Person, digest: str) -> Path:
    return person.folder / f".sheet-{digest[:12]}.png"


ROUTES = [
    get("/p/{person}/avatar", avatar),
    post("/p/{person}/avatar/sheet", draw_sheet),
    get("/m/{person}/sheet.png", sheet),
    get("/m/{person}/avatar.zip", pack),
    upload("/p/{person}/avatar/import", bring),
    post("/p/{person}/avatar/delete", delete),
]
