"""Output files such as finished clips: locked while they are written, and described in a sidecar file."""

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
from mystudio.storage.locks import lock
from mystudio.storage.manifest import MAX_MANIFEST_BYTES, beside, digest, digest_of, resolved
from mystudio.storage.workspace import plain, refuse_inputs, tidy


@dataclasses.dataclass
class Product:
    """One run that makes an output file, or a folder of pictures, and holds its lock."""

    path: Path
    done: bool  # the file exists already, with equal inputs and settings
    key: str  # digest of inputs and settings
    facts: dict[str, Any]  # JSON values about the result, kept in the sidecar: what the run that made it told

    def journal(self) -> Path:
        """Return the folder for the checkpoints of this file; one for other inputs or settings is emptied."""
        return journal(self.path, self.key)


@contextmanager
def product(
    path: Path, inputs: Mapping[str, Path], settings: Any, force: bool = False, folder: bool = False
) -> Iterator[Product]:
    """Lock an output file, report whether it is up to date, and write its sidecar on success.

    The sidecar is a small hidden file beside the output, because later stages do not read a clip as an artifact. The
    journal is deleted once the output and its sidecar are written.

    Args:
        folder: the output is a folder of pictures; one with other files in it is refused.
    """
    path = resolved(path)
    refuse_inputs(path, inputs)
    with lock(path):
        tidy(path)
        made = {
            "inputs": {name: digest(p) for name, p in inputs.items()},
            "settings": plain(settings),
            "mystudio": __version__,
        }
        known = read_sidecar(path)
        _refuse_foreign(path, known, folder)
        done = not force and path.exists() and {name: known.get(name) for name in made} == made
        done = done and known.get("sha256") == content_digest(path)
        run = Product(path, done, digest_of(made), known.get("facts", {}) if done else {})
        yield run
        try:
            if not done:
                told = {"sha256": content_digest(path), "name": path.name, "facts": run.facts}
                write_bytes(sidecar_of(path), (json.dumps(made | told, indent=1) + "\n").encode())
        except OSError as error:
            raise OutputFailed(
                f"{path} is written, the record beside it could not be ({error.strerror or error}); "
                "free space, and the same command makes both again"
            ) from error
        if key_of(journal_of(path)) == run.key:
            with suppress(OSError):  # the file is written; the next run tries again to delete the journal
                discard(journal_of(path))


def _refuse_foreign(path: Path, known: Mapping[str, Any], folder: bool) -> None:
    if path.is_dir() and not folder:
        raise BadArtifact(f"{path} is a folder, expected the name of a file; choose another name")
    if path.exists() and folder and not path.is_dir():
        raise BadArtifact(f"{path} is a file, expected a folder of pictures; choose another name")
    if path.is_dir() and any(path.iterdir()) and known.get("sha256") != content_digest(path):
        raise BadArtifact(f"{path} holds other files, expected an empty or a new folder; choose another name")


def content_digest(path: Path) -> str:
    """Return the sha256 of an output file, or of the names and contents in an output folder."""
    if not path.is_dir():
        return digest(path)
    return digest_of({file.name: digest(file) if file.is_file() else "" for file in path.iterdir()})


def products_in(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the outputs that have a sidecar in a folder, and what that holds; an output may be gone."""
    for file in sorted(place.glob(".*.made")):
        path = file.with_name(file.name[1:].removesuffix(".made"))
        known = _read(file)
        name = known.get("name")
        path = path.with_name(name) if isinstance(name, str) and Path(name).name == name else path
        if sidecar_of(path) == file:
            yield path, known


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the sidecar of a finished file (inputs, settings, sha256); empty if there is none."""
    return _read(sidecar_of(resolved(path)))


def _read(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file() or file.stat().st_size > MAX_MANIFEST_BYTES:
            return {}
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sidecar_of(path: Path) -> Path:
    """Return the path of an output file's sidecar."""
    return beside(path, "made")
