"""MyStyle tuning (arXiv 2203.17272): make the generator reproduce the scan's images at the anchors.

All synthesis weights are free, anchors and noise stay fixed: min_theta  LPIPS(G(w_i), x_i) + |G(w_i) - x_i|^2.
LPIPS of the enlarged face, eyes and mouth is added, because they are a tenth of the image but most of the likeness.
The distance of landmarks is added, because a change of gaze moves an iris by only a pixel.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mystudio.compute.compilation import Precision, compiled
from mystudio.compute.device import feature_dtype
from mystudio.compute.muon import Muon
from mystudio.engines.personal import proxy, tune_checkpoint
from mystudio.engines.personal.likeness import Likeness, where_seen
from mystudio.engines.personal.tune_checkpoint import TuneState
from mystudio.engines.personal.tune_nets import Nets, Snapshot
from mystudio.errors import TrainingDiverged
from mystudio.motion import losses
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.io.pixels import to_uint8
from selfscan.perceptual.metric import Perceptual
from selfscan.types import Array

MAX_ROLLBACKS = 5
WORTH_COMPILING = 4e8  # steps x batch x pixels, above which compiling saves time on a GPU
BETTER = 0.995  # a check counts as better if its held-out distance is below this share of the best one
BETAS = (0.9, 0.99)  # of either optimiser
START = 256  # px that tuning draws first
SHOWN = 6  # scan images in a preview


@dataclass(frozen=True)
class TuneSettings:
    """How the generator is tuned."""

    steps: int = 3000  # optimisation steps (MyStyle: 1000 passes over the images at batch 1)
    batch: int = 2  # images a step (MyStyle: 1)
    optimizer: Literal["muon", "adam"] = "muon"  # muon: filters by Muon, the rest by Adam
    #   (MyStyle: adam)
    rate: float = 8e-3  # of the optimiser at the start (MyStyle: 3e-4, constant)
    decay: float = 80.0  # steps after which the rate has fallen to 0.7: rate / sqrt(1 + step / decay); 0 = constant
    #   (MyStyle)
    average: float = 0.1  # share of the steps so far over which the weights are averaged; 0 = none (MyStyle)
    perceptual: float = 1.0  # weight of the perceptual distance (MyStyle: 1)
    face: float = 1.0  # weight of the perceptual distance of the face alone, enlarged (MyStyle: 0)
    eyes: float = 0.7  # weight of the perceptual distance of the eyes alone, enlarged (MyStyle: 0)
    mouth: float = 0.7  # weight of the perceptual distance of the mouth alone, enlarged (MyStyle: 0)
    detail: float = 1.0  # weight of the perceptual distance of a random part at full size (MyStyle: 0)
    texture: float = 0.2  # weight of the difference of fine detail's log energy by place (MyStyle: 0)
    landmarks: float = 0.3  # weight of the distance of landmarks, in sizes of their facial part (MyStyle: 0)
    resolution: int = 256  # least resolution of the avatar, px: a smaller base is grown (0 = the base's)
    largest: int = 512  # an avatar is as large as its scan's images, up to this many px (0, or resolution 0: it is not)
    grow: float = 0.5  # share of the steps after which the full size is drawn; tuning starts at START px and doubles
    #   (MyStyle: 0)
    width: int = 6144  # least width: a block of r px has width / r channels, up to the base's widest (0 = the base's)
    view: int = 160  # largest size in px at which perceptual distances are taken; 0 = the base's resolution (MyStyle)
    pixel: float = 1.0  # weight of the mean squared error (MyStyle: 1)
    proxy: float = 10.0  # weight of the difference of the small picture that reenact solves on (MyStyle: 0)
    held_out: int = 4  # scan images held out of tuning to decide when to stop; they stay anchors
    check_every: int = 200  # steps between checks, checkpoints and previews
    patience: int = 5  # checks without a better held-out distance before stopping; 0 = never stop early
    precision: Precision = "auto"  # of the feature maps; auto = bfloat16 where the hardware multiplies in it
    #   (weights and their updates stay float32)
    compile: Literal["auto", "yes", "no"] = "auto"  # torch.compile of each step; auto = on a GPU, if steps x batch x
    #   pixels is large enough to win back the minutes of compiling; tuning goes on without it if it fails
    seed: int = 0  # seed of the order of the images and of new weights in a grown base


@dataclass(frozen=True)
class _Task:
    """The constants of a tuning."""

    anchors: Tensor  # [N, D]
    images: Tensor  # [N, 3, H, W]
    seen: Tensor | None  # [N, 1, H, W] bool
    perceptual: Perceptual
    trained: Tensor  # [N'] indices of the images that are trained on
    checked: Tensor  # [N''] indices of the images that decide when to stop
    settings: TuneSettings
    forward: Callable[..., list[Tensor]]  # draws the skip images of the tuned generator, compiled or not

    def at(self, size: int, rows: Tensor) -> _Aim:
        """The scan images ``rows`` as aims, reduced to ``size`` px."""
        images, seen = self.images[rows], None if self.seen is None else self.seen[rows]
        if size < images.shape[-1]:
            images = losses.whole(images, size).contiguous(memory_format=torch.channels_last)
            seen = None if seen is None else F.interpolate(seen.float(), size=(size, size), mode="area") == 1
        return _Aim(size, self.anchors[rows], images, seen, likeness_to(images, self.perceptual, self.settings))


@dataclass(frozen=True)
class _Aim:
    """Scan images of one size, and what generated images are compared with."""

    size: int  # px
    anchors: Tensor  # [N, D]
    images: Tensor  # [N, 3, size, size]
    seen: Tensor | None  # [N, 1, size, size] bool
    likeness: Likeness

    def visible(self, made: Tensor, rows: Tensor) -> Tensor:
        """Generated images [B, 3, H, W] of some rows, with the scan's own pixels beyond the clip's frame."""
        return where_seen(made, self.images[rows], None if self.seen is None else self.seen[rows])


def tune(
    generator: Generator,
    anchors: Tensor,
    images: Tensor,
    perceptual: Perceptual,
    settings: TuneSettings = TuneSettings(),
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    watch: Callable[[Generator, dict[str, Any]], bool] | None = None,
    seen: Tensor | None = None,
) -> tuple[Generator, dict[str, Any]]:
    """Tune a copy of ``generator`` so that G(anchor_i) is image_i.

    Args:
        generator: the base. anchors: [N, D] fixed. images: [N, 3, H, W] in [-1, 1] at the base's resolution.
        checkpoints: a stopped run resumes from the last one; on a CPU it ends in the same weights. Each checkpoint
            shows a preview.
        seen: [N, 1, H, W] bool, pixels that count; beyond them the images repeat their edge. None = all.
        watch: called after every step with the averaged generator and the figures so far; True ends the tuning, and
            the same call resumes it.
    Returns: the tuned generator, and figures: "history" ([step, loss, held-out distance] of every check), "steps",
        "held_out_distance" (the best one), "rollbacks" and "warnings" (sentences about what failed).
    Raises: TrainingDiverged: values were not finite ``MAX_ROLLBACKS`` times, even with smaller steps.
    """
    nets = Nets(generator, partial(optimizer, settings, anchors.device), settings.average)
    state, warnings = TuneState(), list[str]()
    tune_checkpoint.resume(checkpoints, nets, state)
    task = _task(nets, anchors, images, seen, perceptual, settings, warnings)
    aim, check = None, task.at(nets.tuned.resolution, task.checked)
    good = nets.snapshot()
    while state.step < settings.steps and not (settings.patience and state.stale >= settings.patience):
        size = size_at(settings, state.step, nets.tuned.resolution)
        if aim is None or aim.size != size:
            aim = None  # frees its embeddings before the next ones are made
            aim = task.at(size, task.trained)
        loss = _step(task, aim, nets, state)
        if not math.isfinite(loss):
            _roll_back(nets, good, state)
            continue
        state.step += 1
        nets.average(state.step)
        progress("tune", state.step, settings.steps)
        stopped = watch is not None and watch(nets.mean, _figures(state) | {"warnings": warnings})
        if state.step % settings.check_every and state.step < settings.steps and not stopped:
            continue
        distance = _check(check, nets)
        if not math.isfinite(distance):  # the loss was finite, but the weights after the step are not
            state.step -= 1
            _roll_back(nets, good, state)
            continue
        if state.step % settings.check_every == 0 or state.step == settings.steps:
            _record(state, loss, distance)
        good = nets.snapshot()
        tune_checkpoint.save(checkpoints, nets, state)
        if checkpoints is not NO_CHECKPOINTS:
            checkpoints.show("preview", _preview(task, nets))
        if stopped:
            break
    return nets.mean.eval().requires_grad_(False), _figures(state) | {"warnings": warnings}


def split(count: int, held_out: int) -> tuple[list[int], list[int]]:
    """Indices of held-out and of training images. Held-out ones are spread evenly and are at most a tenth of all."""
    number = min(held_out, count // 10)
    out = [int((k + 0.5) * count / number) for k in range(number)]
    return out, [i for i in range(count) if i not in out]


def _task(
    nets: Nets,
    anchors: Tensor,
    images: Tensor,
    seen: Tensor | None,
    perceptual: Perceptual,
    settings: TuneSettings,
    warnings: list[str],
) -> _Task:
    held_out, trained = (torch.tensor(rows) for rows in split(len(images), settings.held_out))
    checked = held_out if len(held_out) else torch.arange(min(4, len(anchors)))  # too few images to hold any out
    forward = _forward(nets.tuned, settings, warnings)
    return _Task(anchors, images, seen, perceptual, trained, checked, settings, forward)


def size_at(settings: TuneSettings, step: int, full: int) -> int:
    """Side of the images that a step draws, px: START at first, and the full size after ``settings.grow``."""
    sizes = [2**k for k in range(int(math.log2(START)), int(math.log2(full)))]  # those below the full size
    growing = settings.grow * settings.steps
    return sizes[int(len(sizes) * step / growing)] if step < growing and sizes else full


def likeness_to(images: Tensor, perceptual: Perceptual, settings: TuneSettings) -> Likeness:
    """The distance that tuning lowers, to images [N, 3, H, H] of the size that is drawn."""
    side = min(settings.view or images.shape[-1], images.shape[-1])
    views = (
        (settings.perceptual, losses.whole),
        (settings.face, losses.face),
        (settings.eyes, losses.eyes),
        (settings.mouth, losses.mouth),
    )
    weighted = [(weight, partial(view, size=side)) for weight, view in views if weight]
    return Likeness(perceptual, images, weighted, settings.landmarks, settings.detail, side, settings.texture)


def optimizer(
    settings: TuneSettings, device: torch.device, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser that the settings name, of these parameters on this device."""
    if settings.optimizer == "muon":
        return Muon(parameters, settings.rate, BETAS, dtype=feature_dtype(settings.precision, device))
    return torch.optim.Adam(parameters, settings.rate, BETAS)


