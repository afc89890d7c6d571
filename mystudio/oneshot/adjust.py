"""Cyclic manifold adjustment (arXiv 2302.07848, section 3.4): the generator is tuned to one person of one photo.

All latents stay fixed, and so do the affine layers. The other weights of the synthesis network are tuned for some
steps, so that three things hold:

- source: the generator draws the photo at the photo's own styles.
- cycle: the person is drawn in a random motion, that picture is encoded again, and drawn with the photo's motion. The
  result is the photo, too. So the person stays the same person in other motions.
- locality: at styles of random people the tuned generator draws what the frozen one draws.

It serves every one-shot engine: an engine says how it drives and how it encodes (``Person``).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as encode
from torch import Tensor, nn

from mystudio.base.adam import fill_slots, slots_of
from mystudio.errors import TrainingDiverged
from mystudio.motion import losses
from mystudio.oneshot.rows import detached, rows_of
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, Styles, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.perceptual.metric import Perceptual

NAME = "adjust"  # of the checkpoint among all checkpoints
MAX_HALVINGS = 5
MEASURED = 4  # random motions and random people that the figures are measured on


@dataclass(frozen=True)
class AdjustSettings:
    """How the generator is adjusted to one person."""

    steps: int = 150  # optimisation steps; 0 = the generator of the base is used as it is
    rate: float = 3e-3  # learning rate of Adam
    batch: int = 1  # photos, motions and random people in a step, each
    source: float = 2.0  # weight of the distance of the drawn photo from the photo
    cycle: float = 1.0  # weight of the same after another motion and encoding again
    locality: float = 1.0  # weight of the distance from the frozen generator at random people
    pixel: float = 1.0  # weight of the mean squared error in each distance
    perceptual: float = 0.8  # weight of the perceptual distance of the whole picture in each distance
    face: float = 0.8  # weight of the perceptual distance of the face alone, enlarged
    view: int = 128  # px at which perceptual distances are taken; 0 = full size
    save_every: int = 50  # steps between two checkpoints
    seed: int = 0  # of motions and random people


@dataclass(frozen=True)
class Person:
    """The photos of a person, and how an engine draws the person; nothing in it changes while the generator does."""

    images: Tensor  # [K, 3, H, H] the photos, in [-1, 1], at the generator's size
    styles: Styles  # of the photos, K rows
    #: number of pictures, random numbers -> styles of the person in so many random motions
    drive: Callable[[int, torch.Generator], Styles]
    #: drawn pictures [B, 3, H, H], rows [B] of photos -> styles of the pictures' person in the photos' motions;
    #: differentiable in the pictures
    redraw: Callable[[Tensor, Tensor], Styles]
    seen: Tensor | None = None  # [K, 1, H, H] bool, pixels that the camera saw; None = all

    def visible(self, made: Tensor, rows: Tensor) -> Tensor:
        """Drawn photos [B, 3, H, H] with the photos' own pixels where the camera saw nothing."""
        return made if self.seen is None else torch.where(self.seen[rows], made, self.images[rows])


class Distance:
    """Distance of pictures: squared error, and the perceptual distance of the whole and of the face.

    Args: perceptual: ``selfscan.perceptual``. settings: its weights.
    """

    def __init__(self, perceptual: Perceptual, settings: AdjustSettings):
        self._perceptual, self._settings = perceptual, settings

    def __call__(self, made: Tensor, aim: Tensor) -> Tensor:
        """Distance [N] of pictures [N, 3, H, H]."""
        s = self._settings
        total = s.pixel * losses.pixel(made, aim)
        for weight, view in ((s.perceptual, losses.whole), (s.face, losses.face)):
            if weight:
                total = total + weight * self._perceptual.distance(view(made, s.view), view(aim, s.view))
        return total


