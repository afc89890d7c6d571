"""The benchmark of one-shot reenactment: every method on the same pairs, in the same measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from mystudio import bases
from mystudio.base.encoder import load_encoder
from mystudio.bench import comparison
from mystudio.bench.ledger import Ledger
from mystudio.bench.oneshot import methods
from mystudio.bench.oneshot.leakage import LEAST, leak
from mystudio.bench.oneshot.methods import Method
from mystudio.bench.oneshot.pairs import ActorPairs, Pair, RealPairs, actor_pairs, real_pairs
from mystudio.bench.sheet import COLUMNS, contact_sheet
from mystudio.bench.studio import Studio
from mystudio.evaluation import metrics, observers
from mystudio.recipe import resolve
from mystudio.storage.manifest import digest
from mystudio.storage.workspace import plain
from selfscan.face.landmarks import KEYPOINTS
from selfscan.face.recognition import find_weights, load_recognition
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.metric import load_perceptual, perceptual_name

FAR = 25.0  # degrees between photo and true frame, above which a pose counts as extreme
COPIES = {cls.name for cls in (methods.Truth, methods.Driver, methods.Still, methods.Nearest)}  # nothing is drawn
SUBSETS = {"all": "", "far": "-far"}  # name of a row -> end of its table's name


@dataclass(frozen=True)
class OneShotCase:
    """What is measured."""

    actors: ActorPairs | None = ActorPairs()
    real: RealPairs | None = None
    steps: Sequence[int] = (100,)  # of the tuned baselines
    engines: Sequence[str] = ()


def run(studio: Studio, ledger: Ledger, case: OneShotCase) -> list[str]:
    """Measure all methods; returns the keys of all rows. Raises BadArtifact: the actors' head was not imported."""
    if case.actors:
        from mystudio.actors.basis import load_basis

        load_basis()
    keys, compared = [], _methods(studio, case)
    for name, wanted in (("actors", case.actors), ("real", case.real)):
        if wanted is not None:
            part, new = _Part(studio, name, wanted), False
            for method in compared:
                rows = _measure(studio, ledger, part, method)
                new = new or any(row["new"] and "error" not in row for row in rows)
                keys += [row["key"] for row in rows]
            if new:
                part.draw_sheet(compared)
    return keys


def _methods(studio: Studio, case: OneShotCase) -> list[Method]:
    base, recipe = bases.find_base(studio.base), resolve(studio.recipe, studio.options)
    rest = studio.device, studio.progress
    return [
        methods.Truth(),
        methods.Driver(),
        methods.Still(),
        methods.Nearest(),
        methods.Baseline(base, 0, *rest),
        *(methods.Baseline(base, steps, *rest) for steps in case.steps),
        *(methods.OfEngine(name, base, recipe, *rest) for name in case.engines),
    ]


def _measure(studio: Studio, ledger: Ledger, part: _Part, method: Method) -> list[dict]:
    found: list[dict[str, dict] | Exception] = []

    def measured(subset: str) -> Callable[[list[str]], dict]:
        def values(_steps: list[str]) -> dict:
            if not found:
                try:
                    found.append(part.measure(method))
                except Exception as error:  # the ledger stores it in each of the method's rows
                    found.append(error)
            if isinstance(found[0], Exception):
                raise found[0]
            return found[0][subset]

        return values

    return [
        ledger.measure(
            f"oneshot/{part.name}/{method.name}/{subset}",
            part.settings(method),
            {"table": f"{part.name}{table}", "method": method.title},
            measured(subset),
        )
        for subset, table in SUBSETS.items()
    ]


