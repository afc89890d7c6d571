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
    """One run that makes an output file and holds its lock."""

    path: Path
    done: bool  # the file exists already, with equal inputs and settings
    key: str  # digest of inputs and settings

    def journal(self) -> Path:
        """Return the folder for the checkpoints of this file; one for other inputs or settings is emptied."""
        return journal(self.path, self.key)


@contextmanager
def product(path: Path, inputs: Mapping[str, Path], settings: Any, force: bool = False) -> Iterator[Product]:
    """Lock an output file, report whether it is up to date, and write its sidecar on success.

    The sidecar is a small hidden file beside the output, because later stages do not read a clip as an artifact. The
    journal is deleted once the output and its sidecar are written.
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
        run = Product(path, done, digest_of(made))
        yield run
        try:
            if not done:
                write_bytes(sidecar_of(path), (json.dumps(made | {"sha256": digest(path)}, indent=1) + "\n").encode())
        except OSError as error:
            raise OutputFailed(
                f"{path} is written, the record beside it could not be ({error.strerror or error}); "
                "free space, and the same command makes both again"
            ) from error
        if key_of(journal_of(path)) == run.key:
            with suppress(OSError):  # the file is written; the next run tries again to delete the journal
                discard(journal_of(path))


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the sidecar of a finished file (inputs, settings, sha256); empty if there is none."""
    file = sidecar_of(resolved(path))
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
