"""Cross-reenactment of synthetic actors, measured against rendered truth and against the best possible fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mystudio.bench import comparison
from mystudio.bench.ledger import Ledger
from mystudio.bench.personal import ceiling
from mystudio.bench.sheet import sheet_of
from mystudio.bench.studio import PLAIN, STRAIGHT, Person, Studio, Variant, open_take, values_of
from mystudio.compute.device import choose
from mystudio.evaluation import observers
from selfscan.face.observe import observe
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.metric import load_perceptual

PEOPLE = (1000, 1008, 1018)  # seeds chosen by eye: tan, pale and brown skin; different faces, hair and light
DRIVERS = ((1011, 9), (1015, 4))  # (seed of the person, seed of the performance)
FPS = 25


@dataclass(frozen=True)
class ActorsCase:
    """Which actors are measured, and the length of their clips."""

    people: Sequence[int] = PEOPLE
    drivers: Sequence[tuple[int, int]] = DRIVERS
    scan_seconds: float = 20.0
    driver_seconds: float = 4.0
    size: int = 512  # px of a frame
    ceiling_every: int = 4  # the ceiling is fitted to every fourth frame


@dataclass(frozen=True)
class Pair:
    """A scanned actor, a driver, and the truth."""

    person: Person
    driver: Path
    truth: Path


def pair(studio: Studio, case: ActorsCase, seed: int, driver: tuple[int, int]) -> Pair:
    """Return the clips of a pair; missing ones are rendered."""
    who, motion = driver
    stage = _Stage(case, studio)
    scan = stage.clip(f"person-{seed}", seed, "selfscan", case.scan_seconds, seed + 1)
    acted = stage.clip(f"acted-by-{who}-{motion}", who, "talk", case.driver_seconds, motion)
    truth = stage.clip(f"person-{seed}-as-{who}-{motion}", seed, "talk", case.driver_seconds, motion)
    return Pair(Person(scan.stem, scan, f"Actor {seed} (synthetic)", fictional=True), acted, truth)


def run(studio: Studio, ledger: Ledger, case: ActorsCase) -> list[str]:
    """Measure all pairs; returns the keys of all rows."""
    keys = []
    for seed in case.people:
        for driver in case.drivers:
            acted = pair(studio, case, seed, driver)
            labels = {"person": str(seed), "driver": f"{driver[0]}-{driver[1]}"}
            keys += against_truth(studio, ledger, acted, "actors", (PLAIN, STRAIGHT), labels, case.ceiling_every)
    return keys


def against_truth(
    studio: Studio,
    ledger: Ledger,
    acted: Pair,
    part: str,
    variants: Sequence[Variant],
    labels: dict[str, str],
    ceiling_every: int = 0,
) -> list[str]:
    """Measure cross-reenactment in several variants against the truth, and optionally the ceiling."""
    name, keys, takes, new = f"{acted.person.name}-by-{acted.driver.stem}", [], {}, False
    for variant in variants:

        def measure(steps: list[str], variant=variant) -> dict:
            return values_of(studio.report(studio.take(acted.person, acted.driver, variant, steps), acted.truth, steps))

        keys.append(f"{part}/{name}/{variant.name}")
        row = ledger.measure(
            keys[-1],
            studio.settings(acted.person, variant, acted.driver, acted.truth),
            {"table": "cross", **labels, "codes": variant.title},
            measure,
        )
        new |= row["new"]
        if "error" not in row:
            takes[variant.title] = studio.take_path(acted.person, acted.driver, variant)
    more = {}
    if ceiling_every and PLAIN.title in takes:
        more, above, fitted = _measure_ceiling(studio, ledger, acted, f"{part}/{name}", labels, ceiling_every)
        keys, new = keys + above, new or fitted
    sheet = studio.out / "sheets" / f"{part}-{name}.png"
    if takes and (new or not sheet.is_file()):
        sheet_of(sheet, takes, observe(acted.truth, size=observers.SIZE), more, studio.device)
    return keys


def _measure_ceiling(
    studio: Studio, ledger: Ledger, acted: Pair, stem: str, labels: dict[str, str], every: int
) -> tuple[dict, list[str], bool]:
    """Measure mystudio and the ceiling on the same frames.

    Returns: the ceiling's pictures, the keys of both rows, and whether they were measured now.
    """
    path = studio.take_path(acted.person, acted.driver, PLAIN)
    kept = path.with_suffix(".ceiling.npz")
    settings = studio.settings(acted.person, PLAIN, acted.driver, acted.truth) | {"every": every}
    names = {"ours": PLAIN.title, "ceiling": "ceiling: fitted to the true frames"}
    keys, values = [f"{stem}/ceiling-{name}" for name in names], {}

    def both(steps: list[str]) -> dict:
        studio.take(acted.person, acted.driver, PLAIN, steps)
        if not values:
            values.update(_compare_with_ceiling(studio, acted, path, kept, every))
        return values

    rows = [
        ledger.measure(
            key, settings, {"table": "ceiling", **labels, "codes": title}, lambda steps, which=which: both(steps)[which]
        )
        for key, (which, title) in zip(keys, names.items())
    ]
    new = any(row["new"] for row in rows)
    if any("error" in row for row in rows) or not kept.is_file():
        return {}, keys, new
    with np.load(kept) as file:
        return {names["ceiling"]: (file["frames"], file["images"])}, keys, new


def _compare_with_ceiling(studio: Studio, acted: Pair, path: Path, kept: Path, every: int) -> dict[str, dict]:
    avatar, take, performance, _ = open_take(path)
    device = choose(studio.device)
    seen, perceptual = observe(acted.truth, size=observers.SIZE, progress=studio.progress), load_perceptual()
    usable = seen.track.valid & performance.observation.track.valid
    frames = np.flatnonzero((np.arange(len(take)) % every == 0) & usable)
    aims = to_tensor(comparison.crops(seen, frames, avatar.generator.resolution), device)
    codes, nearest = ceiling.nearest(avatar, take, frames, aims, perceptual, studio.progress)
    images = {
        "ours": comparison.pictures(avatar, take, frames, studio.device),
        "ceiling": comparison.at_evaluation_size(nearest),
    }
    np.savez_compressed(kept, frames=frames, images=images["ceiling"], codes=codes)
    truth, nets = comparison.crops(seen, frames), observers.EvaluationNets(None, studio.blendshapes, device)
    try:
        return {
            name: comparison.against_truth(pictures, truth, seen.landmarks[frames], nets, perceptual)
            | {"frames": len(frames), "metric": perceptual.name}
            for name, pictures in images.items()
        }
    finally:
        nets.close()


class _Stage:
    """Renders clips of actors, each clip once."""

    def __init__(self, case: ActorsCase, studio: Studio):
        self.case, self.folder, self.progress = case, studio.out / "clips", studio.progress

    def clip(self, what: str, seed: int, script: str, seconds: float, motion: int) -> Path:
        out = self.folder / f"{self.case.size}px-{seconds:g}s" / f"{what}.mp4"
        if not out.is_file():
            from mystudio.actors.actor import Actor
            from mystudio.actors.film import write_clip
            from mystudio.actors.motion import perform

            write_clip(
                out,
                Actor.from_seed(seed),
                perform(script, seconds, FPS, motion),
                self.case.size,
                seed=seed,
                progress=self.progress,
            )
        return out
