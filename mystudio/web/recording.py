"""Recordings in progress: pieces from the page go to a file as they arrive, so that a crash costs the last one.

A recording is a folder below the person's: ``recording.json`` holds its words, ``0.webm`` the pieces of its first part,
and ``0.pieces`` an entry for each piece that is whole. A recording that is continued has another part.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mystudio.errors import OutputFailed, StudioError
from mystudio.live.recording import CAMERA_RATE, CRF, words_of, write_stream
from mystudio.storage.journal import write_bytes
from mystudio.web.library import names
from mystudio.web.library.people import Person
from mystudio.web.uploads import SPARE
from selfscan.io import video
from selfscan.io.digest import file_digest
from selfscan.scan.guide import MAX_BYTES, code_words, now, said, to_json
from selfscan.types import Array, CodeWords

FOLDER, CARD, SEEN = "unfinished", "recording.json", "seen.npy"
ENDINGS = (".webm", ".mp4")  # of what browsers record
SECONDS = 60.0  # s, longest recording; the coverage is measured against it
MOST_UNFINISHED, MOST_PARTS, MOST_PIECES = 8, 20, 600
LARGEST_PIECE, LARGEST_PART = 32 << 20, 1 << 30  # bytes
PIECE = struct.Struct("<qd")  # an entry: size of the part in bytes and its length in s, with this piece


@dataclass(frozen=True)
class Recording:
    """A recording that is not finished."""

    folder: Path
    items: tuple[str, ...]  # texts to say or hold up, in order
    created: str  # ISO 8601, UTC
    size: tuple[int, int]  # width and height, px

    @property
    def id(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def parts(self) -> list[Path]:
        """Files of the parts that hold pieces, in order."""
        found = (self.folder / f"{part}{ending}" for part in range(MOST_PARTS) for ending in ENDINGS)
        return [path for path in found if path.is_file() and _pieces(path)]

    @property
    def seconds(self) -> float:
        """Length of what is kept, s."""
        return sum(_pieces(path)[-1][1] for path in self.parts)

    def begin_part(self, ending: str) -> int:
        """Start another part; returns its number. Raises StudioError: there are too many."""
        taken = {int(path.stem) for path in self.folder.iterdir() if path.suffix in ENDINGS}
        part = max(taken, default=-1) + 1
        if part >= MOST_PARTS:
            raise StudioError(f"expected at most {MOST_PARTS} parts of one recording; use it, or begin a new one")
        (self.folder / f"{part}{ending}").touch(0o600)
        return part

    def append(self, part: int, number: int, content: bytes, seconds: float) -> int:
        """Add a piece to a part; one that is there already is not added again.

        Args: number: of the piece, from 0 on. seconds: length of the part with it.
        Returns: how many pieces are kept.
        Raises: StudioError: a piece is missing before it, or the recording is too long. OutputFailed: the disk is full.
        """
        path = next((p for e in ENDINGS if (p := self.folder / f"{part}{e}").is_file()), None)
        if path is None:
            raise StudioError("this recording is not there any more; begin a new one")
        kept = _pieces(path)
        size, before = kept[-1] if kept else (0, 0.0)
        if number < len(kept):
            return len(kept)
        if number > len(kept) or not before <= seconds <= 2 * SECONDS:
            raise StudioError(f"expected piece {len(kept)} of the recording, got {number}; begin another part")
        if number >= MOST_PIECES or size + len(content) > LARGEST_PART:
            raise StudioError("the recording is too long; use it as it is")
        if shutil.disk_usage(self.folder).free < len(content) + SPARE:
            raise OutputFailed("the disk is nearly full; free space, what is recorded is kept")
        try:
            _write_at(path, size, content)
            _write_at(_log(path), PIECE.size * len(kept), PIECE.pack(size + len(content), seconds))
        except OSError as error:
            raise OutputFailed(f"the recording could not be written ({error.strerror}); free space") from error
        return len(kept) + 1

    def seen(self) -> list[Array]:
        """What its guide has seen: see ``selfscan.scan.guide.Guide``."""
        try:
            return list(np.load(io.BytesIO((self.folder / SEEN).read_bytes()), allow_pickle=False))
        except (OSError, ValueError):
            return []

    def keep_seen(self, seen: list[Array]) -> None:
        """Keep what the guide has seen, for a recording that will be continued."""
        if seen:
            np.save(content := io.BytesIO(), np.stack(seen))
            with suppress(OSError):  # it was finished meanwhile
                write_bytes(self.folder / SEEN, content.getvalue())

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def begin(person: Person, size: tuple[int, int]) -> Recording:
    """Begin a recording with new words. Raises StudioError: there is no consent, or there are too many."""
    if not person.card.consented:
        raise StudioError("expected the statement of consent to be confirmed before a recording is kept; confirm it")
    if not all(64 <= side <= 8192 for side in size):
        raise StudioError(f"expected a camera of 64 to 8192 px, got {size[0]} x {size[1]}; choose another resolution")
    for empty in [found for found in _all(person) if not found.parts]:
        empty.remove()
    if len(list(_all(person))) >= MOST_UNFINISHED:
        raise StudioError(f"expected at most {MOST_UNFINISHED} unfinished recordings; use or delete one first")
    folder = person.folder / FOLDER / names.new_name("recording")
    try:
        folder.mkdir(mode=0o700, parents=True)
        made = Recording(folder, code_words(date.today()), now(), size)
        write_bytes(folder / CARD, json.dumps({k: v for k, v in asdict(made).items() if k != "folder"}).encode())
    except OSError as error:
        raise OutputFailed(f"{folder} could not be written ({error.strerror}); free space") from error
    return made


def unfinished(person: Person) -> list[Recording]:
    """The recordings of a person that hold pieces and were not finished, the oldest first."""
    return [found for found in _all(person) if found.parts]


def find(person: Person, identity: str) -> Recording:
    """The recording of an id. Raises StudioError: there is none."""
    found = next((found for found in _all(person) if found.id == identity), None)
    if found is None:
        raise StudioError("this recording is not there any more; reload the page")
    return found


def finish(person: Person, made: Recording) -> Path:
    """Make a clip of a recording, with its words beside it, as ``mystudio record`` does; returns the clip.

    A recording of several parts is decoded and encoded again, without visible loss.

    Raises: UnreadableVideo: no picture was recorded. OutputFailed: the disk is full.
    """
    parts, seconds = made.parts, made.seconds
    if not parts:
        raise StudioError("nothing was recorded; begin again")
    for part in parts:
        os.truncate(part, _pieces(part)[-1][0])  # a kill may have left half a piece
        video.probe(part)
    if len(parts) == 1:
        clip = parts[0]
    else:
        clip = made.folder / "whole.mp4"
        write_stream(clip, _joined(parts), CAMERA_RATE, None, CRF)
    target = person.recordings / names.new_name(f"camera {made.created[:10]}", clip.suffix)
    try:
        person.recordings.mkdir(mode=0o700, exist_ok=True)
        words = CodeWords(said(made.items, math.nextafter(seconds, math.inf)), now(), file_digest(clip))
        write_bytes(words_of(target), to_json(words))
        os.rename(clip, target)
    except OSError as error:
        raise OutputFailed(f"{target} could not be written ({error.strerror}); free space") from error
    made.remove()
    return target


def _joined(parts: list[Path]) -> Iterator[tuple[float, Array]]:
    """The frames of all parts, one part after the other."""
    start, time = 0.0, -1 / CAMERA_RATE
    for part in parts:
        start = time + 1 / CAMERA_RATE
        for since, frame in video.read(part, warn=video.unwarned):
            time = start + since
            yield time, frame


def _all(person: Person) -> Iterator[Recording]:
    for folder in names.listed(person.folder / FOLDER):
        with suppress(OSError, ValueError, LookupError, TypeError):
            found: dict[str, Any] = json.loads((folder / CARD).read_bytes()[:MAX_BYTES])
            width, height = (int(side) for side in found["size"])
            yield Recording(folder, tuple(map(str, found["items"])), str(found["created"]), (width, height))


def _log(part: Path) -> Path:
    return part.with_suffix(".pieces")


def _pieces(part: Path) -> list[tuple[int, float]]:
    """Size of a part in bytes and its length in s after each whole piece."""
    try:
        content = _log(part).read_bytes()
    except OSError:
        return []
    return list(PIECE.iter_unpack(content[: len(content) // PIECE.size * PIECE.size]))


def _write_at(path: Path, place: int, content: bytes) -> None:
    """Write and flush; what stood behind ``place`` is dropped."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        file.truncate(place)
        file.seek(place)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
