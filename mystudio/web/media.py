"""Files for the browser: pictures, clips and downloads, with range requests; never a name that a client gave."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import FileResponse, Response

TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # browsers play what they can decode, but only under this name
    ".webm": "video/webm",
    ".mkv": "video/webm",
    ".gif": "image/gif",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".avif": "image/avif",
}
#: a file that somebody gave is shown as a picture or a clip, and runs nothing
SANDBOX = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
REPORT = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox; frame-ancestors 'self'"


def shown(path: Path | None, *, keep: bool = False) -> Response:
    """Answer with a file for the page, or 404 if there is none.

    Args: keep: its content never changes under this address, so the browser may keep it.
    """
    if path is None or not path.is_file():
        return Response(status_code=404)
    kind = TYPES.get(path.suffix.lower(), "application/octet-stream")
    headers = {"Content-Security-Policy": SANDBOX, "Cache-Control": "private, max-age=31536000" if keep else "no-cache"}
    return FileResponse(path, media_type=kind, headers=headers)


def downloaded(path: Path | None, name: str) -> Response:
    """Answer with a file to be saved as ``name``, or 404."""
    if path is None or not path.is_file():
        return Response(status_code=404)
    kind = TYPES.get(path.suffix.lower(), "application/octet-stream")
    return FileResponse(path, media_type=kind, filename=name, headers={"Content-Security-Policy": SANDBOX})


def report(path: Path | None) -> Response:
    """Answer with a report's page; it holds its pictures and runs no script."""
    if path is None or not path.is_file():
        return Response(status_code=404)
    return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": REPORT})
