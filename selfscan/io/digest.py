"""The digest that identifies files."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK = 1 << 20  # bytes read at once


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex. Raises OSError."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()
