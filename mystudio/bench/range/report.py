"""The comparison of an avatar with the full scan's and with an earlier one: rows of the tables, and strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mystudio.actors.exercise import LACKS, Exercise
from mystudio.bench import comparison
from mystudio.bench.ledger import Ledger
from mystudio.bench.range.score import closed, combined
from mystudio.bench.sheet import COLUMNS, contact_sheet
from mystudio.errors import StudioError
from selfscan.types import Array

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


def earlier_rows(floor: Path, seed: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The avatars of an earlier run by name, the full scan's among them. Raises StudioError: one is missing."""
    ledger = Ledger(floor)
    found = {name: ledger.find(f"range/{seed}/{name}/avatar") for name in dict.fromkeys((FULL, *names))}
    if missing := [name for name, row in found.items() if row is None]:
        raise StudioError(
            f"{ledger.path}: expected the rows {', '.join(found)} of person {seed}, {', '.join(missing)} are not "
            "there; run the same command with this folder as its output first, without the change"
        )
    return {name: row for name, row in found.items() if row is not None}


def add(ledger: Ledger, floor: Rows | None, seed: int, rows: Rows) -> list[str]:
    """Add the rows of the three tables of one person; returns their keys.

    Args: floor: ``earlier_rows``, None = there is no earlier run. rows: this run's avatars by name.
    Raises: StudioError: the floor's clips are others.
    """
    before = floor or {}
    for name, row in rows.items():
        if name in before and before[name]["values"]["clips"] != row["values"]["clips"]:
            raise StudioError(
                f"expected the floor's row {name} of person {seed} from the same clips, got one from others; give both "
                "runs the same seconds, frames a second and size"
            )
    full, keys = (rows if floor is None else before).get(FULL), list[str]()

    def tell(table: str, name: str, what: str, labels: Mapping[str, str], values: Mapping[str, Any]) -> None:
        words = {"table": table, "person": f"{seed}", **labels}
        keys.append(ledger.measure(f"range/{seed}/{name}/{what}", values, words, lambda _: values)["key"])

    for name, row in rows.items():
        if full and name != FULL:
            for what, values in _compared(name, row, before.get(name), full).items():
                tell("gap", name, what, {"scan": title_of(name), "values of": what}, values)
    for what, row in {EARLIER: before.get(FULL), NOW: rows.get(FULL)}.items():
        for motion, values in row["values"]["motions"].items() if row else ():
            labels = {"motion": motion} | ({"values of": what} if before else {})
            tell("full", FULL, f"{what} {motion}", labels, values)
    for motion, values in rows[FULL]["values"]["seen"].items() if FULL in rows else ():
        tell("seen", "truth", motion, {"motion": motion}, values)
    return keys


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
    for name, row in rows.items():
        path = out / "strips" / f"{seed}-{name}.png"
        if name == FULL or (path.is_file() and not row["new"]):
            continue
        frames = columns_of(actor.exercise, name)
        shown = {"driver": comparison.crops(actor.driving, frames), "truth": actor.true_images[frames]}
        kept = {CEILING: (floor or out, FULL), EARLIER: (floor, name), NOW: (out, name)}
        for what, (folder, which) in kept.items():
            if folder and _kept(folder, seed, which).is_file():
                shown[f"{what}: {title_of(which)}"] = _read(_kept(folder, seed, which), frames)
        contact_sheet(path, shown, [float(actor.driving.track.times[frame]) for frame in frames])


def _read(path: Path, frames: Array) -> Array:
    """Some of the pictures that ``keep`` has kept."""
    with np.load(path) as file:
        return file["images"][np.searchsorted(file["frames"], frames)]


def _kept(out: Path, seed: int, row: str) -> Path:
    return out / "pictures" / f"range-{seed}-{row}.npz"
