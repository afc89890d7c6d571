"""Artifact folders: data with a manifest, replaced atomically, locked while written, verified when read.

``NAME/`` is the artifact and ``NAME.partial/`` is the journal of a stage that can resume. ``.NAME.lock`` (or
``.NAME.owner``), ``.NAME.new`` and ``.NAME.old`` exist only while a process writes the artifact. If that process is
killed, the next run removes them.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mystudio import __version__
from mystudio.errors import BadArtifact, OutputFailed
from mystudio.storage.journal import DiskCheckpoints, discard, journal, journal_of, key_of
from mystudio.storage.locks import lock
from mystudio.storage.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SCHEMA,
    Entry,
    InputRecord,
    Manifest,
    beside,
    digest,
    digest_of,
    is_there,
    open_folder,
    resolved,
    versions,
    with_article,
)
from selfscan.errors import SelfscanError
from selfscan.io.naming import longest

DRAFT = "draft"  # in a manifest's settings: made before its stage was finished
#: answers of network drives that cannot flush a folder
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)


def plain(settings: Any) -> dict[str, Any]:
    """Return settings (a dataclass or a mapping of them) as JSON values."""

    def value_of(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: value_of(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {str(k): value_of(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [value_of(v) for v in value]
        return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

    return value_of(settings)


def up_to_date(
    path: Path, kind: str, inputs: Mapping[str, InputRecord], settings: Mapping[str, Any], seed: int = 0
) -> bool:
    """Return whether ``path`` holds an undamaged artifact of the same inputs, settings and seed."""
    try:
        folder = open_folder(path, kind)
    except BadArtifact:
        return False
    made = folder.manifest
    same = {n: s.digest for n, s in made.inputs.items()} == {n: s.digest for n, s in inputs.items()}
    if not same or made.settings != settings or made.seed != seed or made.versions.get("mystudio") != __version__:
        return False
    try:
        return all(digest(folder.file(name)[0]) == entry.sha256 for name, entry in made.files.items())
    except (BadArtifact, OSError):
        return False


@dataclasses.dataclass
class StageRun:
    """One run of a stage that makes one artifact and holds its lock."""

    path: Path
    kind: str
    inputs: dict[str, InputRecord]
    settings: dict[str, Any]
    seed: int
    done: bool  # the artifact is up to date: there is nothing to do

    def journal(self) -> Path:
        """Return the folder for the stage's checkpoints; one for other inputs or settings is emptied."""
        return journal(self.path, self._key)

    @contextmanager
    def checkpoints(self, *rejections: type[Exception]) -> Iterator[DiskCheckpoints]:
        """Give the checkpoints of a stage; if its input is rejected, they are deleted.

        Args: rejections: errors that reject the input; () = those of a clip.
        """
        kinds = rejections or (SelfscanError,)
        try:
            yield DiskCheckpoints(self.journal())
        except kinds:
            self.forget_journal()
            raise

    def forget_journal(self) -> None:
        """Remove this run's journal; a journal for other inputs or settings is unfinished work and is kept."""
        if key_of(journal_of(self.path)) == self._key:
            discard(journal_of(self.path))

    @property
    def _key(self) -> str:
        inputs = {name: source.digest for name, source in self.inputs.items()}
        return digest_of([self.kind, inputs, self.settings, self.seed])

    @property
    def free_for_drafts(self) -> bool:
        """Whether a draft would replace nothing but an earlier draft of the same inputs and settings."""
        if not self.path.exists() or not any(self.path.iterdir()):
            return True
        try:
            made = open_folder(self.path, self.kind).manifest
        except BadArtifact:
            return False
        same = {n: s.digest for n, s in made.inputs.items()} == {n: s.digest for n, s in self.inputs.items()}
        return same and made.settings == self._draft.settings

    @property
    def _draft(self) -> StageRun:
        return dataclasses.replace(self, settings=self.settings | {DRAFT: True})

    @contextmanager
    def writing(self, draft: bool = False) -> Iterator[Path]:
        """Give an empty folder to write into; success makes it the artifact atomically, failure changes nothing.

        Args: draft: the artifact is valid, but the same command goes on from the journal and replaces it.
        Raises: OutputFailed: the disk is full or the place cannot be written.
        """
        new = beside(self.path, "new")
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            yield new
            _finish(new, self._draft if draft else self)
            _replace(self.path, new)
            if draft:
                return
            with suppress(OSError):  # the artifact is written; the next run tries again to delete the journal
                discard(journal_of(self.path))
        except OSError as error:
            if error.errno == errno.ENOMEM or not _is_in(self.path.parent, error.filename):
                raise  # the error is not about writing this folder
            raise OutputFailed(
                f"{self.path} could not be written ({error.strerror or error}); free space or choose "
                f"another place; an older artifact there is unchanged"
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)


