"""Time and memory of each stage, with the default and the paper's recipe, and memory for clips of two lengths.

Every stage runs in a separate process (``mystudio.bench.child``). Long optimisations are limited to a few iterations,
and driving clips to a few frames. The tables give the number of measured units and extrapolate nothing.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mystudio import engines
from mystudio.bench import clips
from mystudio.bench.ledger import Ledger
from mystudio.bench.real import RealCase
from mystudio.bench.studio import PLAIN, Person, Studio
from mystudio.errors import StudioError

PAPER = "paper"
# unit of a phase; all other phases count frames
UNITS = {"tune": "iteration", "invert": "iteration", "samples": "sample"}


@dataclass(frozen=True)
class CostsCase:
    """How much is measured."""

    real: RealCase  # only the first scan and the first driver are used
    iterations: int = 24  # iterations of tuning and inversion
    samples: int = 64  # frames synthesized for the regressors
    frames: int = 64  # driving frames, default recipe
    paper_frames: int = 2  # driving frames, the paper's recipe: minutes each
    lengths: tuple[int, ...] = (100, 3000)  # driving frames whose memory is compared


def run(studio: Studio, ledger: Ledger, case: CostsCase) -> list[str]:
    """Measure all stages; returns the keys of all rows."""
    source = case.real.clip(case.real.drivers[0])
    trial = _Trial(studio, ledger, case, source)
    keys = []
    for recipe in dict.fromkeys((studio.recipe, PAPER)):
        keys += trial.stages(recipe)
    for frames in case.lengths:
        keys += trial.length(frames)
    return keys


class _Trial:
    """The person, avatar and clips of the measurement."""

    def __init__(self, studio: Studio, ledger: Ledger, case: CostsCase, source: Path):
        self.studio, self.ledger, self.case, self.source = studio, ledger, case, source
        self.person: Person = case.real.person(case.real.scans[0])
        self.out = studio.out / "costs"

    def stages(self, recipe: str) -> list[str]:
        """Measure scan, personalize, reenact, render and evaluate with one recipe; returns row keys."""
        studio = self.studio if recipe == self.studio.recipe else replace(self.studio, recipe=recipe, options=())
        few = self.case.paper_frames if recipe == PAPER else self.case.frames
        options = [*studio.options, *self.person.options]
        limited = [
            f"personalize.steps={self.case.iterations}",
            "personalize.patience=0",
            f"regress.samples={self.case.samples}",
        ]
        if studio.resolved(self.person).of(engines.DEFAULT, "personalize").invert.steps:
            limited.append(f"invert.steps={max(2, self.case.iterations // 8)}")  # of each batch of images
        driver = clips.played_for(self.source, studio.out / "clips" / f"{self.source.stem}-{few}.mp4", few)
        out = self.out / Path(recipe).stem
        scan, avatar, take = (out / f"{kind}.{kind}" for kind in ("scan", "avatar", "take"))
        device, nets = studio.device, self._nets()
        calls = (
            ("run_scan", {"video": self.person.video, "out": scan, "consent": self.person.consent}, options),
            (
                "run_personalize",
                {"scan_path": scan, "out": avatar, "base": studio.base, "device": device},
                [*options, *limited],
            ),
            ("run_reenact", {"avatar_path": avatar, "video": driver, "out": take, "device": device}, options),
            (
                "run_render",
                {"take_path": take, "out": out / "take.mp4", "device": device},
                [*options, "render.view=paste"],
            ),
            ("run_evaluate", {"take_path": take, "out": out / "take.report", "device": device, **nets}, []),
        )
        keys, before = [], []
        for stage, arguments, chosen in calls:
            settings = studio.settings(self.person, PLAIN, driver) | {"options": chosen, "before": list(before)}
            keys += self._measure(
                f"{recipe}-{stage[4:]}",
                {"table": "stage", "recipe": recipe, "stage": stage[4:]},
                settings,
                stage,
                arguments,
                recipe,
                chosen,
            )
            before.append(stage)
        return keys

    def length(self, frames: int) -> list[str]:
        """Measure reenact and render with a clip of some length; one step per frame suffices to compare memory."""
        driver = clips.played_for(self.source, self.studio.out / "clips" / f"{self.source.stem}-{frames}.mp4", frames)
        avatar = self.out / Path(self.studio.recipe).stem / "avatar.avatar"
        out = self.out / f"{frames}-frames"
        take = out / "take.take"
        options = [*self.studio.options, *self.person.options, "reenact.steps=1"]
        paste = [*options, "render.view=paste"]
        device, keys = self.studio.device, []
        calls = (
            ("run_reenact", {"avatar_path": avatar, "video": driver, "out": take, "device": device}, options),
            ("run_render", {"take_path": take, "out": out / "take.mp4", "device": device}, paste),
        )
        for stage, arguments, chosen in calls:
            settings = self.studio.settings(self.person, PLAIN, driver) | {"options": chosen}
            keys += self._measure(
                f"{frames}-frames-{stage[4:]}",
                {"table": "length", "driving frames": str(frames), "stage": stage[4:]},
                settings,
                stage,
                arguments,
                self.studio.recipe,
                chosen,
                frames=frames,
            )
        return keys

    def _measure(
        self,
        name: str,
        labels: Mapping[str, str],
        settings: dict,
        stage: str,
        arguments: Mapping[str, Any],
        recipe: str,
        options: list[str],
        frames: int = 0,
    ) -> list[str]:
        """Measure one row for the whole stage and one for each phase, or a single row per frame."""
        key = f"costs/{name}/stage"
        call = {
            "stage": stage,
            "arguments": {n: str(v) if isinstance(v, Path) else v for n, v in arguments.items()},
            "recipe": recipe,
            "options": options,
        }

        def measure(steps: list[str]) -> dict:
            words = [sys.executable, "-m", "mystudio.bench.child", json.dumps(call)]
            steps.append(shlex.join(["python", *words[1:]]))
            _forget_halves(Path(arguments["out"]))
            found = _started(words)
            return found | ({"units": frames, "cpu_seconds": found["cpu"] / frames} if frames else {})

        whole = labels if frames else {**labels, "phase": "all", "unit": ""}
        row = self.ledger.measure(key, settings, whole, measure)
        if "error" in row or frames:
            return [key]
        keys = [key]
        for phase, cost in row["values"]["phases"].items():
            keys.append(f"costs/{name}/{phase.replace(' ', '-')}")
            if row["new"] or not self.ledger.find(keys[-1]):
                part = {"of": row["when"], "phase": phase}  # measured together with its stage's row
                self.ledger.measure(
                    keys[-1],
                    part,
                    {**labels, "phase": phase, "unit": UNITS.get(phase, "frame")},
                    lambda steps, cost=cost: cost,
                )
        return keys

    def _nets(self) -> dict[str, Path]:
        nets = {"identity_net": self.studio.identity_net, "blendshapes": self.studio.blendshapes}
        return {name: path for name, path in nets.items() if path}


def _forget_halves(out: Path) -> None:
    """Remove checkpoints of an earlier run, because a resumed stage would cost less than a whole one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for path in (out.with_name(f"{out.name}.partial"), *out.parent.glob("*.performance")):
        if path.name.endswith(".partial") or out.suffix == ".take":
            shutil.rmtree(path, ignore_errors=True)


def _started(words: list[str]) -> dict[str, Any]:
    done = subprocess.run(words, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise StudioError(f"the stage failed in its own process: {reason}")
    return json.loads(lines[-1])