class _Part:
    """The pairs of one kind, and what is measured on them. Nothing is drawn before the first measurement."""

    def __init__(self, studio: Studio, name: str, case: ActorPairs | RealPairs):
        self.studio, self.name, self.case = studio, name, case

    def settings(self, method: Method) -> dict:
        """Everything that determines a measurement."""
        videos = [digest(path) for path in self.case.clips] if isinstance(self.case, RealPairs) else []
        engine = method.recipe.tables() if isinstance(method, methods.OfEngine) else {}
        return {
            "pairs": {name: value for name, value in asdict(self.case).items() if name != "clips"},
            "videos": videos,
            "method": method.name,
            "recipe": {name: plain(table) for name, table in engine.items() if name not in ("scan", "render")},
            "base": bases.find_base(self.studio.base).digest,
            "networks": [path.name for path in (self.studio.identity_net, self.studio.blendshapes) if path],
            "perceptual": perceptual_name(),
        }

    @cached_property
    def pairs(self) -> tuple[list[Pair], list[Pair]]:
        """Pairs with truth, and pairs for leakage."""
        if isinstance(self.case, RealPairs):
            return real_pairs(self.case, self.studio.progress), []
        return actor_pairs(self.case, self.studio.progress)

    def measure(self, method: Method) -> dict[str, dict]:
        """Name of a subset -> values of a method."""
        pairs, others = self.pairs
        draws, clock = {}, _Clock()
        for number, pair in enumerate(pairs):
            if pair.person.name not in draws:
                with clock.counting("prepare"):
                    draws[pair.person.name] = method.prepare(pair.person)
            self.studio.progress(method.title, number + 1, len(pairs))
        pictures = []
        for pair in pairs:
            with clock.counting("draw"):
                pictures.append(draws[pair.person.name](pair))
        each = [self._values(pair, made) for pair, made in zip(pairs, pictures)]
        joined = {name: np.concatenate([values[name] for values in each]) for name in each[0]}
        self._keep(method, np.concatenate(pictures))
        far, count = np.concatenate([pair.angles() for pair in pairs]) > FAR, len(joined["psnr"])
        metric = {"metric": perceptual_name()}
        found = {"all": _means(joined, np.ones(count, bool)) | metric, "far": _means(joined, far) | metric}
        if method.name not in COPIES:
            found["all"] |= {"prepare": clock.seconds["prepare"] / len(draws), "rate": count / clock.seconds["draw"]}
        if len(others) >= LEAST and method.name != methods.Truth.name:
            found["all"] |= self._leakage(np.concatenate([draws[p.person.name](p) for p in others]))
        return found

    def draw_sheet(self, compared: Sequence[Method]) -> None:
        """Draw photos, drivers and the pictures of all methods, from small to large turns of the head."""
        rows: dict[str, np.ndarray] = {}
        pairs, columns = self.pairs[0], self._columns()
        photos = np.concatenate([np.repeat(p.person.images[:1], len(p.truth), 0) for p in pairs])
        rows["photo"] = comparison.at_evaluation_size(photos[columns])
        for method in sorted(compared, key=lambda m: m.name not in (methods.Driver.name, methods.Truth.name)):
            if self._kept(method).is_file() and method.name != methods.Still.name:
                with np.load(self._kept(method)) as file:
                    rows[method.title] = comparison.at_evaluation_size(file["images"])
        angles = np.concatenate([pair.angles() for pair in pairs])[columns]
        contact_sheet(
            self.studio.out / "sheets" / f"oneshot-{self.name}.png", rows, [f"{angle:.0f} deg" for angle in angles]
        )

    @cached_property
    def _nets(self) -> observers.EvaluationNets:
        return observers.EvaluationNets(self.studio.identity_net, self.studio.blendshapes, "cpu")

    def _values(self, pair: Pair, made: np.ndarray) -> dict[str, np.ndarray]:
        images, truth = (comparison.at_evaluation_size(x) for x in (made, pair.truth))
        values, marks = comparison.each_against_truth(images, truth, pair.truth_marks, self._nets, load_perceptual())
        if find_weights():
            network = load_recognition()
            photos = network.embed(pair.person.images, pair.person.landmarks)
            values["likeness"] = metrics.likeness(network.embed(images, marks), photos)
        if self._nets.identity:
            photos = self._nets.identity.embed(pair.person.images, pair.person.landmarks)
            values["identity"] = metrics.csim(self._nets.identity.embed(images, marks), photos)
        return values

    @torch.no_grad()
    def _leakage(self, pictures: np.ndarray) -> dict[str, float]:
        """R2 of the drivers' looks from keypoints, and from the base's encoder's appearance, of the pictures."""
        others, images = self.pairs[1], comparison.at_evaluation_size(pictures)
        rows, path = [], bases.find_base(self.studio.base).companion("encoder")
        encoder = load_encoder(path) if path else None
        for start in range(0, len(images), 16):
            part = images[start : start + 16]
            marks = self._nets.measure(part)["landmarks"][:, list(KEYPOINTS), :2].reshape(len(part), -1)
            seen = encoder.appearance(to_tensor(part)).numpy() if encoder else np.zeros((len(part), 0))
            rows.append(np.concatenate([marks, seen], 1))
        looks = np.stack([pair.look for pair in others if pair.look is not None])
        found = leak(np.concatenate(rows), looks, [pair.person.name for pair in others])
        return {"leak": float(found.mean()), "leak_most": float(found.max())}

    def _columns(self) -> np.ndarray:
        """Frames of the sheet: at even shares of the angle's range, in its order."""
        angles = np.concatenate([pair.angles() for pair in self.pairs[0]])
        order = np.argsort(angles, kind="stable")
        return order[np.unique(np.linspace(0, len(order) - 1, COLUMNS).round().astype(int))]

    def _kept(self, method: Method) -> Path:
        return self.studio.out / "pictures" / f"oneshot-{self.name}-{method.name}.npz"

    def _keep(self, method: Method, pictures: np.ndarray) -> None:
        self._kept(method).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self._kept(method), images=pictures[self._columns()])


class _Clock:
    """Adds up wall-clock seconds by name."""

    def __init__(self):
        self.seconds: dict[str, float] = {"prepare": 0.0, "draw": 1e-9}

    @contextmanager
    def counting(self, name: str) -> Iterator[None]:
        """A context whose seconds count for ``name``."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def _means(values: dict[str, np.ndarray], wanted: np.ndarray) -> dict[str, float]:
    """Mean of each measure over some frames; without frames there is only their number, 0."""
    means = {name: float(np.nanmean(row[wanted])) for name, row in values.items()} if wanted.any() else {}
    return {"frames": int(wanted.sum())} | means
