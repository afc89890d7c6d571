"""The choice of one of several faces of a clip: what the stages store of it, and the picture that numbers the faces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mystudio.storage.journal import write_bytes
from mystudio.types import Performance
from selfscan.errors import SecondFace
from selfscan.face import crowd_picture
from selfscan.face.choose import LARGEST
from selfscan.io.naming import derived
from selfscan.types import WHOLE, Span

PICTURE = "faces.png"  # file in a performance, or the end of the name of a file beside a scan


def chosen(face: str, span: Span = WHOLE) -> dict[str, Any]:
    """The settings of a stage for a face and a part of the clip that are not the default; older results have none."""
    part = {} if span == WHOLE else {"span": [span.start, span.end]}
    return ({} if face == LARGEST else {"face": face}) | part


@contextmanager
def numbered(out: Path, span: Span = WHOLE) -> Iterator[None]:
    """Where a second face stops a scan, draw a picture beside ``out`` that numbers the faces, and name it."""
    try:
        yield
    except SecondFace as error:
        if error.crowd is None or not len(error.crowd):
            raise
        picture = derived(out, after=f".{PICTURE}")
        write_bytes(picture, crowd_picture.draw(error.video, error.crowd, span))
        raise SecondFace(f"{error}; {picture} numbers the faces", error.crowd, error.video) from None


def with_picture(made: Performance, video: Path, out: Path, face: str) -> tuple[Performance, dict[str, bytes]]:
    """A performance whose warnings name the picture of its faces, and the picture's file; nothing for one face."""
    crowd = made.observation.track.crowd
    if not len(crowd):
        return made, {}
    told = f"{len(crowd)} faces are visible: {out / PICTURE} numbers them, and --face chooses one."
    warnings = (*made.observation.warnings, *([told] if face == LARGEST else []))
    seen = replace(made.observation, warnings=warnings)
    return replace(made, observation=seen), {PICTURE: crowd_picture.draw(video, crowd, seen.span)}


def told_live(crowd: bytes | None, out: Path | None, face: str) -> list[str]:
    """Write the picture of a live session's faces (``Live.crowd``) beside its recording; sentences that name it."""
    if crowd is None:
        return []
    picture = derived(out, after=f".{PICTURE}") if out else None
    if picture:
        write_bytes(picture, crowd)
    where = f": {picture} numbers them" if picture else ""
    return [f"Several faces are visible{where}; --face chooses one."] if face == LARGEST else []
