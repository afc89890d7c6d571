"""The server of the studio page: routes of all rooms behind the guard, and a worker beside it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from mystudio.web.events import events
from mystudio.web.guard import Guard
from mystudio.web.pages import page
from mystudio.web.rooms import avatar, edit, jobs, live, media, people, record, scan, takes, train, verify

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mystudio.web.studio import Studio

STATIC = Path(__file__).parent / "static"
ROOMS = (people, record, scan, train, avatar, takes, edit, live, jobs, verify, media)


def application(studio: Studio) -> Starlette:
    """Make the application, without its guard."""
    routes: list[BaseRoute] = [route for room in ROOMS for route in room.ROUTES]
    routes += [events, Mount("/static", StaticFiles(directory=STATIC))]

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncGenerator[None]:
        yield
        studio.close()

    async def missing(request: Request, _: Exception) -> Response:
        if not request.url.path.startswith("/p/"):
            return PlainTextResponse("This does not exist, or not any more.", 404)
        return page(request, "failed.html", "", 404, sentence="This page does not exist, or not any more.")

    made = Starlette(routes=routes, lifespan=life, exception_handlers={404: missing})
    made.state.studio = studio
    return made


def guarded(studio: Studio, port: int, host: str = "127.0.0.1") -> Guard:
    """Make the application behind its guard."""
    return Guard(application(studio), studio.secret, port, host)
