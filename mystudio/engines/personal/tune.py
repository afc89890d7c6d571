"""MyStyle tuning (arXiv 2203.17272): make the generator show this person at the anchors.

All synthesis weights are free, anchors and noise stay fixed: min_theta  LPIPS(G(w_i), x_i) + |G(w_i) - x_i|^2.
To this comes LPIPS of the face, the eyes and the mouth alone, enlarged: they are a tenth of the picture and most of
the person; and landmarks as their network sees them, for a gaze is a pixel.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mystudio.compute.compilation import Precision, compiled
from mystudio.compute.device import feature_dtype
from mystudio.compute.muon import Muon
from mystudio.errors import TrainingDiverged
from mystudio.motion import losses
from mystudio.types import Progress, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.pixels import to_uint8

CHECKPOINT = "tune"  # its name among the checkpoints
MAX_ROLLBACKS = 5
WORTH_COMPILING = 4e8  # steps x batch x pixels, on a GPU
AVERAGED = 4  # steps between two that enter the average of the weights: neighbours hardly differ


@dataclass(frozen=True)
class TuneSettings:
    """How the generator is tuned."""

    steps: int = 2000  # optimisation steps (MyStyle: 1000 passes over the images at batch 1)
    batch: int = 4  # images a step (MyStyle: 1)
    optimizer: Literal["muon", "adam"] = "muon"  # muon: filters by ``mystudio.compute.muon``, the rest by Adam
    #   (MyStyle: adam)
    rate: float = 8e-3  # of the optimiser at the start (MyStyle: 3e-4, constant)
    decay: float = 40.0  # steps after which the rate has fallen to 0.7: rate / sqrt(1 + step / decay); 0 = constant, as
    #   MyStyle
    average: float = 0.1  # share of the steps so far over which the weights are averaged; 0 = the last, as MyStyle
    perceptual: float = 1.0  # weight of the perceptual distance (MyStyle: 1)
    face: float = 1.0  # weight of the perceptual distance of the face alone, enlarged (MyStyle: 0)
    eyes: float = 0.7  # weight of the perceptual distance of the eyes alone, enlarged (MyStyle: 0)
    mouth: float = 0.7  # weight of the perceptual distance of the mouth alone, enlarged (MyStyle: 0)
    landmarks: float = 0.3  # weight of the distance of landmarks, in sizes of their part (MyStyle: 0)
    resolution: int = 256  # px of the avatar at least: a smaller base is grown (0 = the base's)
    width: int = 6144  # a block of r px has width / r channels at least, up to the base's most (0 = the base's)
    view: int = 160  # px at which the perceptual distances are taken, at most; 0 = the base's resolution (MyStyle)
    pixel: float = 1.0  # weight of the mean squared error (MyStyle: 1)
    held_out: int = 4  # scan images kept out of tuning to decide when to stop; they stay anchors
    check_every: int = 100  # steps between checks, checkpoints and previews
    patience: int = 5  # checks without a better held-out distance before stopping; 0 = never stop early
    precision: Precision = "auto"  # of the feature maps; auto = bfloat16 where the
    #   hardware multiplies in it (weights and their updates stay float32)
    compile: Literal["auto", "yes", "no"] = "auto"  # torch.compile of each step; auto = on a GPU, where a minute or two
    #   of compiling is soon won back, judged by steps x batch x pixels; where it fails, tuning goes on without
    seed: int = 0  # order of the images, weights of what is grown


@dataclass
class _State:
    step: int = 0
    rate_scale: float = 1.0
    rollbacks: int = 0
    best: float = math.inf
    stale: int = 0
    history: list | None = None


def tune(
    generator,
    anchors: Tensor,
    images: Tensor,
    perceptual,
    settings: TuneSettings = TuneSettings(),
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    watch: Callable[[int, torch.nn.Module], bool] | None = None,
):
    """Tune a copy of ``generator`` so that G(anchor_i) is image_i.

    Args:
        generator: the base. anchors: [N, D] fixed. images: [N, 3, H, W] in [-1, 1] at the base's resolution.
        perceptual: ``selfscan.perceptual.metric.Perceptual``. checkpoints: a run that was stopped goes on from the last
            one and ends in the same weights on a CPU; a preview is shown at each.
        watch: called with (step, generator) at every check; True ends the tuning.
    Returns: the tuned generator and {"history": [...], "steps": n, "held_out_distance": d}.
    Raises: TrainingDiverged after five roll-backs.
    """
    nets = _Nets(generator, settings, anchors.device)
    state = _State(history=[])
    resume(checkpoints, nets, state)
    remarks: list[str] = []
    fast = _fast(nets.tuned, settings, remarks)
    held, train = split(len(images), settings.held_out)
    likeness = _Likeness(perceptual, images, settings)
    good = nets.snapshot()
    while state.step < settings.steps and not (settings.patience and state.stale >= settings.patience):
        loss = _step(nets, fast, anchors, images, likeness, train, settings, state)
        if not math.isfinite(loss):
            _roll_back(nets, good, state)
            continue
        state.step += 1
        nets.average(state.step, settings.average)
        progress("tune", state.step, settings.steps)
        if state.step % settings.check_every and state.step < settings.steps:
            continue
        distance = _check(nets, anchors, likeness, held)
        if not math.isfinite(distance):  # the loss was finite, the step it led to was not
            state.step -= 1
            _roll_back(nets, good, state)
            continue
        state.history.append([state.step, loss, distance])
        good = nets.snapshot()
        state.stale = 0 if distance < state.best * 0.995 else state.stale + 1
        state.best = min(state.best, distance)
        checkpoints.put(CHECKPOINT, {"content": np.frombuffer(to_bytes(nets, state), np.uint8)})
        if checkpoints is not NO_CHECKPOINTS:
            checkpoints.show("preview", _preview(nets.mean, anchors, images))
        if watch and watch(state.step, nets.mean):
            break
    return nets.mean.eval().requires_grad_(False), {
        "history": state.history,
        "steps": state.step,
        "held_out_distance": state.best,
        "rollbacks": state.rollbacks,
        "remarks": remarks,
    }


def split(count: int, held_out: int) -> tuple[list[int], list[int]]:
    """Held-out and training indices; the held-out ones are spread evenly, and never more than a tenth."""
    keep = min(held_out, count // 10)
    held = [int((k + 0.5) * count / keep) for k in range(keep)]
    return held, [i for i in range(count) if i not in held]


class _Nets:
    """The generator that is tuned, the running average of its weights, which is what comes out, and the optimiser."""

    def __init__(self, generator, settings: TuneSettings, device: torch.device):
        self.tuned = copy.deepcopy(generator).train().requires_grad_(False)
        self.mean = copy.deepcopy(self.tuned) if settings.average else self.tuned
        self.tuned.synthesis.requires_grad_(True)
        self.adam = _optimizer(self.tuned.synthesis.parameters(), settings, device)
        self.generators = {"g": self.tuned} | ({"mean": self.mean} if settings.average else {})

    @torch.no_grad()
    def average(self, step: int, share: float) -> None:
        """Exponential average over the last ``share`` of the steps: what single steps waver by is no likeness."""
        if self.mean is self.tuned:
            return
        weight = min(1.0, AVERAGED / (share * step))
        if weight == 1 or step % AVERAGED == 0:
            mean, last = (list(net.synthesis.parameters()) for net in (self.mean, self.tuned))
            torch._foreach_lerp_(mean, last, weight)  # pyright: ignore[reportPrivateImportUsage]

    def snapshot(self) -> tuple[dict[str, dict], dict]:
        """Copies of the states of the generators and of the optimiser."""
        states = {
            name: {key: value.clone() for key, value in net.state_dict().items()}
            for name, net in self.generators.items()
        }
        return states, copy.deepcopy(self.adam.state_dict())

    def restore(self, kept: tuple[dict[str, dict], dict]) -> None:
        """Take back a snapshot, which stays whole."""
        for name, net in self.generators.items():
            net.load_state_dict(kept[0][name])
        self.adam.load_state_dict(copy.deepcopy(kept[1]))


class _Likeness:
    """Weighted perceptual distance to the scan images, of several views; the images are embedded once."""

    def __init__(self, perceptual, images: Tensor, settings: TuneSettings):
        views = (
            (settings.perceptual, losses.whole),
            (settings.face, losses.face),
            (settings.eyes, losses.eyes),
            (settings.mouth, losses.mouth),
        )
        self._perceptual, self._views = (
            perceptual,
            [(weight, partial(view, size=settings.view)) for weight, view in views if weight],
        )
        self._weight, self._mesh = settings.landmarks, None
        if self._weight:
            self._mesh = load_facemesh(device=images.device)
        with torch.no_grad():
            self._aims = [
                torch.cat([perceptual.embed(view(part)) for part in images.split(8)]) for _, view in self._views
            ]
            if self._mesh:
                self._marks = torch.cat([crop_landmarks(self._mesh, part)[0] for part in images.split(8)])

    def distance(self, made: Tensor, rows: Tensor | list[int]) -> Tensor:
        """[B] of images made [B, 3, H, W] for the scan images ``rows``."""
        made = made.float()
        apart = sum(
            (
                weight * self._perceptual.distance_to(view(made), aims[rows])
                for (weight, view), aims in zip(self._views, self._aims)
            ),
            made.new_zeros(len(made)),
        )
        if self._mesh:
            apart = apart + self._weight * losses.landmarks(crop_landmarks(self._mesh, made)[0], self._marks[rows])
        return apart


def _optimizer(parameters, settings: TuneSettings, device: torch.device) -> torch.optim.Adam:
    if settings.optimizer == "muon":
        return Muon(parameters, settings.rate, (0.9, 0.99), dtype=feature_dtype(settings.precision, device))
    return torch.optim.Adam(parameters, settings.rate, (0.9, 0.99))


def _fast(tuned, settings: TuneSettings, remarks: list[str]) -> Callable:
    """The generator's forward pass, compiled where that pays."""
    work = settings.steps * settings.batch * tuned.resolution**2
    pays = next(tuned.parameters()).is_cuda and work >= WORTH_COMPILING
    if settings.compile == "no" or (settings.compile == "auto" and not pays):
        return tuned
    return compiled(tuned, remarks)


