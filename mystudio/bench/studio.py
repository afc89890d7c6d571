"""Runs the pipeline's stages into one folder with descriptive names; existing artifacts are reused."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mystudio import bases, engines, pipeline
from mystudio.recipe import Recipe, resolve
from mystudio.storage.artifacts import load, load_performance
from mystudio.storage.manifest import digest, open_folder
from mystudio.storage.workspace import plain
from mystudio.types import Avatar, Performance, Progress, Take, silent
from selfscan.perceptual.metric import perceptual_name
from selfscan.types import Scan

FLOOR = ("reenact.steps=0",)  # no solving: the regressor's start codes, with the driver's expression


@dataclass(frozen=True)
class Variant:
    """A change of the recipe that is measured in comparison with the recipe."""

    name: str  # in file names: letters, digits, "-"
    title: str
    options: tuple[str, ...] = ()


PLAIN = Variant("plain", "solved")
STRAIGHT = Variant("straight", "start codes, not solved", FLOOR)
ABSOLUTE = Variant("absolute", "solved, absolute motion", ('retarget.motion="absolute"',))  # for own clips


@dataclass(frozen=True)
class Person:
    """Somebody who is scanned."""

    name: str
    video: Path
    consent: str
    fictional: bool = False
    options: tuple[str, ...] = ()  # options of the scan, such as the held-out seconds


@dataclass(frozen=True)
class Studio:
    """The folder, recipe, networks and device of all measurements."""

    out: Path
    recipe: str = "default"
    options: tuple[str, ...] = ()
    base: str = "people128"
    device: str = "auto"
    identity_net: Path | None = None
    blendshapes: Path | None = None
    again: bool = False
    progress: Progress = silent
    fresh: set[Path] = field(default_factory=set)  # made by this run, so that ``again`` makes each only once

    def resolved(self, person: Person, variant: Variant = PLAIN) -> Recipe:
        """Return the recipe for a person and a variant."""
        return resolve(self.recipe, [*self.options, *person.options, *variant.options])

    def settings(self, person: Person, variant: Variant = PLAIN, *videos: Path) -> dict:
        """Return everything that determines a measurement, for the ledger."""
        recipe = self.resolved(person, variant)
        return {
            "recipe": {name: plain(settings) for name, settings in recipe.tables().items() if name != "render"},
            "base": bases.find_base(self.base).digest,
            "videos": [digest(path) for path in (person.video, *videos)],
            "networks": [path.name for path in (self.identity_net, self.blendshapes) if path],
            "perceptual": perceptual_name(),  # figures of different metrics must not be mixed
        }

    def scan(self, person: Person, variant: Variant = PLAIN, steps: list[str] | None = None) -> Path:
        """The scan of a person."""
        out = self.out / f"{person.name}{self._tag('scan', person, variant)}.scan"
        pipeline.run_scan(
            person.video,
            out,
            person.consent,
            self.resolved(person, variant),
            self.progress,
            fictional=person.fictional,
            force=self._force(out),
        )
        self._say(
            steps,
            "scan",
            person.video,
            out,
            "--i-am-the-person-or-have-consent",
            person.consent,
            *self._options("scan", person, variant),
        )
        return out

    def avatar(self, person: Person, variant: Variant = PLAIN, steps: list[str] | None = None) -> Path:
        """The avatar of a person."""
        scan = self.scan(person, variant, steps)
        out = self.out / f"{person.name}{self._tag('avatar', person, variant)}.avatar"
        pipeline.run_personalize(
            scan,
            out,
            self.base,
            self.resolved(person, variant),
            self.progress,
            device=self.device,
            force=self._force(out),
        )
        self._say(steps, "personalize", scan, out, "--base", self.base, *self._options("avatar", person, variant))
        return out

    def take_path(self, person: Person, driver: Path, variant: Variant = PLAIN) -> Path:
        """Return the path of the result of ``take``."""
        return self.out / f"{person.name}-by-{driver.stem}{self._tag('take', person, variant)}.take"

    def take(self, person: Person, driver: Path, variant: Variant = PLAIN, steps: list[str] | None = None) -> Path:
        """Return the take of a person's avatar driven by a clip; it is made if missing."""
        avatar = self.avatar(person, variant, steps)
        out = self.take_path(person, driver, variant)
        pipeline.run_reenact(
            avatar,
            driver,
            out,
            self.resolved(person, variant),
            self.progress,
            device=self.device,
            force=self._force(out),
        )
        self._say(steps, "reenact", avatar, driver, out, *self._options("take", person, variant))
        return out

    def report(self, take: Path, truth: Path | str | None = None, steps: list[str] | None = None) -> dict:
        """Measure a take and return the content of its ``metrics.json``."""
        out = take.with_suffix(".report")
        pipeline.run_evaluate(
            take,
            out,
            self.progress,
            truth=truth,
            identity_net=self.identity_net,
            blendshapes=self.blendshapes,
            device=self.device,
            force=True,
        )
        nets = [("--truth", truth), ("--identity-net", self.identity_net), ("--blendshapes", self.blendshapes)]
        self._say(steps, "evaluate", take, out, *(word for name, file in nets if file for word in (name, file)))
        return json.loads((out / "metrics.json").read_text(encoding="utf-8"))

    def _tag(self, stage: str, person: Person, variant: Variant) -> str:
        """Return a variant's suffix in file names; empty if it does not change the stage, so the result is shared."""
        plain_, changed = (_tables(self.resolved(person, each)) for each in (PLAIN, variant))
        decided_by = list(plain_)[: list(plain_).index(stage) + 1]  # a stage depends on those before it
        return "" if all(plain_[each] == changed[each] for each in decided_by) else f"-{variant.name}"

    def _force(self, out: Path) -> bool:
        first = out not in self.fresh
        self.fresh.add(out)
        return self.again and first

    def _options(self, stage: str, person: Person, variant: Variant) -> list[str]:
        every, own = (*self.options, *person.options, *variant.options), _tables(self.resolved(person))[stage]
        last = {option.partition("=")[0]: option for option in every if option.split(".")[0] in own}
        recipe = [] if self.recipe == "default" else ["--recipe", str(self.recipe)]
        return [*recipe, *(word for option in last.values() for word in ("--option", option))]

    def _say(self, steps: list[str] | None, verb: str, *words) -> None:
        """Record the equivalent command; the last path before the options is the output."""
        if steps is None:
            return
        split = next((i for i, word in enumerate(words) if str(word).startswith("--")), len(words))
        *inputs, out = words[:split]
        steps.append(shlex.join(map(str, ("mystudio", verb, *inputs, "-o", out, *words[split:]))))


