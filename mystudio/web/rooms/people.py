"""People: everybody in the studio, a new person, the demo person; the empty studio explains itself."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mystudio.errors import StudioError
from mystudio.web import demo
from mystudio.web.pages import get, page, person_of, post, studio_of, text_of
from mystudio.web.views import jobs_of, unfinished, view_of
from selfscan.scan.consent import FICTIONAL, STATEMENT


def people(request: Request) -> Response:
    """The first page."""
    studio = studio_of(request)
    shown = [(person, view_of(studio, person)) for person in studio.people]
    has_demo = any(person.card.demo for person, _ in shown)
    return page(
        request, "people.html", "people", people=shown, statement=STATEMENT, fictional=FICTIONAL, has_demo=has_demo
    )


def add(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Make a person; consent comes before the first frame."""
    person = studio_of(request).people.add(
        text_of(values, "name"), values.get("consent") is True, fictional=values.get("fictional") is True
    )
    return {"go": f"/p/{person.id}/record"}


def add_demo(request: Request, _: dict[str, Any]) -> dict[str, Any]:
    """Make the demo person and everything up to a moving face."""
    return {"go": f"/p/{demo.start(studio_of(request)).id}/takes"}


def enter(request: Request) -> Response:
    """A person's address leads to the room where something is to be done."""
    person = person_of(request)
    view = view_of(studio_of(request), person)
    busy = [door.room for door in view.doors if door.state == "is-busy"]
    todo = [door.room for door in view.doors if not door.state]
    return RedirectResponse(f"/p/{person.id}/{(busy or todo or ['takes'])[0]}", 303)


def rename(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Change the name that the studio shows."""
    studio_of(request).people.rename(person_of(request), text_of(values, "name"))
    return {"say": "Renamed."}


def remove(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Delete a person with everything; the name must be typed."""
    studio, person = studio_of(request), person_of(request)
    if " ".join(text_of(values, "name").split()) != person.card.name:
        raise StudioError(f"expected the name {person.card.name!r} to be typed, so that nobody is deleted by mistake")
    if any(unfinished(job) for job in jobs_of(studio, person)):
        raise StudioError(f"{person.card.name} has unfinished jobs; cancel them first")
    studio.people.remove(person)
    for job in [job for job in studio.queue.jobs() if job.out.is_relative_to(person.folder)]:
        studio.queue.remove(job.id)
    return {"go": "/"}


ROUTES = [
    get("/", people),
    post("/people", add),
    post("/people/demo", add_demo),
    get("/p/{person}", enter),
    post("/p/{person}/rename", rename),
    post("/p/{person}/remove", remove),
]