def _step(nets: _Nets, fast, anchors, images, likeness, train, settings, state) -> float:
    draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + state.step)  # stateless: resuming is exact
    rows = torch.tensor(train)[torch.randperm(len(train), generator=draw)[: settings.batch]]
    scale = state.rate_scale
    if settings.decay:
        scale /= math.sqrt(1 + state.step / settings.decay)  # of no end known: good whenever tuning stops
    for group in nets.adam.param_groups:
        group["lr"] = settings.rate * scale
    dtype = feature_dtype(settings.precision, anchors.device)
    made = fast(nets.tuned.broadcast(anchors[rows]), "const", None, None, dtype)
    loss = (likeness.distance(made, rows) + settings.pixel * losses.pixel(made, images[rows])).mean()
    nets.adam.zero_grad()
    loss.backward()
    value = float(loss.detach())
    if math.isfinite(value):
        nets.adam.step()
    return value


@torch.no_grad()
def _check(nets: _Nets, anchors, likeness, held) -> float:
    rows = held or list(range(min(4, len(anchors))))
    if not all(bool(p.isfinite().all()) for p in nets.tuned.synthesis.parameters()):
        return math.inf
    return float(likeness.distance(nets.mean(nets.mean.broadcast(anchors[rows])), rows).mean())


