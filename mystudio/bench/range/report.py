"""The comparison of an avatar with the full scan's and with an earlier one: rows of the tables, and strips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mystudio.actors.exercise import LACKS, Exercise
from mystudio.bench import comparison
from mystudio.bench.ledger import Ledger
from mystudio.bench.range.score import closed, combined
from mystudio.bench.sheet import COLUMNS, contact_sheet
from mystudio.errors import StudioError
from selfscan.types import Array, Observation

FULL = "full"  # name of the row whose scan lacks nothing
EARLIER, NOW, CEILING, CLOSED = "before", "this avatar", "full scan", "gap closed, %"

Rows = Mapping[str, Mapping[str, Any]]  # name of a row -> the ledger's row


def title_of(row: str) -> str:
    """What a scan lacks, in words."""
    return "full" if row == FULL else LACKS[row].title


def columns_of(exercise: Exercise, row: str) -> Array:
    """Ascending frames of a strip: one at rest, then the motions that the scan lacks, evenly over their spans."""
    needs = LACKS[row].needs
    count = (COLUMNS - 1) // len(needs)
    parts = [np.linspace(span.start, span.stop - 1, count + 2)[1:-1] for span in map(exercise.spans.get, needs) if span]
    return np.unique(np.concatenate([exercise.rest[:1], *parts]).round().astype(int))


def keep(out: Path, seed: int, row: str, frames: Array, images: Array) -> None:
    """Keep the pictures of the strips' frames; images: [T, 256, 256, 3] uint8 of all frames."""
    path = _kept(out, seed, row)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, frames=frames, images=images[frames])


def add(ledger: Ledger, earlier: Ledger | None, seed: int, rows: Rows) -> list[str]:
    """Add the rows of the three tables of one person; returns their keys.

    Args: earlier: the ledger of the floor. rows: this run's avatars by name.
    Raises: StudioError: the floor lacks a row, or its clips are others.
    """
    before = _of(earlier, seed, rows) if earlier else {}
    full, keys = (before if earlier else rows).get(FULL), list[str]()

    def tell(table: str, name: str, what: str, labels: Mapping[str, str], values: Mapping[str, Any]) -> None:
        words = {"table": table, "person": f"{seed}", **labels}
        keys.append(ledger.measure(f"range/{seed}/{name}/{what}", values, words, lambda _: values)["key"])

    for name, row in rows.items():
        if full and name != FULL:
            for what, values in _compared(name, row, before.get(name), full).items():
                tell("gap", name, what, {"scan": title_of(name), "values of": what}, values)
    for what, row in {EARLIER: before.get(FULL), NOW: rows.get(FULL)}.items():
        for motion, values in row["values"]["motions"].items() if row else ():
            labels = {"motion": motion} | ({"values of": what} if earlier else {})
            tell("full", FULL, f"{what} {motion}", labels, values)
    for motion, values in rows[FULL]["values"]["seen"].items() if FULL in rows else ():
        tell("seen", "truth", motion, {"motion": motion}, values)
    return keys


def _of(earlier: Ledger, seed: int, rows: Rows) -> dict[str, dict[str, Any]]:
    """The floor's rows by name."""
    found = {}
    for name in dict.fromkeys((FULL, *rows)):
        row = earlier.find(f"range/{seed}/{name}/avatar")
        clips = row["values"]["clips"] if row else None
        if row is None or (name in rows and clips != rows[name]["values"]["clips"]):
            raise StudioError(
                f"{earlier.path}: expected the row {name} of person {seed} from the same clips, there is "
                f"{'none' if row is None else 'one from others'}; run the same command there first, without the change"
            )
        found[name] = row
    return found


def _compared(name: str, row: Mapping, before: Mapping | None, full: Mapping) -> dict[str, dict[str, float | None]]:
    """Label -> values over the motions that a scan lacks."""
    needs = LACKS[name].needs
    parts = {EARLIER: before, NOW: row, CEILING: full}
    found = {what: combined(part["values"]["motions"], needs) for what, part in parts.items() if part}
    if EARLIER in found:
        found[CLOSED] = closed(found[EARLIER], found[NOW], found[CEILING])
    whole = full["values"]["shown"][name]
    found[NOW]["shown"] = 100 * row["values"]["shown"][name] / max(whole, 1e-9)
    return found


def strips(out: Path, floor: Path | None, seed: int, rows: Rows, actor: Any) -> None:
    """Draw a strip for each row: driver, truth, and the pictures of the avatars that there are."""
    from selfscan.face.observe import observe

    driving: Observation | None = None
    for name, row in rows.items():
        path = out / "strips" / f"{seed}-{name}.png"
        if name == FULL or (path.is_file() and not row["new"]):
            continue
        driving = driving or observe(actor.driver, size=256)
        frames = columns_of(actor.exercise, name)
        shown = {"driver": comparison.crops(driving, frames), "truth": actor.true_images[frames]}
        kept = {CEILING: (floor or out, FULL), EARLIER: (floor, name), NOW: (out, name)}
        for what, (folder, which) in kept.items():
            if folder and _kept(folder, seed, which).is_file():
                with np.load(_kept(folder, seed, which)) as file:
                    at = {int(frame): image for frame, image in zip(file["frames"], file["images"])}
                shown[f"{what}: {title_of(which)}"] = np.stack([at[int(frame)] for frame in frames])
        contact_sheet(path, shown, [float(driving.track.times[frame]) for frame in frames])


def _kept(out: Path, seed: int, row: str) -> Path:
    return out / "pictures" / f"range-{seed}-{row}.npz"
