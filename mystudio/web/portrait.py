"""The portrait of an avatar without a scan, such as one that was brought from elsewhere: its own neutral face."""

from __future__ import annotations

from pathlib import Path

from mystudio import editing, engines, recipe
from mystudio.engines.protocol import Edits
from mystudio.errors import StudioError
from mystudio.provenance import claim as provenance
from mystudio.rendering.render import SMALLEST, enlarge
from mystudio.storage.artifacts import load
from mystudio.storage.journal import write_bytes
from mystudio.storage.manifest import digest
from mystudio.types import Avatar
from mystudio.web.library.facts import AvatarFacts
from mystudio.web.library.people import Person
from mystudio.web.studio import Studio

NAME = ".portrait-{}.png"


def address(person: Person, facts: AvatarFacts | None) -> str:
    """Address of the portrait; "" where there is no avatar, or its engine has no neutral face of its own."""
    if facts is None or not _can_draw(facts.engine):
        return ""
    return f"/m/{person.id}/portrait.png?v={facts.digest[:8]}"


def portrait(studio: Studio, person: Person) -> Path | None:
    """The picture's file; it is drawn once for each avatar, in a second, with the watermark of every picture.

    Returns: None if there is no avatar that can be drawn. Raises BadArtifact: the avatar is damaged.
    """
    facts = studio.facts.avatar(person.avatar)
    if facts is None or not _can_draw(facts.engine):
        return None
    place = person.folder / NAME.format(facts.digest[:16])
    with studio.drawing:
        if not place.exists():
            content = _png(person.avatar)
            for old in person.folder.glob(NAME.format("*")):
                old.unlink(missing_ok=True)
            write_bytes(place, content)
    return place


def _png(path: Path) -> bytes:
    import cv2

    avatar = load(path, Avatar)
    picture = editing.neutral(avatar)
    picture = enlarge(picture, max(SMALLEST, picture.shape[0]))
    stamp = provenance.stamp(recipe.resolve().provenance, digest(path))
    return cv2.imencode(".png", (stamp(picture) if stamp else picture)[..., ::-1])[1].tobytes()


def _can_draw(engine: str) -> bool:
    try:
        return isinstance(engines.named(engine), Edits)
    except StudioError:
        return False
