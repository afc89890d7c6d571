"""``metrics.jsonl`` of a training run: one object a tick."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from mystudio.storage.journal import write_bytes

FILE = "metrics.jsonl"


def append(run: Path, row: dict) -> None:
    """Add a row. Raises OSError."""
    with open(run / FILE, "a") as file:
        file.write(json.dumps(row) + "\n")


def forget_after(run: Path, step: int) -> None:
    """Delete the rows after a checkpoint's step; the resumed run writes them again."""
    path, kept = run / FILE, []
    for line in path.read_text().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line may be incomplete
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_bytes(path, "".join(kept).encode())
