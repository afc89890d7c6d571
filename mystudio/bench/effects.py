"""What edits do to the picture, as files: ``evaluation.effects`` on an avatar or a take, with a sheet of pictures."""

from __future__ import annotations

import json
from pathlib import Path

from mystudio.bench.sheet import contact_sheet
from mystudio.errors import NotOffered
from mystudio.evaluation import effects
from mystudio.storage.artifacts import load
from mystudio.storage.journal import write_bytes
from mystudio.types import Avatar, Progress, Take, silent


def run_effects(avatar: Path, out: Path, take: Path | None = None, frames: int = 4, progress: Progress = silent) -> str:
    """Measure every edit of an avatar; write effects.json, effects.md and effects.png.

    Args: take: ``frames`` of its frames are edited; None = the neutral face.
    Returns: the tables, as Markdown.
    Raises: NotOffered: the avatar has no edits in their own unit.
    """
    found = effects.measure(load(avatar, Avatar), load(take, Take) if take else None, frames, progress=progress)
    if not found:
        raise NotOffered(f"{avatar} has no measured edits; make an avatar that has them with `mystudio edit learn`")
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / "effects.json", (json.dumps(effects.values(found), indent=1) + "\n").encode())
    tables = effects.markdown(found)
    write_bytes(out / "effects.md", tables.encode())
    contact_sheet(out / "effects.png", effects.pictures(found), [f"{s:+g}" for s in found[0].strengths])
    return tables
