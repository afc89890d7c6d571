"""Speed and quality: solvers on actors against the truth, and each costly part against a plain implementation."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from mystudio import bases, engines, pipeline
from mystudio.bench import comparison, rates
from mystudio.bench.actors import ActorsCase, Pair, pair
from mystudio.bench.ledger import Ledger
from mystudio.bench.personal import ratios, solvers
from mystudio.bench.studio import PLAIN, Studio, Variant
from mystudio.compute.device import choose
from mystudio.evaluation import observers
from mystudio.storage.artifacts import load, load_performance
from mystudio.stylegan2.growth import grown
from mystudio.types import Avatar
from selfscan.face.observe import iter_crops, observe
from selfscan.io import video
from selfscan.io.pixels import to_uint8
from selfscan.perceptual.metric import load_perceptual
from selfscan.types import Scan

PARTS = ("solve", "generator", "personalize", "select", "live", "rates")
LARGE = Variant("large", "512 px of 250 images", ("scan.frames=250", "personalize.resolution=512"))  # on a GPU only


@dataclass(frozen=True)
class SpeedCase:
    """Which parts are measured, and with how much data."""

    actors: ActorsCase = field(default_factory=ActorsCase)
    parts: tuple[str, ...] = PARTS
    rivals: tuple[str, ...] = tuple(rival.name for rival in solvers.RIVALS)
    frames: int = 12  # frames from the middle of each driving clip, solved by every rival
    paper_frames: int = 2  # the first of these frames, solved by the paper's solver in one to two minutes each
    batches: tuple[int, ...] = (1, 8)  # images per pass of the generator
    resolution: int = 256  # px of the timed generator
    budget: float = 300.0  # processor seconds for MyStyle's schedule
    images: int = 1000  # images to choose from
    picks: int = 250
    live_frames: int = 60


def run(studio: Studio, ledger: Ledger, case: SpeedCase) -> list[str]:
    """Measure the chosen parts; returns the keys of all rows."""
    trial, keys = _Trial(studio, ledger, case), []
    for part in case.parts:
        keys += getattr(trial, part)()
    return keys


class _Trial:
    """Actors, avatars and the rows made with them."""

    def __init__(self, studio: Studio, ledger: Ledger, case: SpeedCase):
        self.studio, self.ledger, self.case = studio, ledger, case
        self.first = pair(studio, case.actors, case.actors.people[0], case.actors.drivers[0])

    def solve(self) -> list[str]:
        """Solve every pair with every rival; the paper's solver and the default also on the same few frames."""
        keys, case = [], self.case
        rivals = [rival for rival in solvers.RIVALS if rival.name in case.rivals]
        for seed, driver in itertools.product(case.actors.people, case.actors.drivers):
            acted = pair(self.studio, case.actors, seed, driver)
            labels = {"person": str(seed), "driver": f"{driver[0]}-{driver[1]}"}
            stage = _Stage(self.studio, acted, case)
            for rival in rivals:
                if not rival.few:
                    keys.append(self._rival(stage, acted, rival, labels, "solve", case.frames))
                if rival.few or rival.name == "default":
                    keys.append(self._rival(stage, acted, rival, labels, "paper", case.paper_frames))
        return keys

    def _rival(self, stage: _Stage, acted: Pair, rival: solvers.Rival, labels: dict, table: str, frames: int) -> str:
        key = f"speed/{acted.person.name}-by-{acted.driver.stem}/{table}-{rival.name}"
        settings = self.studio.settings(acted.person, PLAIN, acted.driver, acted.truth)
        settings |= {"frames": frames, "rival": rival.name, "of": self.case.frames}
        self.ledger.measure(
            key,
            settings,
            {"table": table, **labels, "solver": rival.title},
            lambda steps: stage.measure(rival, frames, steps),
        )
        return key

    def generator(self) -> list[str]:
        """Time the generator forward and backward against grouped convolutions."""
        base, keys = bases.find_base(self.studio.base), []
        recipe = self.studio.resolved(self.first.person)
        sizes = (
            max(self.case.resolution, base.generator.resolution),
            recipe.of(engines.DEFAULT, "personalize").personalize.width or 6144,
        )
        for batch in self.case.batches:
            for precision in ("auto", "float32"):
                keys.append(
                    self._ratio(
                        f"generator-{batch}-{precision}",
                        {"base": base.digest, "sizes": sizes},
                        f"generator, forward and backward, {sizes[0]} px, batch {batch}, {precision}",
                        "grouped convolutions, float32",
                        lambda steps, batch=batch, precision=precision: ratios.forward_backward(
                            grown(base.generator, *sizes).to(choose(self.studio.device)), batch, precision
                        ),
                    )
                )
        return keys

    def personalize(self) -> list[str]:
        """Time tuning until held-out scan images, and their faces, are as near as after MyStyle's schedule."""
        person, studio = self.first.person, self.studio
        found: dict[str, dict] = {}

        def measure(view: str, steps: list[str]) -> dict:
            if not found:
                scan = load(studio.scan(person, PLAIN, steps), Scan)
                found.update(
                    ratios.personalization(
                        bases.find_base(studio.base),
                        scan,
                        studio.resolved(person),
                        load_perceptual(),
                        self.case.budget,
                        studio.progress,
                    )
                )
            return found[view]

        settings = studio.settings(person) | {"budget": self.case.budget}
        return [
            self._ratio(f"personalize-{view}", settings, what, "", partial(measure, view), "tuning")
            for view, what in (
                ("whole", "whole pictures"),
                ("face", "the face alone, enlarged"),
                ("terms", "whole pictures, with MyStyle's terms alone in ours too"),
            )
        ]

    def select(self) -> list[str]:
        """Choosing scan frames."""

        def measure(steps: list[str]) -> dict:
            seen = observe(self.first.person.video, size=128, progress=self.studio.progress)
            crops = [image for _, image in iter_crops(seen)]
            more = [np.roll(image, shift, 1) for shift in range(1, 16) for image in crops]  # shifted copies
            images = np.stack([*crops, *more][: self.case.images])
            return ratios.selection(images, self.case.picks, load_perceptual())

        settings = {"images": self.case.images, "picks": self.case.picks, "video": str(self.first.person.video)}
        return [
            self._ratio(
                "select",
                settings,
                f"choosing {self.case.picks} of {self.case.images} frames at 128 px",
                "LPIPS of all pairs (some pairs measured, and multiplied)",
                measure,
            )
        ]

    def live(self) -> list[str]:
        """Measure frames per second of the live preview; every frame is drawn, none is shown or recorded."""
        studio, person = self.studio, self.first.person
        info = video.probe(self.first.driver)

        def measure(steps: list[str]) -> dict:
            marks: list[float] = []  # processor seconds at each picture; loading before the first is excluded
            told = pipeline.run_live(
                studio.avatar(person, PLAIN, steps),
                self.first.driver,
                studio.resolved(person),
                lambda shown: marks.append(time.process_time()) or "",
                drop=False,
                seconds=self.case.live_frames / info.fps,
                device=studio.device,
            )
            return {
                "fps": told["frames_per_second"],
                "delay": told["latency_ms"]["median"],
                "frames": told["frames"],
                "cpu_seconds": (marks[-1] - marks[0]) / max(1, len(marks) - 1),
            }

        return [
            self._ratio(
                "live",
                studio.settings(person, PLAIN, self.first.driver),
                "live preview: frames a second",
                "",
                measure,
                "live",
            )
        ]

    def rates(self) -> list[str]:
        """Measure wall-clock time of reenactment and personalizing, larger on a GPU, and the share of the peak."""
        studio, person, driver = self.studio, self.first.person, self.first.driver
        device = choose(studio.device)
        gpu = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if gpu else f"CPU, threads: {torch.get_num_threads()}"
        settings = studio.settings(person, PLAIN, driver) | {"device": name}

        def reenact(shape: dict[str, int] | None, steps: list[str]) -> dict:
            avatar = load(studio.avatar(person, PLAIN, steps), Avatar)
            performance = load_performance(pipeline.run_perform(driver, studio.out, studio.progress))
            return rates.reenactment(avatar, performance, studio.resolved(person), device, shape)

        def personalize(variant: Variant, steps: list[str]) -> dict:
            scan = load(studio.scan(person, variant, steps), Scan)
            return rates.personalizing(
                scan, bases.find_base(studio.base), studio.resolved(person, variant), device, studio.progress
            )

        def generator(batch: int, steps: list[str]) -> dict:
            base, sizes = (
                bases.find_base(studio.base).generator,
                studio.resolved(person).of(engines.DEFAULT, "personalize").personalize,
            )
            side = 8192 if gpu else 2048  # smaller matrices do not fill a GPU
            return rates.share_of_peak(grown(base, sizes.resolution, sizes.width), batch, device, side)

        rows = {
            "reenact": ("reenactment, solved and drawn", partial(reenact, None)),
            "personalize": ("personalizing", partial(personalize, PLAIN)),
            "generator": ("generator, forward and backward", partial(generator, 8)),
        }
        if gpu:
            rows |= {
                "reenact-1024": ("reenactment, StyleGAN2's largest shape", partial(reenact, rates.OFFICIAL)),
                "personalize-512": ("personalizing, large", partial(personalize, LARGE)),
                "generator-64": ("generator, forward and backward", partial(generator, 64)),
            }
        return [self._ratio(key, settings, what, name, measure, "rates") for key, (what, measure) in rows.items()]

    def _ratio(
        self,
        name: str,
        settings: dict,
        what: str,
        against: str,
        measure: Callable[[list[str]], dict],
        table: str = "ratios",
    ) -> str:
        key = f"speed/{table}/{name}"
        labels = {"table": table, "what": what} | ({"against": against} if against else {})
        self.ledger.measure(key, settings, labels, measure)
        return key