def _forward(tuned: Generator, settings: TuneSettings, warnings: list[str]) -> Callable[..., list[Tensor]]:
    """The function of anchors [B, D], size and type that draws all skip images; compiled as the settings say."""
    work = settings.steps * settings.batch * tuned.resolution**2
    pays = next(tuned.parameters()).is_cuda and work >= WORTH_COMPILING

    def pictures(anchors: Tensor, size: int, dtype: torch.dtype) -> list[Tensor]:
        return tuned.pictures(tuned.styles(tuned.broadcast(anchors)), "const", None, size, dtype)

    if settings.compile == "no" or (settings.compile == "auto" and not pays):
        return pictures
    return compiled(pictures, warnings)


def _step(task: _Task, aim: _Aim, nets: Nets, state: TuneState) -> float:
    """One step of the optimiser; returns the loss. If the loss is not finite, the weights are unchanged."""
    settings = task.settings
    draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + state.step)  # stateless: resuming is exact
    rows = torch.randperm(len(aim.images), generator=draw)[: settings.batch]
    for group in nets.optimizer.param_groups:
        group["lr"] = settings.rate * _rate_scale(settings, state)
    dtype = feature_dtype(settings.precision, aim.anchors.device)
    pictures = task.forward(aim.anchors[rows], aim.size, dtype)
    made = aim.visible(pictures[-1], rows)
    loss = aim.likeness.distance(made, rows, draw) + settings.pixel * losses.pixel(made, aim.images[rows])
    loss = (loss + settings.proxy * proxy.difference(pictures)).mean()
    nets.optimizer.zero_grad()
    loss.backward()
    value = float(loss.detach())
    if math.isfinite(value):
        nets.optimizer.step()
    return value


