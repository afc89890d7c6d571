"""Files by content: a store that several machines share, and a cache on each of them. A file's name is its sha256.

The store is a folder, or any URL that fsspec opens (an S3-compatible store, for example). What comes out of it is
compared with its name, so that neither a damaged nor a foreign file gets into a result.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from mystudio.errors import BadArtifact, OutputFailed, reason

BLOCK = 1 << 20  # bytes that are read at once
NAME = re.compile(r"[0-9a-f]{64}")


class Place(Protocol):
    """Where a store's files are."""

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def put(self, source: Path, name: str) -> None:
        """Copy a file into the store. Raises OSError."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the store. Raises OSError."""
        ...


class Folder:
    """A folder, such as one that all machines share."""

    def __init__(self, path: Path):
        self._path = path

    def has(self, name: str) -> bool:
        """See ``Place``."""
        return (self._path / name[:2] / name).is_file()

    def put(self, source: Path, name: str) -> None:
        """See ``Place``; the name appears when the whole content is there."""
        target = self._path / name[:2] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _written(target, lambda to: shutil.copyfile(source, to))

    def open(self, name: str) -> IO[bytes]:
        """See ``Place``."""
        return open(self._path / name[:2] / name, "rb")


class Remote:
    """Any URL of fsspec."""

    def __init__(self, url: str):
        import fsspec

        try:
            found: Any = fsspec.core.url_to_fs(url)  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
        except (ValueError, ImportError, OSError) as error:
            raise BadArtifact(
                f"{url}: expected a folder or a URL that fsspec opens, got {reason(error)}; correct it, or install "
                "the package that it names"
            ) from error
        self._fs, self._root = found

    def has(self, name: str) -> bool:
        """See ``Place``."""
        return bool(self._fs.exists(f"{self._root}/{name[:2]}/{name}"))

    def put(self, source: Path, name: str) -> None:
        """See ``Place``."""
        self._fs.makedirs(f"{self._root}/{name[:2]}", exist_ok=True)
        self._fs.put_file(str(source), f"{self._root}/{name[:2]}/{name}")

    def open(self, name: str) -> IO[bytes]:
        """See ``Place``."""
        return self._fs.open(f"{self._root}/{name[:2]}/{name}", "rb")


class Content:
    """A store, seen from one machine.

    Args:
        store: a folder, or a URL that fsspec opens. cache: a folder of this machine; what was fetched once is linked
            from there, after it was compared with its name.
    Raises: BadArtifact: the URL cannot be opened.
    """

    def __init__(self, store: str, cache: Path):
        self._place: Place = Remote(store) if "://" in store else Folder(Path(store))
        self._store, self._cache = store, cache
        self._known: dict[tuple[str, int, int, int], str] = {}  # path, inode, time and size -> sha256

    def put(self, path: Path) -> tuple[str, int]:
        """Store a file unless the store has it; returns its sha256 and its bytes.

        Raises: OutputFailed: the store cannot be written.
        """
        found = path.stat()
        key = str(path), found.st_ino, found.st_mtime_ns, found.st_size
        name = self._known.get(key)
        if name is None or not self._place.has(name):
            name = sha256(path)
            try:
                if not self._place.has(name):
                    self._place.put(path, name)
            except OSError as error:
                raise OutputFailed(
                    f"{self._store} could not be written ({error.strerror or error}); free space there, or choose "
                    "another store"
                ) from error
            self._known[key] = name
        return name, found.st_size

    def get(self, name: str, size: int, target: Path) -> None:
        """Put a file of the store at ``target``, whose folder is made.

        Raises:
            BadArtifact: the store has no such file, or another content under its name.
            OSError: the disk of this machine is full.
        """
        if not NAME.fullmatch(name):
            raise BadArtifact(f"expected the sha256 of a file, got {name!r:.80}; the request is damaged")
        target.parent.mkdir(parents=True, exist_ok=True)
        kept = self._cache / name[:2] / name
        if not (kept.is_file() and kept.stat().st_size == size and sha256(kept) == name):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.unlink(missing_ok=True)
            _written(kept, lambda to: self._fetch(name, to))
        target.unlink(missing_ok=True)
        try:
            os.link(kept, target)
        except OSError:  # another drive
            shutil.copyfile(kept, target)

    def _fetch(self, name: str, to: Path) -> None:
        known = hashlib.sha256()
        try:
            source = self._place.open(name)
        except OSError as error:
            raise BadArtifact(
                f"{self._store} has no file {name[:12]} ({error.strerror or error}); check that all machines see the "
                "same store, and retry the job"
            ) from error
        with source, open(to, "wb") as file:
            while block := source.read(BLOCK):
                known.update(block)
                file.write(block)
        if known.hexdigest() != name:
            raise BadArtifact(
                f"{self._store} holds another content under the name {name[:12]}; delete that file there, and retry "
                "the job"
            )


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    known = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            known.update(block)
    return known.hexdigest()


def _written(target: Path, fill: Callable[[Path], object]) -> None:
    """Let ``fill`` write a file under a name of its own, then give it its name."""
    new = target.with_name(f".{secrets.token_hex(8)}.new")
    try:
        fill(new)
        os.replace(new, target)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)
