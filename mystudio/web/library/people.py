"""People of the studio: a folder each, with scan, avatar, takes and renders as the commands make them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mystudio.errors import BadArtifact, OutputFailed, StudioError
from mystudio.storage.journal import write_bytes
from mystudio.web.library import names

CARD = "person.json"
MOST_NAME = 80  # characters
MOST_PEOPLE = 500
#: endings of files that the decoder reads
CLIPS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".gif")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".avif")


@dataclass(frozen=True)
class Card:
    """What the studio knows of a person besides the artifacts."""

    name: str
    created: str  # ISO 8601, UTC
    consented: str = ""  # ISO 8601, UTC: when the statement of consent was confirmed; "" = never
    fictional: bool = False
    demo: bool = False


@dataclass(frozen=True)
class Person:
    """A person's folder. The artifacts may also have been put there by hand or by the commands."""

    id: str  # name of the folder
    folder: Path
    card: Card

    @property
    def scan(self) -> Path:
        """The scan: ``me.scan``, or the only other one."""
        return _only(self.folder, ".scan")

    @property
    def avatar(self) -> Path:
        """The avatar: ``me.avatar``, or the only other one."""
        return _only(self.folder, ".avatar")

    @property
    def recordings(self) -> Path:
        """Clips for scans."""
        return self.folder / "recordings"

    @property
    def drivers(self) -> Path:
        """Driving clips."""
        return self.folder / "drivers"

    @property
    def takes(self) -> Path:
        """Takes that the studio made, and performances."""
        return self.folder / "takes"

    def every_take(self) -> Iterator[Path]:
        """All takes, also those that were put beside the avatar by hand."""
        yield from names.listed(self.folder, ".take")
        yield from names.listed(self.takes, ".take")

    @property
    def renders(self) -> Path:
        """Finished clips and pictures."""
        return self.folder / "renders"

    @property
    def reports(self) -> Path:
        """Reports of takes."""
        return self.folder / "reports"


class People:
    """All people of a studio's folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __iter__(self) -> Iterator[Person]:
        for path in names.listed(self.folder):
            if path.is_dir():
                yield Person(path.name, path, _read_card(path))

    def find(self, identity: str) -> Person | None:
        """Return the person of an id, or None."""
        return next((person for person in self if person.id == identity), None)

    def add(self, name: str, consented: bool, *, fictional: bool = False, demo: bool = False) -> Person:
        """Make a person's folder.

        Raises: StudioError: no name, no consent, or too many people. OutputFailed: the disk is full.
        """
        name = " ".join(name.split())
        if not name or len(name) > MOST_NAME or not name.isprintable():
            raise StudioError(f"expected a name of 1 to {MOST_NAME} letters, got {len(name)}; type the person's name")
        if not consented:
            raise StudioError("expected the statement of consent to be confirmed; without it no avatar may be made")
        if sum(1 for _ in self) >= MOST_PEOPLE:
            raise StudioError(f"expected at most {MOST_PEOPLE} people in one studio; delete one, or use another folder")
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        person = Person(
            made := names.new_name(name), self.folder / made, Card(name, now, now, fictional=fictional, demo=demo)
        )
        try:
            person.folder.mkdir(mode=0o700)
        except OSError as error:
            raise OutputFailed(f"{person.folder} could not be made ({error.strerror}); free space") from error
        self._write(person, asdict(person.card))
        return person

    def confirm(self, person: Person, consented: bool) -> None:
        """Keep that the statement of consent was confirmed. Raises StudioError: it was not."""
        if not consented:
            raise StudioError("expected the statement of consent to be confirmed; without it no avatar may be made")
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._write(person, asdict(person.card) | {"consented": now})

    def rename(self, person: Person, name: str) -> None:
        """Change the name that the studio shows; a scan that was made keeps the name of its consent."""
        name = " ".join(name.split())
        if not name or len(name) > MOST_NAME or not name.isprintable():
            raise StudioError(f"expected a name of 1 to {MOST_NAME} letters, got {len(name)}; type the person's name")
        self._write(person, asdict(person.card) | {"name": name})

    def _write(self, person: Person, card: dict[str, Any]) -> None:
        try:
            write_bytes(person.folder / CARD, (json.dumps(card, indent=1) + "\n").encode())
        except OSError as error:
            raise OutputFailed(f"{person.folder} could not be written ({error.strerror}); free space") from error

    def remove(self, person: Person) -> None:
        """Delete a person with everything; after a kill, the next start deletes the rest. Raises OutputFailed."""
        gone = self.folder / f".{person.id}.deleted"
        try:
            if gone.exists():
                shutil.rmtree(gone)
            os.rename(person.folder, gone)
            shutil.rmtree(gone)
        except OSError as error:
            raise OutputFailed(f"{person.folder} could not be removed ({error.strerror}); try again") from error

    def sweep(self) -> None:
        """Finish deletions that a kill interrupted."""
        for rest in self.folder.glob(".*.deleted"):
            shutil.rmtree(rest, ignore_errors=True)


def _only(folder: Path, ending: str) -> Path:
    own = folder / f"me{ending}"
    if own.exists():
        return own
    return next(names.listed(folder, ending), own)


def _read_card(folder: Path) -> Card:
    """A folder that was put there by hand has no card: its name is the person's."""
    plain = Card(folder.name, datetime.fromtimestamp(folder.stat().st_mtime, timezone.utc).isoformat("T", "seconds"))
    try:
        found = json.loads((folder / CARD).read_bytes()[: 1 << 16])
        known = {key: found[key] for key in asdict(plain) if isinstance(found.get(key), type(getattr(plain, key)))}
        return Card(**asdict(plain) | known)
    except (OSError, ValueError, AttributeError, RecursionError, BadArtifact):
        return plain
