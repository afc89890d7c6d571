"""Train: choose a recipe, watch the face being learnt, use it before it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mystudio.drafts import quality
from mystudio.errors import StudioError
from mystudio.jobs import State, Work
from mystudio.web import work
from mystudio.web.library.left_out import left_out
from mystudio.web.library.people import Person
from mystudio.web.pages import get, page, person_of, post, studio_of, text_of
from mystudio.web.studio import Studio
from mystudio.web.views import jobs_of, latest, outdated, unfinished

#: choice on the page -> title, words, options of the job
CHOICES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "look": ("A first look", "Soft, but clearly you. Good for trying things out.", {"recipe": "quick"}),
    "good": ("Until it is good", "Stops as soon as more time would change little.", {"until_good": True}),
    "best": ("The best it can be", "The whole recipe. Usable from the first minute on.", {}),
}

#: choice on the page -> recipe whose trial says how long it takes, at most where it may end early
TRIED = {"look": "quick", "good": "default", "best": "default"}


@dataclass(frozen=True)
class Time:
    """How long a choice takes."""

    seconds: float | None  # None = not known yet
    measured: bool  # by past jobs of this kind; otherwise estimated from a trial


def train(request: Request) -> Response:
    """The room."""
    studio, person = studio_of(request), person_of(request)
    jobs = jobs_of(studio, person)
    own = [job for job in jobs if job.work.kind == "personalize"]
    job = latest(jobs, "personalize", person.avatar) or latest(own, "personalize")
    facts, scan = studio.facts.avatar(person.avatar), studio.facts.scan(person.scan)
    times = {name: _time(studio, person, name, scan.size if scan else 0) for name in CHOICES}
    trying = False
    if scan is not None and any(time.seconds is None for time in times.values()):
        trying = studio.trials.begin(person.scan, scan.digest, sorted({*TRIED.values()}))
    curve, gone = facts.history if facts else (), left_out(person, scan)
    return page(
        request,
        "train.html",
        "train",
        person=person,
        job=job,
        active=job if unfinished(job) else None,
        facts=facts,
        scan=scan,
        left_out=gone,
        outdated=outdated(studio, person),
        other_images=job is not None and frozenset(job.work.options.get("without", ())) != gone,
        scanning=unfinished(latest(jobs, "scan", person.scan)),
        choices=CHOICES,
        times=times,
        trying=trying,
        curve=_curve(curve),
        quality=quality(facts.info) if facts else "",
        running=State.RUNNING,
    )


def _time(studio: Studio, person: Person, choice: str, size: int) -> Time:
    """From past jobs of the same kind; without one, from the trial."""
    past = studio.queue.expected(Work("personalize", {"scan": person.scan}, person.avatar, CHOICES[choice][2]))
    if past is not None:
        return Time(past, True)
    options = {} if TRIED[choice] == "default" else {"recipe": TRIED[choice]}
    return Time(studio.queue.forecast(Work("personalize", {}, "", options), size), False)


def begin(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Start, or go on."""
    studio, person = studio_of(request), person_of(request)
    choice = CHOICES.get(text_of(values, "choice"))
    if choice is None:
        raise StudioError(f"expected one of {', '.join(CHOICES)}; choose how far to go")
    if studio.facts.scan(person.scan) is None and not unfinished(latest(jobs_of(studio, person), "scan", person.scan)):
        raise StudioError("expected a scan, there is none; record yourself first")
    work.personalize(studio, person, choice[2])
    studio.trials.stop()
    return {"say": "It begins to learn the face."}


def _curve(history: tuple[tuple[float, float], ...]) -> str:
    """The held-out distance over the steps, as a path in a box of 300 x 100; "" where there is too little."""
    if len(history) < 2:
        return ""
    (first, last), high = (history[0][0], history[-1][0]), max(value for _, value in history)
    low = min(value for _, value in history)
    width, height = (last - first) or 1.0, (high - low) or 1.0
    points = (f"{300 * (step - first) / width:.1f} {96 - 92 * (value - low) / height:.1f}" for step, value in history)
    return "M" + " L".join(points)


ROUTES = [get("/p/{person}/train", train), post("/p/{person}/train", begin)]