@torch.no_grad()
def _preview(tuned, anchors, images, count: int = 6) -> np.ndarray:
    """Scan images above what the generator makes of them, [H, W, 3] uint8 RGB."""
    few = len(images) < count
    rows = list(range(len(images))) if few else [int(k * len(images) / count) for k in range(count)]
    pair = torch.stack([images[rows], tuned(tuned.broadcast(anchors[rows])).clamp(-1, 1)])
    return to_uint8(torch.cat([torch.cat(list(row), 2) for row in pair], 1))


def _roll_back(nets: _Nets, good, state: _State) -> None:
    """Return to the last good weights at half the step size."""
    state.rollbacks += 1
    if state.rollbacks > MAX_ROLLBACKS:
        raise TrainingDiverged(
            f"tuning gave non-finite values {state.rollbacks} times, even at 1/{2**MAX_ROLLBACKS} "
            "of the step; lower personalize.rate or check the scan's images"
        )
    nets.restore(good)
    state.rate_scale *= 0.5


def to_bytes(nets: _Nets, state: _State) -> bytes:
    """A checkpoint of a tuning as safetensors."""
    from safetensors.torch import save

    tensors = {
        f"{name}.{k}": v.contiguous() for name, net in nets.generators.items() for k, v in net.state_dict().items()
    }
    for i, slot in nets.adam.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v.contiguous() for k, v in slot.items()}
    return save(tensors | {"state": _as_tensor(vars(state))})


def resume(checkpoints: Checkpoints, nets: _Nets, state: _State) -> None:
    """Take over the last checkpoint; without a whole one of this very tuning nothing changes, and it starts over."""
    found = checkpoints.get(CHECKPOINT)
    if found and "content" in found:
        from_bytes(found["content"].tobytes(), nets, state)


def from_bytes(content: bytes, nets: _Nets, state: _State) -> None:
    """Take over what ``to_bytes`` wrote; content that is no checkpoint of this very tuning changes nothing."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    kept = nets.snapshot()
    try:
        tensors = load(content)
        stored = _State(**json.loads(tensors.pop("state").numpy().tobytes()))
        for name, net in nets.generators.items():
            net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
        slots: dict[int, dict] = {}
        for name in tensors:
            if name.startswith("adam."):
                _, i, part = name.split(".")
                slots.setdefault(int(i), {})[part] = tensors[name]
        if slots:
            nets.adam.load_state_dict({**nets.adam.state_dict(), "state": slots})
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
        nets.restore(kept)
        return
    vars(state).update(vars(stored))


def _as_tensor(values: dict) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
