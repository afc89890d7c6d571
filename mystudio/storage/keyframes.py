"""Files of keyframes for edits: strengths over time, as TOML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mystudio.errors import BadEdit, reason
from selfscan.io.text import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed only with Python 3.10

MAX_BYTES = 1 << 20  # largest file of keyframes
LARGEST = 1e9  # largest time (s) or strength; NaN fails the comparison too


def read_keys(path: Path) -> dict[str, tuple[tuple[float, float], ...]]:
    """Read keyframes: direction -> ((seconds, strength), ...).

    Raises: BadEdit: not TOML, or not pairs of finite numbers.
    """
    hint = "expected lines like: smile = [[0.0, 0.0], [1.5, 1.0]] (seconds, strength)"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadEdit(f"{path} has more than {MAX_BYTES} bytes; {hint}")
        found = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # not TOML, no text, or a number with thousands of digits
        raise BadEdit(f"{path} is not valid TOML ({reason(error)}); {hint}") from None
    for name, pairs in found.items():
        if not (isinstance(pairs, list) and pairs and all(map(_is_pair, pairs))):
            raise BadEdit(f"{path}: {name!r}: {hint}")
    return {name: tuple((float(t), float(v)) for t, v in pairs) for name, pairs in found.items()}


def _is_pair(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) for v in value)
    return numbers and all(-LARGEST <= v <= LARGEST for v in value)
