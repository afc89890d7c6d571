"""The manifest of an artifact folder, and verified reading: every file is compared with its digest first."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mystudio import __version__
from mystudio.errors import BadArtifact
from selfscan.io.digest import clip_digest, file_digest
from selfscan.io.naming import derived

SCHEMA = 2  # schema written now; in schema 1, avatars and takes held the personal engine's fields directly
OLDEST_SCHEMA = 1  # oldest schema that can be read; older artifacts are converted on reading (storage/upgrade.py)
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 8 << 20
MAX_FILES = 20_000
MAX_FILE_BYTES = 16 << 30
SAFE_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")  # at most one sub-folder
#: kind of artifact -> the command that makes it
MADE_BY = {
    "scan": "`mystudio scan`",
    "avatar": "`mystudio personalize`",
    "performance": "`mystudio reenact`",
    "take": "`mystudio reenact`",
    "report": "`mystudio evaluate`",
}
RECORDED_VERSIONS = ("torch", "numpy", "mediapipe", "lpips", "av")


@dataclasses.dataclass(frozen=True)
class InputRecord:
    """An input of a stage: a file or another artifact."""

    path: str  # relative to the folder that holds the artifact where possible
    digest: str  # sha256


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file of an artifact."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """An artifact's type, inputs, settings and versions, and the digests of its files."""

    type: str
    schema: int
    inputs: dict[str, InputRecord]
    settings: dict[str, Any]  # the resolved recipe of the stage
    seed: int
    versions: dict[str, str]
    created: str  # ISO 8601, UTC
    files: dict[str, Entry]
    digest: str  # sha256 of type, schema and file digests: equal digests mean equal content
    checksum: str = ""  # sha256 of all other fields; "" in manifests of older versions

    def content_digest(self) -> str:
        """Return the sha256 of type, schema and file digests."""
        files = {name: entry.sha256 for name, entry in self.files.items()}
        return digest_of({"type": self.type, "schema": self.schema, "files": files})

    def own_digest(self) -> str:
        """Return the sha256 of all fields except the checksum, in canonical JSON."""
        values = dataclasses.asdict(self)
        del values["checksum"]
        return digest_of(values)


class Folder:
    """An artifact opened for reading; every file is compared with its digest before it is used."""

    def __init__(self, path: Path, manifest: Manifest):
        self.path, self.manifest = path, manifest

    def read(self, name: str) -> bytes:
        """Return the verified content of one file.

        Raises: BadArtifact: the file is missing or differs from what was written.
        """
        path, entry = self.file(name)
        try:
            with open(path, "rb") as file:
                data = file.read(entry.bytes + 1)
        except OSError as error:
            raise BadArtifact(f"{self.path / name} cannot be read ({error.strerror}); make it again") from None
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BadArtifact(f"{self.path / name} is damaged (its digest differs); make the artifact again")
        return data

    def verified(self, name: str) -> Path:
        """Return the path of one file, after its content was compared with its digest block by block.

        Raises: BadArtifact: as ``read``.
        """
        path, entry = self.file(name)
        try:
            right = path.stat().st_size == entry.bytes and digest(path) == entry.sha256
        except OSError as error:
            raise BadArtifact(f"{self.path / name} cannot be read ({error.strerror}); make it again") from None
        if not right:
            raise BadArtifact(f"{self.path / name} is damaged (its digest differs); make the artifact again")
        return path

    def file(self, name: str) -> tuple[Path, Entry]:
        """Return the path of one file and its entry in the manifest; the content is not compared here.

        Raises: BadArtifact: the artifact lists no such file, or it is a link.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BadArtifact(f"{self.path} lists no file {_printable(name, 80)}; make the artifact again")
        if any(part.is_symlink() for part in (self.path / name, (self.path / name).parent)):
            raise BadArtifact(f"{self.path / name} is a link, and artifacts hold none; make the artifact again")
        return self.path / name, entry

    def source(self, name: str) -> Path:
        """Return the path of the input ``name``, after checking that its content has not changed.

        Raises: BadArtifact: the input was moved or has changed.
        """
        source = self.manifest.inputs.get(name)
        if source is None:
            raise BadArtifact(f"{self.path} does not record its {name}; make it again")
        path = Path(os.path.normpath(self.path.parent / source.path))
        if not is_there(path):
            raise BadArtifact(f"{self.path} needs its {name} at {path}, which is not there; move it back")
        if digest(path) != source.digest:
            raise BadArtifact(f"{path} has changed since {self.path} was made from it; make {self.path.name} again")
        return path

    def source_if_there(self, name: str) -> Path | None:
        """As ``source``, or None if the input is missing: a shared avatar comes without its scan."""
        recorded = self.manifest.inputs.get(name)
        return self.source(name) if recorded and (self.path.parent / recorded.path).exists() else None


def digest_of(value: Any) -> str:
    """Return the sha256 of a JSON-able value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest(path: Path) -> str:
    """Return the sha256 of a file or of a folder of pictures, or the content digest of an artifact."""
    if Path(path).is_dir() and not (Path(path) / MANIFEST).exists() and not beside(resolved(path), "old").exists():
        return clip_digest(path)
    if Path(path).is_dir() or not Path(path).exists() and is_there(path):
        return open_folder(path).manifest.digest
    return file_digest(path)


