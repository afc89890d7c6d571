"""Files for people, such as finished clips: made once, recorded in a sidecar, locked while they are made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mystudio import __version__
from mystudio.errors import BadArtifact, OutputFailed
from mystudio.storage.journal import discard, journal, journal_of, key_of, write_bytes
from mystudio.storage.manifest import MAX_MANIFEST_BYTES, beside, digest, digest_of, resolved
from mystudio.storage.workspace import lock, plain, refuse_inputs, tidy


@dataclasses.dataclass
class Product:
    """One making of a file for people, holding its lock."""

    path: Path
    done: bool  # it is already what would be made
    key: str  # of what it is made from, and how

    def journal(self) -> Path:
        """Return the folder where the maker keeps what it needs to resume; a stale one is emptied."""
        return journal(self.path, self.key)


@contextmanager
def product(path: Path, inputs: Mapping[str, Path], settings: Any, force: bool = False) -> Iterator[Product]:
    """Lock a file for people (a video) and say whether it is already what would be made; record it on success.

    The record is a small hidden file beside it: a finished clip is not an artifact that later stages read. A journal
    goes when both are there.
    """
    path = resolved(path)
    refuse_inputs(path, inputs)
    if path.is_dir():
        raise BadArtifact(f"{path} is a folder, expected the name of a file; choose another name")
    with lock(path):
        tidy(path)
        made = {
            "inputs": {name: digest(p) for name, p in inputs.items()},
            "settings": plain(settings),
            "mystudio": __version__,
        }
        known = read_sidecar(path)
        done = not force and path.is_file() and known == made | {"sha256": known.get("sha256")}
        done = done and known["sha256"] == digest(path)
        job = Product(path, done, digest_of(made))
        yield job
        try:
            if not done:
                write_bytes(sidecar_of(path), (json.dumps(made | {"sha256": digest(path)}, indent=1) + "\n").encode())
        except OSError as error:
            raise OutputFailed(
                f"{path} is written, the record beside it could not be ({error.strerror or error}); "
                "free space, and the same command makes both again"
            ) from error
        if key_of(journal_of(path)) == job.key:
            with suppress(OSError):  # the file is there; the next run tries again
                discard(journal_of(path))


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return what is recorded about a finished file (inputs, settings, sha256); empty if nothing is."""
    file = sidecar_of(resolved(path))
    try:
        if not file.is_file() or file.stat().st_size > MAX_MANIFEST_BYTES:
            return {}
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sidecar_of(path: Path) -> Path:
    """Return where the record of how a file was made lies: beside it."""
    return beside(path, "made")