class _Stage:
    """A pair prepared for solving; its artifacts are made at the first measurement."""

    def __init__(self, studio: Studio, acted: Pair, case: SpeedCase):
        self.studio, self.acted, self.case = studio, acted, case
        self._problem: solvers.Counted | None = None

    def measure(self, rival: solvers.Rival, count: int, steps: list[str]) -> dict[str, float]:
        """Solve with a rival; returns cost, objective and truth metrics of the first ``count`` frames."""
        problem = self._prepare(steps)
        frames = range(self._begin, self._begin + (count if rival.few else self.case.frames))
        solved, cost = solvers.timed(rival, problem, frames)
        rows = torch.arange(frames.start, frames.start + count)
        codes = solved.codes[:count]
        with torch.no_grad():
            images = np.concatenate(
                [comparison.at_evaluation_size(to_uint8(problem.images(part))) for part in codes.split(8)]
            )
        true = comparison.against_truth(images, self._truth[:count], self._marks[:count], self._nets, self._metric)
        return cost | solvers.objective(problem, codes, rows) | true | {"frames": count, "metric": self._metric.name}

    def _prepare(self, steps: list[str]) -> solvers.Counted:
        if self._problem is not None:
            return self._problem
        studio, acted = self.studio, self.acted
        avatar = load(studio.avatar(acted.person, PLAIN, steps), Avatar)
        avatar.generator.to(choose(studio.device))
        recipe = studio.resolved(acted.person)
        how = recipe.of(avatar.engine, "reenact")
        performance = load_performance(pipeline.run_perform(acted.driver, studio.out, studio.progress))
        self._problem = solvers.counted(avatar, performance, how)
        seen = observe(acted.truth, size=observers.SIZE, progress=studio.progress)
        count = min(self.case.frames, len(performance))
        self._begin = (len(performance) - count) // 2
        at = np.arange(self._begin, self._begin + count)
        self._truth, self._marks = comparison.crops(seen, at), seen.landmarks[at]
        self._nets, self._metric = observers.EvaluationNets(None, None, choose(studio.device)), load_perceptual()
        return self._problem


def summary(ledger: Ledger) -> dict[str, float]:
    """Compare the paper's solver with the default: means over all pairs measured with both."""
    rows = {row["key"].split("/", 1)[1]: row["values"] for row in ledger.rows("speed") if "error" not in row}
    pairs = sorted({key.split("/")[0] for key in rows if key.endswith("/paper-paper")})
    both = [
        (rows[f"{name}/paper-default"], rows[f"{name}/paper-paper"])
        for name in pairs
        if f"{name}/paper-default" in rows
    ]
    if not both:
        return {}
    names = ("cpu_seconds", "objective", "perceptual", "psnr", "pose", "expression")
    values = {
        f"{who}_{name}": float(np.mean([each[k][name] for each in both]))
        for k, who in enumerate(("default", "paper"))
        for name in names
    }
    return values | {"pairs": len(both), "times": values["paper_cpu_seconds"] / values["default_cpu_seconds"]}