def is_there(path: Path) -> bool:
    """Return whether a file or artifact exists; true also while a writer replaces the artifact."""
    path = resolved(path)
    return path.exists() or path.name != "" and beside(path, "old").exists() or path.exists()


def open_folder(path: Path, kind: str | None = None) -> Folder:
    """Read and check an artifact's manifest.

    Args:
        path: the artifact.
        kind: required type ("scan", "avatar", ...), or None for any.
    Raises: BadArtifact: the artifact is missing, damaged, or of another type or version.
    """
    path = resolved(path)
    found, manifest = _find_manifest(path, kind)
    check_schema(manifest, path)
    if kind is not None and manifest.type != kind:
        raise BadArtifact(
            f"{path} is {with_article(manifest.type)}, expected {with_article(kind)}; "
            f"give the folder of {with_article(kind)}"
        )
    return Folder(found, manifest)


def _find_manifest(path: Path, kind: str | None) -> tuple[Path, Manifest]:
    """Find the manifest, with a few retries: a writer may replace the folder between the check and the read."""
    missing = BadArtifact(f"{path} does not exist; give the folder that {MADE_BY.get(kind or '', 'mystudio')} made")
    reason = missing
    for _ in range(20):
        found = path if path.exists() else beside(path, "old")  # between a writer's two renames
        try:
            return found, _parse_manifest(found, kind)
        except (FileNotFoundError, BadArtifact) as error:
            reason = error if isinstance(error, BadArtifact) and found.exists() else missing
            time.sleep(0.002)
    raise reason


def written(path: Path) -> tuple[int, int] | None:
    """What tells one writing of an artifact from another, also of equal content; None if there is no artifact."""
    path = resolved(path)
    for folder in (path, beside(path, "old")):
        try:
            found = (folder / MANIFEST).stat()
        except OSError:
            continue
        return found.st_ino, found.st_mtime_ns
    return None


@dataclasses.dataclass(frozen=True)
class Head:
    """What a manifest of any version begins with, whatever else it holds."""

    schema: int


def check_schema(manifest: Manifest | Head, place: Path | str) -> None:
    """Raise BadArtifact unless this version reads an artifact of this schema."""
    if manifest.schema > SCHEMA:
        raise BadArtifact(
            f"{place} was made by a newer mystudio (schema {manifest.schema}, this version reads up to {SCHEMA}); "
            "update mystudio"
        )
    if manifest.schema < OLDEST_SCHEMA:
        raise BadArtifact(f"{place} has the unknown schema {manifest.schema}; make it again")


def with_article(kind: str) -> str:
    """Return a kind of artifact with its indefinite article: "an avatar"."""
    shown = _printable(kind, 40)
    return f"an {shown}" if shown[:1] in ("a", "e", "i", "o", "u") else f"a {shown}"


def _printable(text: str, most: int) -> str:
    """Return a text from a file for use in a message; long texts and control characters are escaped."""
    return text if text.isprintable() and len(text) <= most else ascii(text[:most])


def resolved(path: Path) -> Path:
    """Return the absolute path with links resolved."""
    return Path(os.path.realpath(path))


def beside(path: Path, role: str) -> Path:
    """Return the path of the hidden file or folder beside an artifact for ``role`` (lock, new, old)."""
    return derived(path, ".", f".{role}")


def versions() -> dict[str, str]:
    """Return the versions of mystudio and of the packages that can change a result."""
    found = {"mystudio": __version__}
    for name in RECORDED_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _parse_manifest(folder: Path, kind: str | None) -> Manifest:
    file = folder / MANIFEST
    hint = "give a file or the folder of an artifact, or make it again"
    if folder.is_file():
        wanted = with_article(kind or "artifact")
        raise BadArtifact(f"{folder} is a file, expected {wanted}; give the folder of {wanted}")
    if not file.is_file() or file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BadArtifact(f"{folder} is a folder without a usable {MANIFEST}; {hint}")
    return parse(file.read_bytes(), file, hint)


def parse(data: bytes, file: Path | str, hint: str) -> Manifest:
    """Parse a manifest and check every value.

    Args:
        data: content of the file.
        file: its path, for the error message.
        hint: advice for the error message.
    Raises: BadArtifact: the content is not a manifest, its checksum differs, or a newer version wrote it.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        check_schema(TypeAdapter(Head).validate_json(data, strict=True), file)  # newer ones may differ in all else
        manifest = TypeAdapter(Manifest).validate_json(data, strict=True)
    except ValidationError as error:
        raise BadArtifact(f"{file} is damaged ({error.errors()[0]['msg']}); {hint}") from None
    changed = manifest.checksum not in ("", manifest.own_digest())
    if changed or len(manifest.files) > MAX_FILES or manifest.digest != manifest.content_digest():
        raise BadArtifact(f"{file} is damaged (its digest differs); {hint}")
    for name, entry in manifest.files.items():
        if not SAFE_NAME.fullmatch(name) or not 0 <= entry.bytes <= MAX_FILE_BYTES:
            raise BadArtifact(f"{file} lists a file that no artifact has ({name[:80]!r}); {hint}")
    return manifest
