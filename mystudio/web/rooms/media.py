"""Pictures and clips of a person for the page: every address names a person and a listed file."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from mystudio.demo import FOLDER as DEMO
from mystudio.web.library import names
from mystudio.web.media import downloaded, report, shown
from mystudio.web.pages import get, person_of, studio_of
from mystudio.web.portrait import portrait

DEMO_CLIPS = ("scan.mp4", "driver.mp4")


def _name(request: Request) -> str:
    return request.path_params["name"]


def scan_image(request: Request) -> Response:
    """An image of the scan; its address carries the scan's digest."""
    return shown(names.find(person_of(request).scan / "images", _name(request), ".png"), keep=True)


def face(request: Request) -> Response:
    """The avatar's own face, where there is no scan; its address carries the avatar's digest."""
    return shown(portrait(studio_of(request), person_of(request)), keep=True)


def coverage(request: Request) -> Response:
    """The scan's coverage picture."""
    return shown(names.find(person_of(request).scan, "coverage.png"))


def faces(request: Request) -> Response:
    """The numbered faces of a recording that shows several."""
    scan = person_of(request).scan
    return shown(names.find(scan.parent, f"{scan.name}.faces.png"))


def recording(request: Request) -> Response:
    """A recording for a scan."""
    return shown(names.find(person_of(request).recordings, _name(request)))


def driver(request: Request) -> Response:
    """A driving clip."""
    return shown(names.find(person_of(request).drivers, _name(request)))


def render(request: Request) -> Response:
    """A finished clip, to be played."""
    return shown(names.find(person_of(request).renders, _name(request)))


def download(request: Request) -> Response:
    """A finished clip, to be saved."""
    person = person_of(request)
    return downloaded(names.find(person.renders, _name(request)), f"{person.id}-{_name(request)}")


def report_page(request: Request) -> Response:
    """The report of a take."""
    found = names.find(person_of(request).reports, _name(request), ".report")
    return report(found and found / "report.html")


def preview(request: Request) -> Response:
    """The newest preview of a job."""
    return shown(studio_of(request).queue.job(request.path_params["job"]).preview)


def demo_clip(request: Request) -> Response:
    """A clip of the demo people, for the empty studio."""
    return shown(DEMO / _name(request) if _name(request) in DEMO_CLIPS else None)


ROUTES = [
    get("/m/{person}/scan/{name}", scan_image),
    get("/m/{person}/portrait.png", face),
    get("/m/{person}/coverage.png", coverage),
    get("/m/{person}/faces.png", faces),
    get("/m/{person}/recordings/{name}", recording),
    get("/m/{person}/drivers/{name}", driver),
    get("/m/{person}/renders/{name}", render),
    get("/m/{person}/reports/{name}", report_page),
    get("/m/{person}/downloads/{name}", download),
    get("/m/jobs/{job:int}/preview", preview),
    get("/m/demo/{name}", demo_clip),
]
