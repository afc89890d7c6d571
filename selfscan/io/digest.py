"""The digest that identifies files."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK = 1 << 20  # bytes read at once


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes in hex. Raises OSError."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def clip_digest(path: str | Path) -> str:
    """SHA-256 of a clip: of its file, or of names and bytes of a folder of pictures. Raises OSError."""
    if not Path(path).is_dir():
        return file_digest(path)
    files = sorted(p for p in Path(path).iterdir() if p.is_file() and not p.name.startswith("."))
    return hashlib.sha256("".join(f"{file_digest(p)} {p.name}\n" for p in files).encode()).hexdigest()
