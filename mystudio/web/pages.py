"""Pages of the rooms: templates, words for states and times, and errors as one sentence."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from mystudio import errors
from mystudio.errors import StudioError
from mystudio.jobs import State
from mystudio.web import words
from mystudio.web.library.people import Person
from mystudio.web.studio import Studio
from mystudio.web.views import view_of
from selfscan.errors import SelfscanError

FOLDER = Path(__file__).parent
MOST_BODY = 1 << 16  # bytes of a request that carries values
log = logging.getLogger(__name__)


def studio_of(request: Request) -> Studio:
    """The studio of a request."""
    return cast(Studio, request.app.state.studio)


def person_of(request: Request) -> Person:
    """The person that a request names. Raises HTTPException: 404, there is none."""
    found = studio_of(request).people.find(request.path_params["person"])
    if found is None:
        raise HTTPException(404)
    return found


def page(request: Request, template: str, room: str, status: int = 200, **values: Any) -> Response:
    """Draw a page; pages of a person get its view."""
    studio = studio_of(request)
    busy = len(studio.queue.jobs(State.RUNNING, State.WAITING))
    person = values.get("person")
    view = {"view": view_of(studio, person)} if isinstance(person, Person) else {}
    text = _templates().get_template(template).render(room=room, path=request.url.path, busy=busy, **view, **values)
    return HTMLResponse(text, status)


def get(path: str, show: Callable[[Request], Response]) -> Route:
    """Route of a page or a file; ``show`` runs in a thread."""

    @functools.wraps(show)
    async def answer(request: Request) -> Response:
        try:
            return await run_in_threadpool(show, request)
        except HTTPException:
            raise
        except Exception as error:
            return failed(request, error)

    return Route(path, answer, methods=["GET"])


def post(path: str, act: Callable[[Request, dict[str, Any]], dict[str, Any] | Response]) -> Route:
    """Route of an action: JSON values in, JSON or an answer out, or an error in one sentence; ``act`` has a thread."""

    @functools.wraps(act)
    async def answer(request: Request) -> Response:
        return await told(run_in_threadpool(act, request, await _values(request)))

    return Route(path, answer, methods=["POST"])


def upload(path: str, act: Callable[[Request, str], Awaitable[dict[str, Any]]]) -> Route:
    """Route of a file: its name in the address, its content as the body."""

    async def answer(request: Request) -> Response:
        return await told(act(request, request.query_params.get("name", "")[:500]))

    return Route(path, answer, methods=["POST"])


async def told(work: Awaitable[dict[str, Any] | Response]) -> Response:
    """Answer with what an action returns, or with its error."""
    try:
        found = await work
        return found if isinstance(found, Response) else JSONResponse(found)
    except HTTPException as error:
        return JSONResponse({"error": "This does not exist any more: reload the page."}, error.status_code)
    except Exception as error:
        return JSONResponse({"error": sentence(error)}, 400 if _is_expected(error) else 500)


async def _values(request: Request) -> dict[str, Any]:
    """Read a small JSON object; anything else counts as empty."""
    content = b""
    async for block in request.stream():
        content += block
        if len(content) > MOST_BODY:
            raise HTTPException(413)
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        found = {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def failed(request: Request, error: Exception) -> Response:
    """The page of an error."""
    return page(request, "failed.html", "", 400 if _is_expected(error) else 500, sentence=sentence(error))


def sentence(error: Exception) -> str:
    """One sentence for any error; an unexpected one is logged."""
    if not _is_expected(error) and not isinstance(error, OSError):
        log.error("unexpected", exc_info=error)
    text = errors.sentence(error, "the terminal shows more")
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _is_expected(error: Exception) -> bool:
    return isinstance(error, (SelfscanError, StudioError))


def text_of(values: Mapping[str, Any], name: str, default: str = "") -> str:
    """A text of a request; anything else counts as ``default``."""
    found = values.get(name)
    return found if isinstance(found, str) else default


def number_of(values: Mapping[str, Any], name: str) -> float | None:
    """A finite number of a request; anything else counts as none."""
    found = values.get(name)
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        return None
    return float(found) if abs(found) < 1e9 else None


@functools.cache
def _templates() -> Environment:
    made = Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, trim_blocks=True)
    said = (words.left_words, words.state_words, words.stage_words, words.size_words, words.length_words)
    filters = cast(dict[str, Any], made.filters)  # pyright: ignore[reportUnknownMemberType]
    filters |= {function.__name__: function for function in (*said, words.seen, words.previewed)}
    filters |= {"share": words.share_of, "as_part": words.as_part}
    return made
