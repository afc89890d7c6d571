"""Verify: what a file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mystudio.errors import StudioError
from mystudio.provenance.verify import examine
from mystudio.web.pages import get, page, studio_of, upload

ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".png", ".jpg", ".jpeg", ".webp", ".gif")


def verify(request: Request) -> Response:
    """The room."""
    return page(request, "verify.html", "verify", accept=",".join(ENDINGS))


async def check(request: Request, given: str) -> dict[str, Any]:
    """Read the marks of a file; it is deleted afterwards."""
    ending = Path(given).suffix.lower()
    if ending not in ENDINGS:
        raise StudioError(f"expected a file that ends with {', '.join(ENDINGS)}; choose another file")
    async with studio_of(request).uploads.received(request) as part:
        file = part.with_suffix(ending)
        part.rename(file)
        try:
            found = await run_in_threadpool(examine, file)
        finally:
            file.unlink(missing_ok=True)
    states = {finding.state for finding in found}
    verdict = "changed" if "tampered" in states else "marked" if "found" in states else "unmarked"
    said = [{"mark": one.mark, "state": one.state, "statement": one.statement} for one in found]
    return {"verdict": verdict, "name": Path(given).name[:200], "findings": said}


ROUTES = [get("/verify", verify), upload("/verify", check)]
