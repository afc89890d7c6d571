"""Record: the camera in the page, advice while it records, and pieces that are on the disk at once."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from mystudio.errors import StudioError
from mystudio.web import guidance, recording, work
from mystudio.web.looks import BUSY, REFUSED, refuse, talk
from mystudio.web.pages import get, number_of, page, person_of, post, studio_of, text_of, upload
from mystudio.web.views import jobs_of, latest, unfinished
from selfscan.scan.consent import FICTIONAL, STATEMENT
from selfscan.scan.guide import LEAST_SECONDS, RATE, said

MOST_GUIDES = 3  # pages at once
IDLE = 30.0  # s without a byte of a piece


def record(request: Request) -> Response:
    """The room."""
    studio, person = studio_of(request), person_of(request)
    return page(
        request,
        "record.html",
        "record",
        person=person,
        statement=FICTIONAL if person.card.fictional else STATEMENT,
        unfinished=recording.unfinished(person),
        scanning=unfinished(latest(jobs_of(studio, person), "scan", person.scan)),
        groups=guidance.GROUPS,
        rate=RATE,
        least=LEAST_SECONDS,
        most=recording.SECONDS,
    )


def begin(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Begin a recording, or another part of one."""
    person, ending = person_of(request), text_of(values, "ending")
    if ending not in recording.ENDINGS:
        raise StudioError(f"expected a browser that records {' or '.join(recording.ENDINGS)}; use another browser")
    size = (int(number_of(values, "width") or 0), int(number_of(values, "height") or 0))
    before = text_of(values, "recording")
    made = recording.find(person, before) if before else recording.begin(person, size)
    if size != made.size:
        raise StudioError(
            f"expected the camera's {made.size[0]} x {made.size[1]} px as before, got {size[0]} x {size[1]}; choose "
            "that resolution, or use what is recorded"
        )
    seconds = made.seconds
    return {
        "recording": made.id,
        "part": made.begin_part(ending),
        "seconds": seconds,
        "words": [[item.text, item.start, item.end] for item in said(made.items, math.inf)],
    }


async def keep(request: Request, _: str) -> dict[str, Any]:
    """Append a piece."""
    person = await run_in_threadpool(person_of, request)
    made = await run_in_threadpool(recording.find, person, request.path_params["recording"])
    content = await _body(request)
    part, number = request.path_params["part"], request.path_params["number"]
    try:
        seconds = float(request.query_params.get("seconds", ""))
    except ValueError:
        raise StudioError("expected the length of the recording with its piece; reload the page") from None
    return {"kept": await run_in_threadpool(made.append, part, number, content, seconds)}


def finish(request: Request, _: dict[str, Any]) -> dict[str, Any]:
    """Make a clip of it, and scan it."""
    studio, person = studio_of(request), person_of(request)
    clip = recording.finish(person, recording.find(person, request.path_params["recording"]))
    try:
        work.scan_more(studio, person, clip)
    except StudioError as error:  # a scan is being made
        return {"go": f"/p/{person.id}/scan", "say": f"The recording is kept; {error}."}
    return {"go": f"/p/{person.id}/scan"}


def remove(request: Request, _: dict[str, Any]) -> dict[str, Any]:
    """Delete an unfinished recording."""
    recording.find(person_of(request), request.path_params["recording"]).remove()
    return {"say": "Deleted."}


async def advise(socket: WebSocket) -> None:
    """Advice for a page, look by look."""
    state = socket.app.state
    person = await run_in_threadpool(state.studio.people.find, socket.path_params["person"])
    if person is None or not person.card.consented:
        await refuse(socket, REFUSED)
        return
    if getattr(state, "guides", 0) >= MOST_GUIDES:
        await refuse(socket, BUSY)
        return
    state.guides = getattr(state, "guides", 0) + 1
    try:
        await talk(socket, lambda looks, tell: guidance.guide(person, looks, tell))
    finally:
        state.guides -= 1


async def _body(request: Request) -> bytes:
    """The body of a request, as long as a piece may be."""
    blocks, content = request.stream().__aiter__(), bytearray()
    while True:
        try:
            content += await asyncio.wait_for(blocks.__anext__(), IDLE)
        except StopAsyncIteration:
            return bytes(content)
        except asyncio.TimeoutError:
            raise StudioError("the piece stopped before its end; it is sent again") from None
        if len(content) > recording.LARGEST_PIECE:
            raise HTTPException(413)


ROUTES: list[BaseRoute] = [
    get("/p/{person}/record", record),
    post("/p/{person}/record", begin),
    post("/p/{person}/record/{recording}/finish", finish),
    post("/p/{person}/record/{recording}/remove", remove),
    upload("/p/{person}/record/{recording}/{part:int}/{number:int}", keep),
    WebSocketRoute("/p/{person}/guide", advise),
]
