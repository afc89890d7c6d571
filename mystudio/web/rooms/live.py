"""Live: the avatar follows the camera in the page, and is recorded as the command does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from mystudio.types import Outcome
from mystudio.web import following
from mystudio.web.library import names
from mystudio.web.looks import BUSY, REFUSED, refuse, talk
from mystudio.web.pages import get, page, person_of, post, studio_of, text_of

PATIENCE = 3.0  # s that a page waits for another one to end


def live(request: Request) -> Response:
    """The room."""
    person = person_of(request)
    return page(
        request,
        "live.html",
        "live",
        person=person,
        avatar=studio_of(request).facts.avatar(person.avatar),
        clips=[
            path for path in reversed([*names.listed(person.renders, ".mp4")]) if path.name.startswith(following.PREFIX)
        ],
        followed=int(Outcome.FOLLOWED),
    )


def remove(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Delete a recording."""
    clip = names.find(person_of(request).renders, text_of(values, "clip"), ".mp4")
    if clip is not None and clip.name.startswith(following.PREFIX):
        clip.unlink(missing_ok=True)
        clip.with_name(f".{clip.name}.made").unlink(missing_ok=True)
    return {"say": "Deleted."}


async def follow(socket: WebSocket) -> None:
    """Pictures for a page, look by look; one page at a time."""
    state = socket.app.state
    person = await run_in_threadpool(state.studio.people.find, socket.path_params["person"])
    if person is None or not person.avatar.is_dir():
        await refuse(socket, REFUSED)
        return
    deadline = time.monotonic() + PATIENCE
    while getattr(state, "following", False) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)  # the same page may have ended just now
    if getattr(state, "following", False):
        await refuse(socket, BUSY)
        return
    state.following = True
    try:
        await talk(socket, lambda looks, tell: following.follow(person, looks, tell))
    finally:
        state.following = False


ROUTES: list[BaseRoute] = [
    get("/p/{person}/live", live),
    post("/p/{person}/live/remove", remove),
    WebSocketRoute("/p/{person}/follow", follow),
]
