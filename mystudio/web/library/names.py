"""Names in the studio's folder. A client gives ids; each is looked up in a listing, and never becomes a path."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterator
from pathlib import Path

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
LONGEST = 48  # characters that are kept of a given name
MARK = 3  # bytes of chance at the end of a new name


def new_name(given: str, ending: str = "") -> str:
    """Make a safe, new name that a person can still read: "Héllo world.MP4" -> "hello-world-3f2a91.mp4"."""
    stem = Path(given.replace("\\", "/")).name
    stem = stem.rpartition(".")[0] or stem if ending else stem
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST].strip("-")
    return f"{words or 'clip'}-{secrets.token_hex(MARK)}{ending}"


def words_of(name: str) -> str:
    """The words of a name that ``new_name`` made, without its mark; of any other name its stem."""
    return re.sub(rf"-[0-9a-f]{{{2 * MARK}}}$", "", name.rpartition(".")[0] or name)


def listed(folder: Path, *endings: str) -> Iterator[Path]:
    """Yield what a folder holds under safe names with one of these endings, the oldest first; links are left out."""
    if not folder.is_dir():
        return
    found = [
        path
        for path in folder.iterdir()
        if SAFE.fullmatch(path.name) and path.name.lower().endswith(endings or "") and not path.is_symlink()
    ]
    yield from sorted(found, key=lambda path: (path.stat().st_mtime, path.name))


def find(folder: Path, name: str, *endings: str) -> Path | None:
    """Return the listed entry of this very name, or None."""
    return next((path for path in listed(folder, *endings) if path.name == name), None)
