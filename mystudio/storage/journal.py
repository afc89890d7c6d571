"""Checkpoints of an unfinished stage on disk, in ``NAME.partial``; each is verified when it is read."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np

from mystudio.errors import BadArtifact
from mystudio.storage import npz
from mystudio.storage.manifest import beside, resolved
from selfscan.io.naming import derived

SUFFIX = ".partial"  # of a journal's name, after that of the result
KEY = "journal.key"  # file in a journal that holds the key it was made for


def journal(path: Path, key: str) -> Path:
    """Return ``path``.partial for ``key``: a journal of the same key is kept, any other is emptied.

    The folder is created together with its key and renamed before it is emptied. A killed process therefore never
    leaves a journal without a key.

    Raises: BadArtifact: ``path``.partial exists and is not a journal.
    """
    folder = journal_of(resolved(path))
    found = key_of(folder)
    if found == key:
        return folder
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadArtifact(f"{folder} is in the way and is no journal of mystudio; move it or choose another name")
    discard(folder)
    new = beside(folder, "new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write_bytes(new / KEY, key.encode())
    os.rename(new, folder)
    return folder


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file atomically: after a crash it holds the old or the new content.

    Raises: OSError: the file could not be written; the temporary file is removed.
    """
    temporary = derived(path, ".", ".new")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise


def seal(path: Path, content: bytes) -> None:
    """Write a checkpoint followed by its digest. Raises OSError."""
    write_bytes(path, content, hashlib.sha256(content).digest())


def unseal(path: Path) -> bytes | None:
    """Return the content of a checkpoint that ``seal`` wrote, or None if it is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content, seen = data[:-32], data[-32:]
    return content if hashlib.sha256(content).digest() == seen else None


class DiskCheckpoints:
    """Checkpoints on disk: named arrays in a journal, each file with its digest (``selfscan.checkpoints``)."""

    def __init__(self, folder: Path):
        self.folder = folder

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays stored as ``name``, or None if they are missing or damaged and must be computed again."""
        path = self.folder / f"{name}.npz"
        if unseal(path) is None:
            return None
        try:
            return npz.load(path)  # a zip reader ignores the digest after the end of the zip
        except ValueError:
            return None

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Store arrays as ``name``. Raises OSError."""
        np.savez(content := BytesIO(), **arrays)
        seal(self.folder / f"{name}.npz", content.getvalue())

    def show(self, name: str, picture: np.ndarray) -> None:
        """Write a picture [H, W, 3] uint8 RGB as NAME.png. Raises OSError."""
        import cv2

        write_bytes(self.folder / f"{name}.png", cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


def journal_of(path: Path) -> Path:
    """Return the folder in which an unfinished stage keeps its checkpoints."""
    return derived(path, after=SUFFIX)


def key_of(folder: Path) -> str | None:
    """Return the key that a journal was made for, or None if the folder is not a journal."""
    stamp = folder / KEY
    return stamp.read_text(errors="replace") if stamp.is_file() else None


def discard(folder: Path) -> None:
    """Remove a journal: rename it first, so that its name is free at once, then delete its content."""
    if not folder.exists():
        return
    gone = beside(folder, "deleted")
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)
