"""results.jsonl: one line per measurement, with the commands that made it; existing rows are not measured again."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mystudio.errors import BadArtifact
from mystudio.storage.manifest import digest_of
from selfscan.io.text import read_text

NAME = "results.jsonl"


class Ledger:
    """The measurements of one folder.

    Args:
        folder: folder of results.jsonl.
        command: command line of this run, stored in every row.
        again: measure everything again.
    Raises: BadArtifact: a line other than the last is not a measurement.
    """

    def __init__(self, folder: Path, command: str = "", again: bool = False):
        self.path, self.command, self.again = Path(folder) / NAME, command, again
        self._rows = {row["key"]: row for row in _read(self.path)}

    def rows(self, part: str | None = None) -> list[dict]:
        """Return the newest row of every key (part/who/what), in the order of first measurement."""
        return [row for key, row in self._rows.items() if part is None or key.split("/")[0] == part]

    def find(self, key: str, settings: Any = None) -> dict | None:
        """Return a successful measurement made with equal settings, or None."""
        row = self._rows.get(key)
        if row is None or "error" in row or (settings is not None and row["settings"] != digest_of(settings)):
            return None
        return row

    def measure(
        self, key: str, settings: Any, labels: Mapping[str, str], run: Callable[[list[str]], Mapping[str, Any]]
    ) -> dict:
        """Measure, unless there is a row with equal settings.

        A failure is stored as a row with its reason, so that the other measurements go on. The next run tries it
        again.

        Args:
            key: part/who/what, unique.
            settings: everything that determines the result, as JSON values.
            labels: names of the row in the tables.
            run: returns name -> value, and appends the commands of its steps to the list that it receives.
        Returns: the row; ``row["new"]`` is true if it was measured by this call.
        """
        found = None if self.again else self.find(key, settings)
        if found:
            return found | {"new": False}
        steps: list[str] = []
        start = time.monotonic()
        outcome: dict[str, Any]
        try:
            outcome = {"values": clean(run(steps))}
        except Exception as error:
            outcome = {"values": {}, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        row = {
            "key": key,
            "labels": dict(labels),
            **outcome,
            "command": self.command,
            "steps": steps,
            "settings": digest_of(settings),
            "seconds": round(time.monotonic() - start, 1),
            **_circumstances(),
        }
        self._append(row)
        return row | {"new": True}

    def failures(self, keys: Iterable[str]) -> list[str]:
        """Return one sentence for each of these keys whose last measurement failed."""
        return [f"{key}: {self._rows[key]['error']}" for key in keys if "error" in self._rows.get(key, {})]

    def _append(self, row: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.is_file() and self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n")
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[row["key"]] = row


def clean(value: Any) -> Any:
    """Convert to JSON values: numbers are rounded to six significant digits, and NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(name): clean(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _read(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    rows, lines = [], read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append(row | {"key": str(row["key"]), "settings": str(row["settings"])})
        except (ValueError, KeyError, TypeError):
            if number < len(lines) and line.strip() and not _torn(line):
                raise BadArtifact(
                    f"{path}: line {number} is no measurement; remove that line, or the file "
                    "to measure everything again"
                ) from None
    return rows


def _torn(line: str) -> bool:
    """Return whether a line is an incomplete row, left by a killed writer."""
    return line.startswith('{"key"'[: len(line)])


def _circumstances() -> dict:
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