def _rate_scale(settings: TuneSettings, state: TuneState) -> float:
    """Factor of the rate. It falls with the root of the steps, which needs no preset number of steps."""
    if not settings.decay:
        return state.rate_scale
    return state.rate_scale / math.sqrt(1 + state.step / settings.decay)


@torch.no_grad()
def _check(aim: _Aim, nets: Nets) -> float:
    """Mean distance of the averaged generator on the held-out images; infinite if weights are not finite."""
    if not nets.are_finite():
        return math.inf
    rows = torch.arange(len(aim.images))
    made = aim.visible(nets.mean(nets.mean.broadcast(aim.anchors)), rows)
    return float(aim.likeness.distance(made, rows).mean())


def _record(state: TuneState, loss: float, distance: float) -> None:
    state.history.append([state.step, loss, distance])
    state.stale = 0 if distance < state.best * BETTER else state.stale + 1
    state.best = min(state.best, distance)


def _figures(state: TuneState) -> dict[str, Any]:
    return {
        "history": state.history,
        "steps": state.step,
        "held_out_distance": state.best,
        "rollbacks": state.rollbacks,
    }


@torch.no_grad()
def _preview(task: _Task, nets: Nets) -> Array:
    """Some scan images above the generated images of their anchors, [H, W, 3] uint8 RGB."""
    count = min(SHOWN, len(task.images))
    rows = [int(k * len(task.images) / count) for k in range(count)]
    pair = torch.stack([task.images[rows], nets.mean(nets.mean.broadcast(task.anchors[rows])).clamp(-1, 1)])
    return to_uint8(torch.cat([torch.cat(list(row), 2) for row in pair], 1))


def _roll_back(nets: Nets, good: Snapshot, state: TuneState) -> None:
    """Return to the last good weights and halve the rate. Raises TrainingDiverged after too many times."""
    state.rollbacks += 1
    if state.rollbacks > MAX_ROLLBACKS:
        raise TrainingDiverged(
            f"tuning gave non-finite values {state.rollbacks} times, even at 1/{2**MAX_ROLLBACKS} "
            "of the step; lower personalize.rate or check the scan's images"
        )
    nets.restore(good)
    state.rate_scale *= 0.5