def adjust(
    generator: Generator,
    person: Person,
    perceptual: Perceptual,
    settings: AdjustSettings = AdjustSettings(),
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> tuple[Generator, dict[str, float]]:
    """Tune a copy of a generator to one person.

    Args:
        generator: the base; it is not changed. person: on the generator's device.
        checkpoints: a stopped run resumes from the last one; on a CPU it ends in the same weights.
    Returns: the tuned generator, and figures: "source" and "cycle" (distances from the photos), "locality" (distance
        from the base at random people), each with "_before" for the base's own; "steps".
    Raises: TrainingDiverged: values were not finite, also at 1/32 of the step size.
    """
    work = _Work(generator, person, Distance(perceptual, settings), settings)
    before = work.figures()
    _resume(checkpoints, work)
    while work.step < settings.steps:
        work.advance()
        progress("adjust", work.step, settings.steps)
        if work.step % settings.save_every == 0 or work.step == settings.steps:
            checkpoints.put(NAME, {"content": np.frombuffer(_to_bytes(work), np.uint8)})
    figures = {f"{name}_before": value for name, value in before.items()} | work.figures()
    return work.tuned.eval().requires_grad_(False), figures | {"steps": float(work.step)}


class _Work:
    """The tuned and the frozen generator, Adam, and how far the work has come."""

    def __init__(self, generator: Generator, person: Person, distance: Distance, settings: AdjustSettings):
        self.person, self.distance, self.settings = person, distance, settings
        self.frozen = copy.deepcopy(generator).eval().requires_grad_(False)
        self.tuned = copy.deepcopy(self.frozen)
        self.free = [p for name, p in self.tuned.synthesis.named_parameters() if ".affine." not in name]
        for weight in self.free:
            weight.requires_grad_(True)
        self.adam = torch.optim.Adam(self.free, lr=settings.rate, betas=(0.9, 0.99))
        self.step, self.scale = 0, 1.0

    def advance(self) -> None:
        """One step. A step whose gradient is not finite changes nothing and halves the rate."""
        s = self.settings
        draw = torch.Generator().manual_seed(s.seed * 1_000_003 + self.step)  # stateless: resuming is exact
        for group in self.adam.param_groups:
            group["lr"] = s.rate * self.scale * _fall(self.step, s.steps)
        loss = self.loss(draw)
        self.adam.zero_grad()
        loss.backward()
        gradients = [p.grad for p in self.free if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not math.isfinite(float(loss.detach()) + float(norm)):
            self.scale /= 2
            if self.scale < 0.5**MAX_HALVINGS:
                raise TrainingDiverged(
                    f"adjusting gave non-finite values, also at 1/{2**MAX_HALVINGS} of the step; lower adjust.rate or "
                    "choose another photo"
                )
            return
        self.adam.step()
        self.step += 1

    def loss(self, draw: torch.Generator) -> Tensor:
        """The weighted sum of the three terms for one batch."""
        s = self.settings
        rows = torch.randint(len(self.person.images), (s.batch,), generator=draw)
        loss = s.source * self.source(rows).mean()
        if s.cycle:
            loss = loss + s.cycle * self.cycle(rows, draw).mean()
        if s.locality:
            loss = loss + s.locality * self.drift(s.batch, draw).mean()
        return loss

    def source(self, rows: Tensor) -> Tensor:
        """Distance [B] of the drawn photos ``rows`` from the photos."""
        made = self.tuned.synthesize(rows_of(self.person.styles, rows))
        return self.distance(self.person.visible(made, rows), self.person.images[rows])

    def cycle(self, rows: Tensor, draw: torch.Generator) -> Tensor:
        """Distance [B] from photos ``rows`` after a random motion, encoding again, and the photos' own motion."""
        away = self.tuned.synthesize(detached(self.person.drive(len(rows), draw)))
        back = self.tuned.synthesize(self.person.redraw(away, rows))
        return self.distance(self.person.visible(back, rows), self.person.images[rows])

    def drift(self, count: int, draw: torch.Generator) -> Tensor:
        """Distance [B] of the tuned from the frozen generator at random people."""
        with torch.no_grad():
            z = torch.randn(count, self.frozen.z_dim, generator=draw).to(self.free[0])
            styles = self.frozen.styles(self.frozen.broadcast(self.frozen.mapping(z)))
            aim = self.frozen.synthesize(styles)
        return self.distance(self.tuned.synthesize(styles), aim)

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """The three distances at fixed motions and people."""
        draw = torch.Generator().manual_seed(self.settings.seed + 1)
        rows = torch.arange(MEASURED) % len(self.person.images)
        return {
            "source": float(self.source(rows).mean()),
            "cycle": float(self.cycle(rows, draw).mean()),
            "locality": float(self.drift(MEASURED, draw).mean()),
        }


def _fall(step: int, steps: int) -> float:
    """Factor of the rate: constant at first, falling to a twentieth in the second half."""
    share = max(0.0, 2 * step / steps - 1)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share))


def _to_bytes(work: _Work) -> bytes:
    tensors = {f"g.{name}": value.contiguous() for name, value in work.tuned.synthesis.state_dict().items()}
    tensors |= {f"adam.{name}": value.contiguous() for name, value in slots_of(work.adam).items()}
    state = json.dumps({"step": work.step, "scale": work.scale}).encode()
    return encode(tensors | {"state": torch.frombuffer(bytearray(state), dtype=torch.uint8)})


def _resume(checkpoints: Checkpoints, work: _Work) -> None:
    """Load the last checkpoint. If it is missing, damaged or of another network, nothing changes."""
    found: Any = checkpoints.get(NAME)
    if not found or "content" not in found:
        return
    before = copy.deepcopy(work.tuned.synthesis.state_dict())
    try:
        tensors = parse(found["content"].tobytes())
        state = json.loads(tensors.pop("state").numpy().tobytes())
        step, scale = int(state["step"]), float(state["scale"])
        work.tuned.synthesis.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("g.")})
        fill_slots(work.adam, {k[5:]: v for k, v in tensors.items() if k.startswith("adam.")})
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
        work.tuned.synthesis.load_state_dict(before)
        return
    work.step, work.scale = step, scale
