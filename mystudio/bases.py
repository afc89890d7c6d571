"""Base generators, from which avatars are tuned. They are found by name in the user's folder and in the package."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mystudio import engines
from mystudio.errors import BadArtifact

_SUFFIX = ".safetensors"
_PACKAGED = Path(__file__).parent / "data" / "bases"


@dataclass(frozen=True)
class Base:
    """A base generator on disk; weights, digest and header are read on first use and cached."""

    name: str
    path: Path

    @cached_property
    def generator(self):
        """The ``stylegan2.Generator``. All callers share it: copy it before tuning. Raises BadCheckpoint."""
        from mystudio.stylegan2.checkpoint import load_generator

        return load_generator(self.path)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file. Raises BadCheckpoint."""
        from mystudio.stylegan2.checkpoint import digest

        return digest(self.path)

    @cached_property
    def info(self) -> dict[str, str]:
        """Header fields: shape, meaning of z, training, source. Raises BadCheckpoint."""
        from mystudio.stylegan2.checkpoint import read_info

        return read_info(self.path)

    def companion_path(self, kind: str) -> Path:
        """Path of an engine's file for this base, NAME.KIND.safetensors beside it; the file may not exist."""
        return self.path.with_name(f"{self.path.name.removesuffix(_SUFFIX)}.{kind}{_SUFFIX}")

    def companion(self, kind: str) -> Path | None:
        """Path of an engine's file for this base, such as the "encoder"; None if it does not exist."""
        path = self.companion_path(kind)
        return path if path.is_file() else None


def user_folder() -> Path | None:
    """Folder of imported bases: ``$MYSTUDIO_HOME/bases`` or ``~/.local/share/mystudio/bases``; None without a home."""
    if home := os.environ.get("MYSTUDIO_HOME"):
        return Path(home) / "bases"
    try:
        return Path.home() / ".local/share/mystudio/bases"
    except RuntimeError:
        return None


def list_bases() -> list[Base]:
    """All bases in order of their names. A user's base hides a packaged base of the same name."""
    found: dict[str, Base] = {}
    companions = tuple(f".{kind}{_SUFFIX}" for kind in engines.companions())
    for folder in (_PACKAGED, user_folder()):
        for path in _files(folder) if folder else ():
            if not path.name.endswith(companions) and not path.name.startswith("."):
                name = path.name.removesuffix(_SUFFIX)
                found[name] = Base(name, path)
    return [found[name] for name in sorted(found)]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob(f"*{_SUFFIX}"))
    except OSError:  # an unreadable folder counts as empty
        return []


def find_base(name_or_path: str | Path) -> Base:
    """Find a base by its name, or by the path of its file.

    Raises:
        BadArtifact: there is no such base; the message lists the existing names.
    """
    text = str(name_or_path)
    for base in list_bases():
        if base.name == text:
            return base
    path = Path(name_or_path)
    if path.suffix == _SUFFIX and path.is_file():
        return Base(path.name.removesuffix(_SUFFIX), path)
    names = ", ".join(base.name for base in list_bases()) or "none"
    raise BadArtifact(
        f"expected a base generator's name or file, got {text!r}; known bases: {names}; import a checkpoint to add one"
    )


def import_base(src: str | Path, name: str) -> Base:
    """Convert a StyleGAN2 checkpoint and store it as a base of the user; no code in the file is executed.

    Args:
        src: official ``.pkl``, a ``.pt`` of rosinality, pSp, e4e, ReStyle or PTI, or mystudio's ``.safetensors``.
        name: letters, digits, ``-``, ``_`` and inner dots; no base may have it yet.

    Raises:
        BadArtifact: the name is invalid or taken, or the user has no home folder.
        UnsafeCheckpoint, BadCheckpoint: see ``import_checkpoint``.
        OutputFailed: the user's folder cannot be written.
    """
    from mystudio.stylegan2.checkpoint import import_checkpoint

    taken = tuple(f".{kind}" for kind in engines.companions())
    if not re.fullmatch(r"\w[\w.-]{0,99}", name) or name.endswith((".", *taken)):
        raise BadArtifact(f"expected a name of letters, digits, '-', '_' and '.' for the base, got {name[:100]!r}")
    if name in {base.name for base in list_bases()}:
        raise BadArtifact(f"expected a new name for the base, {name!r} exists; choose another or remove that file")
    folder = user_folder()
    if folder is None:
        raise BadArtifact("expected a folder for bases, this user has no home; set MYSTUDIO_HOME to a folder")
    path = folder / f"{name}{_SUFFIX}"
    import_checkpoint(src, path)
    return Base(name, path)
