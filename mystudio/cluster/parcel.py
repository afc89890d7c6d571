"""The files that a job reads and makes, as a mirror of this machine's folders, so that relative paths stay valid."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mystudio.errors import BadArtifact, BadJob, StudioError
from mystudio.jobs.types import Work
from mystudio.storage.content import Content
from mystudio.storage.journal import KEY, journal_of
from mystudio.storage.manifest import MANIFEST, open_folder
from mystudio.storage.products import sidecar_of

Files = dict[str, tuple[str, int]]  # path in the mirror -> sha256, bytes
#: kind of artifact -> inputs that stages which read it read as well
READ_TOO: Mapping[str, tuple[str, ...]] = {"take": ("avatar", "performance", "take"), "performance": ("video",)}
FOR_REPORTS: Mapping[str, tuple[str, ...]] = {**READ_TOO, "avatar": ("scan",)}
PARTIAL = ".partial"


def mirrored(root: Path, path: str | Path) -> Path:
    """Return the place of a path in a mirror: the same path below ``root``."""
    return root / os.path.relpath(os.path.abspath(path), "/")


def packed(work: Work, content: Content) -> Files:
    """Store everything that a job reads, and what is there of its result; returns the mirror's files.

    Raises: BadJob: an option names a file that must not leave this machine, or only this machine has. BadArtifact: an
        input is damaged or missing. OutputFailed: the store cannot be written.
    """
    files: Files = {}
    for path in sorted(set(_paths(work))):
        for file in files_of(path):
            files[os.path.relpath(file, "/")] = content.put(file)
    return files


def files_of(path: Path) -> Iterator[Path]:
    """Every file of a folder, or the file itself; hidden files inside are another process's."""
    if not path.is_dir():
        yield path
        return
    for at, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(at, name) for name in sorted(names) if not name.startswith("."))


def _paths(work: Work) -> Iterator[Path]:
    table = FOR_REPORTS if work.kind == "evaluate" else READ_TOO
    for path in map(Path, work.inputs.values()):
        yield from _with_inputs(Path(os.path.abspath(path)), table)
        yield from _words_of(path) if work.kind == "scan" else ()
    out = Path(os.path.abspath(work.out))
    beside = [out, journal_of(out), sidecar_of(out)]
    if work.kind == "reenact":  # the measured clip, which other takes use
        stem = Path(work.inputs["video"]).stem
        beside += [p for p in out.parent.glob("*.performance*") if p.name.startswith(stem)]
    yield from (path for path in beside if path.is_file() or path.is_dir() and ours(path))
    yield from _named(work.options)


def _words_of(clip: Path) -> Iterator[Path]:
    from mystudio.live.recording import words_of  # it imports torch, which a node's own process does without

    if (words := words_of(clip)).is_file():
        yield Path(os.path.abspath(words))


def ours(folder: Path) -> bool:
    """Whether a folder is an artifact or a journal."""
    return (folder / MANIFEST).is_file() or (folder / KEY).is_file()


def _with_inputs(path: Path, table: Mapping[str, tuple[str, ...]]) -> Iterator[Path]:
    if not path.exists():
        raise BadArtifact(f"{path} does not exist; it may have been moved")
    yield path
    if path.is_dir() and (path / MANIFEST).is_file():
        folder = open_folder(path)
        for name in table.get(folder.manifest.type, ()):
            if source := folder.source_if_there(name):
                yield from _with_inputs(source, table)


def _named(options: Mapping[str, Any]) -> Iterator[Path]:
    """Files that options name."""
    for option in options.get("options", ()):
        if str(option).partition("=")[0].strip() in ("provenance.sign_key", "provenance.sign_cert"):
            raise BadJob(
                "a signing key does not leave this machine: run this job with --on this-machine, or let nodes sign "
                "with their own key"
            )
    for name in ("recipe", "base"):
        path = Path(str(options.get(name, "")))
        if path.is_absolute() and path.is_file():
            yield path
            if name == "base":  # an encoder and a start, beside it
                yield from sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))


def moved(work: Work, root: Path) -> Work:
    """Return a job whose files are in a mirror."""
    slash = os.sep if str(work.out).endswith(os.sep) else ""
    inputs = {name: str(mirrored(root, path)) for name, path in work.inputs.items()}
    options = dict(work.options)
    for name in ("recipe", "base"):
        if os.path.isabs(str(options.get(name, ""))):
            options[name] = str(mirrored(root, options[name]))
    return Work(work.kind, inputs, f"{mirrored(root, work.out)}{slash}", options)


def unpacked(files: Mapping[str, tuple[str, int]], root: Path, content: Content) -> None:
    """Make a mirror. Raises BadArtifact, OSError: see ``Content.get``."""
    for name, (sha, size) in files.items():
        target = root / name
        if os.path.isabs(name) or not Path(os.path.normpath(target)).is_relative_to(root):
            raise BadArtifact(f"expected a path in the mirror, got {name!r:.80}; the request is damaged")
        content.get(sha, size, target)


def made_in(root: Path, out: Path, sent: Mapping[str, tuple[str, int]], content: Content, partial: bool) -> Files:
    """Store what a stage has made beside ``out`` in a mirror; returns the files that are new or have changed.

    Args: partial: of its journals alone, which grow while it runs; else of all but those.
    """
    found: Files = {}
    for file in _beside(out.parent, partial):
        try:
            stored = content.put(file)
        except FileNotFoundError:  # replaced at this moment
            continue
        name = os.path.relpath(file, root)
        if sent.get(name) != stored:
            found[name] = stored
    return found


def _beside(folder: Path, partial: bool) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith(PARTIAL):
            yield from files_of(path) if partial and ours(path) else ()
        elif not partial and (path.is_file() or not path.name.startswith(".")):
            yield from files_of(path)


def why(error: Exception) -> str:
    """Return an error as one sentence."""
    if isinstance(error, OSError) and not isinstance(error, StudioError):
        return f"{error.filename or 'a file'}: {error.strerror or error}; free space there"
    return str(error)
