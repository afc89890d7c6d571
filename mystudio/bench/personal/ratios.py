"""Two implementations of the same work, timed in turn in one run: processor seconds of each, and their ratio."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mystudio.base.encoder import load_encoder
from mystudio.bench.base_training import reference_synthesis
from mystudio.compute.device import feature_dtype
from mystudio.engines.personal import NAME, images_of
from mystudio.engines.personal import anchors as invert
from mystudio.engines.personal.tune import split, tune
from mystudio.motion import losses
from mystudio.motion.retarget import neutral_of
from mystudio.recipe import Recipe, resolve
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.metric import Perceptual, pairwise
from selfscan.scan.select import k_centre, k_centre_distances

Curve = list[tuple[float, int, float]]  # processor seconds, iterations, LPIPS
TERMS = ("perceptual", "face", "eyes", "mouth", "landmarks", "pixel")  # weights in ``TuneSettings``
PASSES = 1000  # MyStyle's passes over the scan images
VIEWS = {"whole": losses.whole, "face": losses.face}  # most of a whole picture is hair and background


def forward_backward(generator: Generator, batch: int, precision: str = "auto", rounds: int = 3) -> dict[str, float]:
    """Time the generator against grouped convolutions in float32, forward and backward to weights and W+.

    Args:
        generator: its weights are used by both. batch: images per pass. precision: of mystudio's feature maps.
    Returns: processor seconds per pass and their ratio. If ``precision`` is float32, also the largest differences of
    the pictures and of the gradients of W+, as a share of the largest value.
    """
    generator = generator.train().requires_grad_(False)
    generator.synthesis.requires_grad_(True)
    device = next(generator.parameters()).device
    ws = torch.randn(batch, generator.num_ws, generator.w_dim, generator=torch.Generator().manual_seed(0)).to(device)
    aim = torch.randn(1, 3, 1, 1, generator=torch.Generator().manual_seed(1)).to(device)

    def once(draw: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        generator.zero_grad()
        free = ws.clone().requires_grad_(True)
        image = draw(free)
        (image.float() - aim).square().mean().backward()
        assert free.grad is not None
        return image.detach(), free.grad

    def ours(free: Tensor, precision: str = precision) -> Tensor:
        return generator(free, "none", dtype=feature_dtype(precision, device))

    def plain(free: Tensor) -> Tensor:
        return reference_synthesis(generator, free)

    same = [
        float((a - b).abs().max() / b.abs().max())
        for a, b in zip(once(lambda free: ours(free, "float32")), once(plain))
    ]
    spent = interleaved({"ours": lambda: once(ours), "theirs": lambda: once(plain)}, rounds)
    return spent | {"difference": max(same)}


def interleaved(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time functions in turn, after one warm-up call: processor seconds per call, and "times" (second / first)."""
    spent = {name: 0.0 for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            spent[name] += (time.process_time() - began) * (number > 0)
    first, second = spent.values()
    return {name: value / rounds for name, value in spent.items()} | {"times": second / first}


def selection(
    images: np.ndarray, picks: int, perceptual: Perceptual, pairs: int = 40, proven: int = 40
) -> dict[str, float]:
    """Time choosing frames by LPIPS: one network pass per image and a matrix product, against one pass per pair.

    Args:
        images: [N, H, W, 3] uint8. pairs: number of measured pairs, extrapolated to all N (N - 1) / 2.
        proven: number of images for which all pairs are computed and the choices compared.
    Returns: processor seconds, their ratio, and the share of equal picks among ``proven``.
    """
    began = time.process_time()
    k_centre_distances(pairwise(perceptual.embed_images(images)), picks)
    ours = time.process_time() - began
    some = images[np.linspace(0, len(images) - 1, proven).round().astype(int)]
    began, apart = time.process_time(), np.zeros((proven, proven), np.float32)
    for a, b in combinations(range(proven), 2):
        apart[a, b] = apart[b, a] = _distance(perceptual, some[a], some[b])
    each = (time.process_time() - began) / (proven * (proven - 1) / 2)
    few = max(2, proven // 4)
    theirs = k_centre_distances(apart, few)
    same = float(np.mean(k_centre(perceptual.embed_images(some), few) == theirs))
    whole = each * len(images) * (len(images) - 1) / 2
    return {"ours": ours, "theirs": whole, "times": whole / ours, "pair": each, "same": same}


@torch.no_grad()
def _distance(perceptual: Perceptual, a: np.ndarray, b: np.ndarray) -> float:
    x, y = (to_tensor(image)[None] for image in (a, b))
    return float(perceptual.distance(x, y))


class _Watch:
    """Records processor seconds, without its own, and the LPIPS of held-out scan images by view, every few steps."""

    def __init__(
        self, anchors: Tensor, images: Tensor, perceptual: Perceptual, rows: Sequence[int], budget: float, every: int
    ):
        self._ws, self._perceptual, self._every = anchors[rows], perceptual, every
        self._aims = {name: perceptual.embed(view(images[rows])) for name, view in VIEWS.items()}
        self._budget, self._looking, self._began = budget, 0.0, time.process_time()
        self.curves: dict[str, Curve] = {name: [] for name in VIEWS}

    @torch.no_grad()
    def __call__(self, generator: Generator, figures: Mapping[str, Any]) -> bool:
        step = figures["steps"]
        if step % self._every:
            return False
        now = time.process_time()
        made = generator(generator.broadcast(self._ws))
        spent = now - self._began - self._looking
        for name, view in VIEWS.items():
            distance = float(self._perceptual.distance_to(view(made), self._aims[name]).mean())
            self.curves[name].append((spent, step, distance))
        self._looking += time.process_time() - now
        return spent >= self._budget


def personalization(
    base, scan, recipe: Recipe, perceptual: Perceptual, budget: float, progress: Progress = silent
) -> dict[str, dict[str, float]]:
    """Compare MyStyle's tuning schedule with the recipe's, from the same anchors of the same scan images.

    Args:
        base: ``mystudio.bases.Base``; both tune it at its own size. budget: limit of processor seconds for MyStyle's
            schedule, which otherwise makes ``PASSES`` passes over the images.
    Returns: the result of ``compared`` and ``share``, the finished share of MyStyle's schedule, for each of ``VIEWS``.
    The entry ``terms`` is for the whole picture, with only MyStyle's loss terms in both.
    """
    generator, settings = base.generator, recipe.of(NAME, "personalize")
    images, marks = images_of(scan, generator.resolution), torch.as_tensor(scan.landmarks)
    encoder = load_encoder(path) if (path := base.companion("encoder")) else None
    anchors = invert.invert(
        generator,
        encoder,
        perceptual,
        images,
        marks,
        neutral_of(scan),
        settings.invert,
        progress,
    )
    ours = replace(settings.personalize, check_every=10, patience=0)
    rows, train = split(len(images), ours.held_out)
    mystyle = replace(
        resolve("paper", ()).of(NAME, "personalize").personalize,
        held_out=ours.held_out,
        steps=PASSES * len(train),
        check_every=50,
        precision="float32",
    )
    plain = replace(ours, **{name: getattr(mystyle, name) for name in TERMS})
    curves = {}
    for name, settings, most in (("ours", ours, np.inf), ("terms", plain, np.inf), ("theirs", mystyle, budget)):
        watch = _Watch(anchors, images, perceptual, rows, most, settings.check_every)
        tune(generator, anchors, images, perceptual, settings, progress, watch=watch)
        curves[name] = watch.curves
    found = {view: compared(curves["ours"][view], curves["theirs"][view]) for view in VIEWS}
    found["terms"] = compared(curves["terms"]["whole"], curves["theirs"]["whole"])
    share = curves["theirs"]["whole"][-1][1] / mystyle.steps
    return {name: values | {"share": share} for name, values in found.items()}


def compared(ours: Curve, theirs: Curve) -> dict[str, float]:
    """Compare the time that two schedules need to reach the same distance.

    Args:
        ours, theirs: one entry per check; a distance is the mean of the last ten checks, because single ones are noisy.
    Returns: ``met``: final distance of ``theirs``. ``theirs``: its seconds in all. ``first``: its seconds until it
    first reached ``met``. ``end``: final distance of ``ours``. If ``ours`` reached ``met``: ``ours``, its seconds
    until then, and ``times`` and ``first_times``, the ratios of ``theirs`` and ``first`` to it.
    """
    ours, theirs = _steady(ours), _steady(theirs)
    met = theirs[-1][2]
    first, fast = _first_below(theirs, met), _first_below(ours, met)
    assert first is not None, "its last check is as near as itself"
    values = {
        "met": met,
        "end": ours[-1][2],
        "theirs": theirs[-1][0],
        "first": first[0],
        "theirs_iterations": theirs[-1][1],
    }
    if fast:
        values |= {
            "ours": fast[0],
            "ours_iterations": fast[1],
            "times": theirs[-1][0] / fast[0],
            "first_times": first[0] / fast[0],
        }
    return values


def _steady(curve: Curve) -> Curve:
    distances = [distance for *_, distance in curve]
    return [(spent, step, float(np.mean(distances[max(0, k - 9) : k + 1]))) for k, (spent, step, _) in enumerate(curve)]


def _first_below(curve: Curve, distance: float) -> tuple[float, int] | None:
    return next(((spent, step) for spent, step, there in curve if there <= distance), None)