@contextmanager
def stage(
    path: Path, kind: str, inputs: Mapping[str, Path], settings: Any, seed: int = 0, force: bool = False
) -> Iterator[StageRun]:
    """Lock an artifact for one run of a stage and report whether it is up to date.

    Args:
        path: the artifact to make.
        kind: its type.
        inputs: name -> file or artifact that the stage reads.
        settings: dataclass or mapping; stored in the manifest.
        seed: seed of all random numbers in the stage.
        force: compute even if the artifact is up to date.
    Raises:
        ArtifactBusy: another process writes ``path``.
        BadArtifact: ``path`` is something else or one of the inputs, or an input is missing.
    """
    path = resolved(path)
    refuse_inputs(path, inputs)
    with lock(path):
        recover(path)
        tidy(path)
        _refuse_foreign(path, kind)
        sources = {
            name: InputRecord(os.path.relpath(resolved(p), path.parent), digest(p)) for name, p in inputs.items()
        }
        values = plain(settings)
        done = not force and up_to_date(path, kind, sources, values, seed)
        run = StageRun(path, kind, sources, values, seed, done)
        if done:
            run.forget_journal()
        yield run


def recover(path: Path) -> None:
    """Restore an artifact's name if its writer was killed between its two renames. The caller holds the lock."""
    if not path.exists() and beside(path, "old").exists():
        os.rename(beside(path, "old"), path)


def tidy(path: Path) -> None:
    """Remove the files that a killed writer left beside an artifact. Call it after ``recover``, with the lock held."""
    partial = journal_of(path)
    for rest in (beside(path, "old"), beside(path, "new"), beside(partial, "new"), beside(partial, "deleted")):
        shutil.rmtree(rest, ignore_errors=True)


def _is_in(folder: Path, name: Any) -> bool:
    """Return whether an error's file lies in a folder; true also for an error without a file name."""
    return (
        name is None or not isinstance(name, (str, bytes)) or resolved(Path(os.fsdecode(name))).is_relative_to(folder)
    )


def refuse_inputs(path: Path, inputs: Mapping[str, Path]) -> None:
    """Raise BadArtifact if an input is missing or is the result itself, or if a name is not UTF-8."""
    for name, source in inputs.items():
        if not is_there(source):
            raise BadArtifact(f"{source} does not exist; give the path of the {name}")
        if resolved(source) == path:
            raise BadArtifact(f"{path} is the {name} itself; choose another name for the result")
        _refuse_name(os.path.relpath(resolved(source), path.parent))
    _refuse_name(path.name)
    _refuse_long(path)


def _refuse_long(path: Path) -> None:
    """Raise BadArtifact if a file system does not take a name of this length."""
    length, most = len(os.fsencode(path.name)), longest(path.parent)
    if length > most:
        raise BadArtifact(
            f"the name {path.name[:40]}... has {length} bytes, expected at most {most}; choose a shorter name"
        )


def _refuse_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadArtifact(
            f"the name {os.fsencode(name)!r} is not UTF-8, and could not be written down; rename it, or "
            "choose another name"
        ) from None


def _refuse_foreign(path: Path, kind: str) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise BadArtifact(f"{path} is a file, expected a free name or {with_article(kind)}; choose another name")
    if not any(path.iterdir()):
        return
    try:
        with open(path / MANIFEST, "rb") as file:
            manifest = json.loads(file.read(MAX_MANIFEST_BYTES + 1))
        found = manifest["type"] if "schema" in manifest and isinstance(manifest["type"], str) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        found = None
    if found is None:  # never replace files that mystudio may not have written
        raise BadArtifact(f"{path} holds other files or a damaged {kind}; remove it or choose another name")
    if found != kind:
        raise BadArtifact(
            f"{path} is {with_article(found)}, expected a free name or {with_article(kind)}; choose another name"
        )


def _finish(folder: Path, run: StageRun) -> None:
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[file.relative_to(folder).as_posix()] = Entry(file.stat().st_size, digest(file))
    made = Manifest(
        run.kind,
        SCHEMA,
        run.inputs,
        run.settings,
        run.seed,
        versions(),
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files,
        "",
    )
    made = dataclasses.replace(made, digest=made.content_digest())
    made = dataclasses.replace(made, checksum=made.own_digest())
    (folder / MANIFEST).write_text(json.dumps(dataclasses.asdict(made), indent=1, allow_nan=False) + "\n")
    sync_tree(folder)


def _replace(path: Path, new: Path) -> None:
    old = beside(path, "old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
    os.rename(new, path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Flush a folder to disk (fsync): files first, then the folders that contain them."""
    for path in [*sorted(folder.rglob("*"), key=lambda p: p.is_dir()), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NO_SYNC):
            raise
    finally:
        os.close(handle)
