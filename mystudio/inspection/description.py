"""The result of looking at a file or folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LINES = 6


@dataclass(frozen=True)
class Description:
    """Six lines for people, and the same facts for programs."""

    kind: str  # clip, picture, scan, avatar, take, generator, checkpoint, directions, recipe, ...
    lines: Mapping[str, str]  # label -> text, in order: LINES of them
    facts: dict[str, Any] = field(default_factory=dict[str, Any])  # JSON values

    def __post_init__(self):
        if len(self.lines) != LINES:
            raise ValueError(f"expected {LINES} lines, got {len(self.lines)}")

    def text(self) -> str:
        """The lines as text, labels in one column."""
        width = max(map(len, self.lines)) + 2
        return "\n".join(f"{label + ':':{width}}{' '.join(text.split())}" for label, text in self.lines.items())


def size_in_words(count: int) -> str:
    """A number of bytes in words, such as "3.2 MB"."""
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
