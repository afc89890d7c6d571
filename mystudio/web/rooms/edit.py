"""Edit: a slider for each edit of the avatar, the picture that follows it, key frames, and the edited take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mystudio.errors import StudioError
from mystudio.jobs import ENDED, Job, State
from mystudio.web import work
from mystudio.web.library.people import Person
from mystudio.web.pages import get, number_of, page, person_of, post, studio_of, text_of
from mystudio.web.views import jobs_of

STRONGEST = 3.0  # of a slider; 1 is a clearly visible change
MOST_EDITS = 64
MOST_KEYS = 500  # of one edit
LATEST = 86_400.0  # s of a key frame
#: what happens to codes outside the person's own range (``editing.POLICIES``), in words
EDGES = {"project": "return to the nearest face of the range", "stop": "stop at the border", "continue": "go on"}
#: edits by name: what the slider is called
TITLES = {
    "smile": "Smile", "mouth_open": "Mouth open", "eyes_open": "Eyes open", "brows": "Brows",
    "gaze_x": "Gaze, sideways", "gaze_y": "Gaze, up and down", "yaw": "Head, turned", "pitch": "Head, nodding",
    "roll": "Head, tilted",
}  # fmt: skip


def newest(request: Request) -> Response:
    """The room, with the newest take that can be edited."""
    studio, person = studio_of(request), person_of(request)
    takes = [path for path in person.every_take() if studio.facts.take(path)]
    if takes:
        return RedirectResponse(f"/p/{person.id}/takes/{takes[-1].stem}/edit", 303)
    return page(request, "edit.html", "edit", person=person, take=None, avatar=studio.facts.avatar(person.avatar))


def room(request: Request) -> Response:
    """The room of one take. The page asks for the rest when it is shown, because loading an avatar takes seconds."""
    studio, person, path = studio_of(request), person_of(request), _take(request)
    facts = studio.facts.take(path)
    if facts is None:
        raise StudioError(f"the take {path.stem} cannot be read; go back to the takes and make it again")
    takes = [other for other in person.every_take() if studio.facts.take(other)]
    return page(
        request,
        "edit.html",
        "edit",
        person=person,
        take=path.stem,
        facts=facts,
        before=facts.before.stem if facts.before and facts.before in [other.resolve() for other in takes] else "",
        others=[other.stem for other in reversed(takes)],
        edges=EDGES,
        strongest=STRONGEST,
        made=_made(jobs_of(studio, person), path),
    )


def open_(request: Request, _: dict[str, Any]) -> dict[str, Any]:
    """Load the take: the names of its edits, and the time of every frame."""
    found = studio_of(request).previews.open(_take(request))
    sliders = [{"name": name, "title": title_of(name)} for name in found["directions"]]
    return {"sliders": sliders, "times": found["times"], "size": found["size"]}


def picture(request: Request, values: dict[str, Any]) -> Response:
    """Draw a frame with edits; 204 where the page has asked for a newer one meanwhile."""
    frame, number = number_of(values, "frame"), number_of(values, "number")
    if frame is None or frame < 0:
        raise StudioError("expected the number of a frame, from 0; move the time line and try again")
    edits, draft = edits_of(values.get("edits")), values.get("draft") is True
    asked = text_of(values, "page")[:64], int(number or 0)
    found = studio_of(request).previews.draw(_take(request), edits, int(frame), draft, *asked)
    if found is None:
        return Response(status_code=204)
    facts, content = found
    return Response(content, media_type="image/png", headers={"X-Drawn": json.dumps(facts)})


def save(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Put the edited take into the queue, as ``mystudio edit`` makes it, and its clip after it."""
    studio, person, take = studio_of(request), person_of(request), _take(request)
    edits = edits_of(values.get("edits"))
    if not edits:
        raise StudioError("expected at least one edit, got none; move a slider first")
    offered = studio.previews.open(take)["directions"]
    if unknown := [edit["name"] for edit in edits if edit["name"] not in offered]:
        raise StudioError(f"this avatar offers no edit {unknown[0]!r}; reload the page")
    made = work.edit(studio, person, take, edits, text_of(values, "name"))
    return {"say": f"{made.stem} is in the queue, and its clip after it."}


def edits_of(given: object) -> list[dict[str, Any]]:
    """Edits of a request in the order of the command: constant strengths first, then those over time.

    Raises: StudioError: a name, a number or a policy is not as expected; the sentence says which.
    """
    if not isinstance(given, list) or len(cast(list[Any], given)) > MOST_EDITS:
        raise StudioError(f"expected a list of at most {MOST_EDITS} edits; reload the page")
    edits = [_edit(each) for each in cast(list[Any], given)]
    return sorted(edits, key=lambda edit: "keys" in edit)


def title_of(name: str) -> str:
    """What a slider is called."""
    words = name.replace("_", " ").strip()
    return TITLES.get(name) or words[:1].upper() + words[1:]


def _edit(given: object) -> dict[str, Any]:
    values: Mapping[str, Any] = cast(Mapping[str, Any], given) if isinstance(given, dict) else {}
    name, edge = text_of(values, "name"), text_of(values, "edge", "project")
    if not name or len(name) > 200 or not name.isprintable():
        raise StudioError("expected an edit with a name; reload the page")
    if edge not in EDGES:
        raise StudioError(f"expected one of {', '.join(EDGES)} for what lies beyond the range; choose one")
    if "keys" not in values:
        return {"name": name, "strength": _number(values.get("strength"), name), "edge": edge}
    keys = values["keys"]
    if not isinstance(keys, list) or not 0 < len(cast(list[Any], keys)) <= MOST_KEYS:
        raise StudioError(f"expected 1 to {MOST_KEYS} key frames of {title_of(name)}; remove some")
    return {"name": name, "keys": [_key(key, name) for key in cast(list[Any], keys)], "edge": edge}


def _key(given: object, name: str) -> list[float]:
    pair = cast(Sequence[Any], given) if isinstance(given, list) else ()
    if len(pair) != 2:
        raise StudioError(f"expected key frames of {title_of(name)} as pairs of seconds and strength; reload the page")
    return [_number(pair[0], name, 0.0, LATEST, "a key frame at"), _number(pair[1], name)]


def _number(given: object, name: str, low: float = -STRONGEST, high: float = STRONGEST, what: str = "") -> float:
    number = isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
    if not number or not low <= cast(float, given) <= high:
        raise StudioError(
            f"{title_of(name)[:40]}: expected {what or 'a strength of'} {low:g} to {high:g}, got {str(given)[:20]!r}; "
            "correct it"
        )
    return float(cast(float, given))


def _made(jobs: list[Job], take: Path) -> list[Job]:
    """The jobs that edit a take, the newest first; a finished one counts while its result is there."""
    edits = [job for job in jobs if job.work.kind == "edit" and Path(job.work.inputs["take"]) == take]
    return [job for job in reversed(edits) if job.state not in ENDED or job.state == State.FAILED or job.out.is_dir()]


def _take(request: Request) -> Path:
    person: Person = person_of(request)
    found = next((path for path in person.every_take() if path.stem == request.path_params["take"]), None)
    if found is None:
        raise StudioError("this take is not there, or not yet; go back to the takes")
    return found


ROUTES = [
    get("/p/{person}/edit", newest),
    get("/p/{person}/takes/{take}/edit", room),
    post("/p/{person}/takes/{take}/edit/open", open_),
    post("/p/{person}/takes/{take}/edit/picture", picture),
    post("/p/{person}/takes/{take}/edit/save", save),
]