def _tables(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return stage -> the recipe tables that its command reads, by name; stages are in order."""
    of_engine = {
        name: {table.name: getattr(settings, table.name) for table in fields(settings)}
        for name, settings in (
            ("avatar", recipe.of(engines.DEFAULT, "personalize")),
            ("take", recipe.of(engines.DEFAULT, "reenact")),
        )
    }
    return {"scan": {"scan": recipe.scan}} | of_engine


def open_take(path: Path) -> tuple[Avatar, Take, Performance, Scan]:
    """Read a take, its avatar, performance and scan."""
    folder = open_folder(path, "take")
    avatar = folder.source("avatar")
    return (
        load(avatar, Avatar),
        load(path, Take),
        load_performance(folder.source("performance")),
        load(open_folder(avatar, "avatar").source("scan"), Scan),
    )


def values_of(numbers: dict) -> dict[str, float | str | None]:
    """Return metric -> value from ``metrics.json``, with the numbers of frames and the perceptual metric's name."""
    values = {row["name"]: row["value"] for row in numbers["metrics"]}
    values |= {f"frames_{name}": count for name, count in numbers["frames"].items()}
    metric = numbers["facts"]["perceptual metric"] if values.get("perceptual") is not None else None
    return values | {"frames": numbers["frames"]["total"], "metric": metric}
