"""Jobs: everything that is at work, waits, or has ended, in the order of the queue."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mystudio.jobs import ENDED, State
from mystudio.web.pages import get, page, post, studio_of

MOST_ENDED = 60  # ended jobs that are shown
LOG_BYTES = 20_000


def jobs(request: Request) -> Response:
    """The room."""
    studio = studio_of(request)
    every = studio.queue.jobs()
    order = {State.RUNNING: 0, State.PAUSED: 1, State.WAITING: 2}
    active = sorted((job for job in every if job.state not in ENDED), key=lambda job: order[job.state])
    ended = sorted((job for job in every if job.state in ENDED), key=lambda job: -(job.ended or 0))
    return page(
        request, "jobs.html", "jobs", active=active, ended=ended[:MOST_ENDED], workers=len(studio.queue.workers())
    )


def job(request: Request) -> Response:
    """One job with its log."""
    studio = studio_of(request)
    found = studio.queue.job(request.path_params["job"])
    log = studio.queue.log(found.id, -LOG_BYTES).text
    return page(request, "job.html", "jobs", job=found, log=log)


def turn(request: Request, _: dict[str, Any]) -> dict[str, Any]:
    """Pause, continue, cancel, try again, move to the front, or forget a job."""
    queue, number = studio_of(request).queue, request.path_params["job"]
    act = request.path_params["act"]
    ways = {"pause": queue.pause, "resume": queue.resume, "cancel": queue.cancel, "retry": queue.retry}
    if act in ways:
        ways[act](number)
    elif act == "first":
        waiting = [one.id for one in queue.jobs(State.WAITING) if one.id != number]
        queue.move(number, waiting[0] if waiting else None)
    elif act == "forget":
        queue.remove(number)
        return {"go": "/jobs"}
    return {}


ROUTES = [
    get("/jobs", jobs),
    get("/jobs/{job:int}", job),
    post("/jobs/{job:int}/{act:str}", turn),
]
