"""Avatars of scans that lack a motion, driven by somebody who does it, against the scanned actor doing it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mystudio import pipeline
from mystudio.actors.exercise import LACKS, Exercise, exercise, full_scan
from mystudio.actors.motion import Score
from mystudio.bench import comparison
from mystudio.bench.ledger import Ledger
from mystudio.bench.range import report, score
from mystudio.bench.range.sides import sided
from mystudio.bench.studio import Person, Studio, open_take
from mystudio.compute.device import choose
from mystudio.evaluation import metrics, observers
from mystudio.storage.artifacts import load_performance
from mystudio.storage.manifest import digest
from selfscan.face.recognition import find_weights, load_recognition
from selfscan.perceptual.metric import load_perceptual
from selfscan.types import Array, Observation

FULL = report.FULL
ROWS = (FULL, *LACKS)
#: options of small avatars: a table takes nine of them for each person
SMALL = ("personalize.resolution=0", "personalize.width=0", "personalize.view=0", "personalize.steps=120")
KEPT = ("expression", "pose", "perceptual", "blendshapes", "likeness", "identity")  # values of each frame
COMPARED = {"likeness": metrics.likeness, "identity": metrics.csim}


@dataclass(frozen=True)
class RangeCase:
    """Who is scanned, what the scans lack, and how the clips are filmed."""

    people: Sequence[int] = (1008,)  # seeds
    rows: Sequence[str] = ROWS
    driver: tuple[int, int] = (1011, 9)  # seed of the person, seed of the performance
    seconds: float = 6.0  # of the selfscan script in each scan; the exercise follows
    each: float = 0.8  # s of each motion of an exercise
    fps: float = 10.0
    size: int = 256  # px of a frame
    floor: Path | None = None  # folder of an earlier run, with which this one is compared


def run(studio: Studio, ledger: Ledger, case: RangeCase) -> list[str]:
    """Measure all avatars and compare them; returns the keys of all rows.

    Raises: BadArtifact: the actors' head was not imported. StudioError: the floor lacks a row or has other clips.
    """
    from mystudio.actors.basis import load_basis

    load_basis()
    rows = [row for row in ROWS if row in case.rows or (row == FULL and not case.floor)]
    floor = {seed: report.earlier_rows(case.floor, seed, rows) for seed in case.people} if case.floor else {}
    keys, left = dict[str, None](), _Left(studio, len(rows) * len(case.people))
    for seed in case.people:
        actor, good = Scanned(studio, case, seed), dict[str, dict[str, Any]]()
        for name in rows:
            row = actor.measure(ledger, name, left)
            keys[row["key"]] = None
            good |= {} if "error" in row else {name: row}
            keys |= dict.fromkeys(
                report.add(ledger, floor.get(seed), seed, good)
            )  # what there is can be read from now on
        report.strips(studio.out, case.floor, seed, good, actor)
    return list(keys)


class _Left:
    """Tells how many avatars are made and about how long the others take."""

    def __init__(self, studio: Studio, total: int):
        self._tell, self._total, self._done, self._made, self._start = studio.progress, total, 0, 0, time.monotonic()

    def step(self, new: bool) -> None:
        """An avatar is measured, by this run if ``new``."""
        self._done, self._made = self._done + 1, self._made + new
        minutes = (time.monotonic() - self._start) / max(self._made, 1) * (self._total - self._done) / 60
        self._tell(f"avatars (about {minutes:.0f} min left)", self._done, self._total)


class Scanned:
    """One scanned actor: clips, truth, and measurements."""

    def __init__(self, studio: Studio, case: RangeCase, seed: int):
        self.studio, self.case, self.seed = studio, case, seed
        self.exercise: Exercise = exercise(case.each, case.fps, case.driver[1])
        self.heights = self.exercise.heights()
        self._true_faces = dict[str, Array]()  # of each network, at the heights
        self.frames = np.unique(np.concatenate([report.columns_of(self.exercise, row) for row in LACKS]))

    def measure(self, ledger: Ledger, row: str, left: _Left) -> dict[str, Any]:
        """The ledger's row of the avatar of one scan."""
        person = self._person(row)
        clips = [digest(path) for path in (self.driver, self.truth)]
        labels = {"table": "avatar", "person": f"{self.seed}", "scan": report.title_of(row)}
        settings = self.studio.settings(person) | {"clips": clips, "each": self.case.each}

        def values(steps: list[str]) -> dict[str, Any]:
            take = self.studio.take(person, self.driver, steps=steps)
            return self._values(row, take) | {"clips": [digest(person.video), *clips]}

        found = ledger.measure(f"range/{self.seed}/{row}/avatar", settings, labels, values)
        left.step(found["new"])
        return found

    @cached_property
    def driver(self) -> Path:
        """The clip of the driver's exercise."""
        return self._clip(f"driver-{self.case.driver[0]}", self.case.driver[0], self.exercise.score)

    @cached_property
    def truth(self) -> Path:
        """The clip of the scanned actor in the driver's exact motion."""
        return self._clip(f"truth-{self.seed}", self.seed, self.exercise.score)

    @cached_property
    def seen(self) -> Observation:
        """The true frames, measured."""
        return self._observed(self.truth)

    @cached_property
    def driving(self) -> Observation:
        """The driver's frames, measured."""
        return self._observed(self.driver)

    @cached_property
    def true_images(self) -> Array:
        """Crops of all true frames, [T, 256, 256, 3] uint8."""
        return comparison.crops(self.seen, np.arange(len(self.seen)))

    @cached_property
    def _nets(self) -> observers.EvaluationNets:
        return observers.EvaluationNets(self.studio.identity_net, self.studio.blendshapes, choose(self.studio.device))

    def _person(self, row: str) -> Person:
        case, name = self.case, f"{self.seed}-{row}"
        whole = full_scan(case.seconds, case.each, case.fps, self.seed + 1)
        acted = whole if row == FULL else LACKS[row].change(whole)
        return Person(name, self._clip(f"scan-{name}", self.seed, acted), f"Actor {self.seed} (synthetic)", True)

    def _clip(self, what: str, seed: int, acted: Score) -> Path:
        case, folder = self.case, (self.case.floor or self.studio.out) / "clips"
        out = folder / f"{case.size}px-{case.seconds:g}s-{case.each:g}s-{case.fps:g}fps" / f"{what}.mp4"
        if not out.is_file():
            from mystudio.actors.actor import Actor
            from mystudio.actors.film import write_clip

            write_clip(out, Actor.from_seed(seed), acted, case.size, seed=seed, progress=self.studio.progress)
        return out

    def _observed(self, video: Path) -> Observation:
        """A clip, measured once, as ``reenact`` measures drivers."""
        return load_performance(pipeline.run_perform(video, self.studio.out, self.studio.progress)).observation

    def _values(self, row: str, path: Path) -> dict[str, Any]:
        avatar, take, _, scan = open_take(path)
        images, truth = comparison.pictures(avatar, take, None, self.studio.device), self.true_images
        perceptual, nets = load_perceptual(), self._nets
        values, marks = comparison.each_against_truth(images, truth, self.seen.landmarks, nets, perceptual)
        made, true = sided(marks), sided(self.seen.landmarks)
        values |= self._faces(images, marks)
        motions, seen = dict[str, dict[str, float]](), dict[str, dict[str, float]]()
        for name, span in self.exercise.spans.items():
            height, rest = self.heights[name], self.exercise.rest
            found = score.motion_values(name, made, true, span, height, rest)
            seen[name] = score.seen_change(name, true, self.exercise.level, span, rest)
            motions[name] = found | {each: float(of[height].mean()) for each, of in values.items() if each in KEPT}
        report.keep(self.studio.out, self.seed, row, self.frames, images)
        clip, lack = sided(scan.clip_landmarks), LACKS.get(row)
        shown = {name: score.shown(each.needs, clip) for name, each in LACKS.items() if lack in (None, each)}
        return {"motions": motions, "shown": shown, "seen": seen, "metric": perceptual.name}

    def _faces(self, images: Array, marks: Array) -> dict[str, Array]:
        """Likeness and identity [T] of the pictures at all heights to the true ones there; NaN elsewhere."""
        frames, found = np.concatenate(list(self.heights.values())), dict[str, Array]()
        networks = {"likeness": load_recognition().embed} if find_weights() else {}
        if self._nets.identity:
            networks["identity"] = self._nets.identity.embed
        for name, embed in networks.items():
            if name not in self._true_faces:
                self._true_faces[name] = embed(self.true_images[frames], self.seen.landmarks[frames])
            found[name] = np.full(len(images), np.nan)
            found[name][frames] = COMPARED[name](embed(images[frames], marks[frames]), self._true_faces[name])
        return found
