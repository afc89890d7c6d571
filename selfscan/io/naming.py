"""Names made from other names: never longer than a file system allows, and never equal for different names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

LONGEST = 255  # bytes of a name on usual file systems
LEAST = 32  # bytes, below which a file system's own limit is not believed
DIGITS = 12  # hexadecimal digits of the digest that stands for what was cut off


def derived(path: Path, before: str = "", after: str = "", stem: str | None = None) -> Path:
    """A path in the folder of ``path``, named ``before`` + its name + ``after``.

    If that is too long for the folder's file system, the end of the name is replaced by a digest of the whole.

    Args:
        path: the file or folder whose name is extended.
        before, after: kept in full, so that the result is still recognised by its beginning and its ending.
        stem: the name to extend, instead of that of ``path``.
    """
    middle = path.name if stem is None else stem
    return path.with_name(bounded(before, middle, after, longest(path.parent)))


def bounded(before: str, middle: str, after: str, most: int = LONGEST) -> str:
    """``before`` + ``middle`` + ``after`` in at most ``most`` bytes; a ``middle`` that is too long ends in a digest."""
    whole = os.fsencode(before + middle + after)
    if len(whole) <= most:
        return before + middle + after
    mark = f"~{hashlib.sha256(whole).hexdigest()[:DIGITS]}"
    room = most - len(os.fsencode(before + mark + after))
    cut = os.fsencode(middle)[: max(room, 0)].decode("utf-8", "ignore")  # never half a character
    return before + cut.rstrip() + mark + after


def longest(folder: Path) -> int:
    """Bytes that a name in a folder may have; some encrypting file systems allow fewer than others."""
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    try:
        most = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return LONGEST
    return min(most, LONGEST) if most >= LEAST else LONGEST
