"""What is compared: pictures of a person of a few photos in a driver's motions, by several methods."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mystudio import engines
from mystudio.base.encoder import Encoder, encode, load_encoder
from mystudio.bases import Base
from mystudio.bench.oneshot.pairs import REST, Pair, Portrayed
from mystudio.bench.personal.photo import tuned_on
from mystudio.compute.device import choose
from mystudio.errors import BadArtifact
from mystudio.motion.retarget import neutral_of, relative_motion
from mystudio.recipe import Recipe
from mystudio.rendering.render import synthesize
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.face.measures import EXPRESSION_MEASURES, GAZE_MEASURES, POSE_MEASURES, measures
from selfscan.io.pixels import to_tensor, to_uint8
from selfscan.perceptual.metric import load_perceptual

Draw = Callable[[Pair], np.ndarray]  # pictures [N, H, H, 3] uint8 of a pair's N motions


class Method(Protocol):
    """A way to reenact from photos."""

    @property
    def name(self) -> str:
        """In keys and file names."""
        ...

    @property
    def title(self) -> str:
        """In tables."""
        ...

    def prepare(self, person: Portrayed) -> Draw:
        """Get to know a person; what comes back draws them. Raises StudioError: the person's photos do not suffice."""
        ...


@dataclass(frozen=True)
class Still:
    """The first photo, whatever the driver does."""

    name: str = "still"
    title: str = "still source"

    def prepare(self, person: Portrayed) -> Draw:
        """See ``Method``."""
        return lambda pair: np.repeat(person.images[:1], len(pair.driving.images), 0)


@dataclass(frozen=True)
class Nearest:
    """For each motion the photo that is nearest to the driver's picture in pose, expression and gaze.

    Measures are compared as they are, in standard deviations: a few photos do not tell the person's neutral face.
    """

    name: str = "nearest"
    title: str = "nearest photo"

    def prepare(self, person: Portrayed) -> Draw:
        """See ``Method``."""
        own = _compared(person.landmarks)

        def draw(pair: Pair) -> np.ndarray:
            wanted = _compared(pair.driving.landmarks)
            spread = np.concatenate([own, wanted]).std(0) + 1e-6
            return person.images[(np.abs(wanted[:, None] - own) / spread).mean(-1).argmin(1)]

        return draw


def _compared(marks: np.ndarray) -> np.ndarray:
    """Pose, expression and gaze [N, 10] of faces [N, 478, 3]."""
    found = measures(marks)
    return np.stack([found[name] for name in (*POSE_MEASURES, *EXPRESSION_MEASURES, *GAZE_MEASURES)], -1)


@dataclass(frozen=True)
class Baseline:
    """Baseline 0: the base and its encoder, with the person's appearance and the driver's motion.

    With ``steps`` the base is first tuned on the photos at the encoder's codes of them.
    """

    base: Base
    steps: int = 0
    device: str = "cpu"
    progress: Progress = silent

    @property
    def name(self) -> str:
        """See ``Method``."""
        return f"baseline-tuned-{self.steps}" if self.steps else "baseline"

    @property
    def title(self) -> str:
        """See ``Method``."""
        return f"baseline 0, tuned on the photos for {self.steps} steps" if self.steps else "baseline 0"

    @cached_property
    def _nets(self) -> tuple[Generator, Encoder]:
        path, device = self.base.companion("encoder"), choose(self.device)
        if path is None:
            raise BadArtifact(
                f"expected a base with an encoder, {self.base.name} has none; train it with `mystudio base "
                "train-encoder`"
            )
        return copy.deepcopy(self.base.generator).to(device), load_encoder(path).to(device)

    @torch.no_grad()
    def prepare(self, person: Portrayed) -> Draw:
        """See ``Method``."""
        generator, encoder = self._nets
        images = to_tensor(person.images, choose(self.device))
        if self.steps:
            scan = person.scan()
            codes = encode(encoder, images, torch.as_tensor(person.landmarks).to(images), neutral_of(scan).to(images))
            generator = tuned_on(generator, codes, scan, load_perceptual(), self.steps, self.progress)
        return partial(self._draw, generator, encoder.appearance(images).mean(0))

    @torch.no_grad()
    def _draw(self, generator: Generator, look: Tensor, pair: Pair) -> np.ndarray:
        marks, rest = (torch.as_tensor(values).to(look) for values in (pair.driving.landmarks, pair.driving.rest))
        w = self._nets[1](look.expand(len(marks), -1), relative_motion(marks, rest))
        return np.concatenate([to_uint8(generator(generator.broadcast(part)).clamp(-1, 1)) for part in w.split(8)])


@dataclass(frozen=True)
class OfEngine:
    """An engine of the package, by the same calls as ``personalize`` and ``reenact``."""

    engine: str
    base: Base
    recipe: Recipe
    device: str = "cpu"
    progress: Progress = silent

    @property
    def name(self) -> str:
        """See ``Method``."""
        return f"engine-{self.engine}"

    @property
    def title(self) -> str:
        """See ``Method``."""
        return f"engine {self.engine}"

    def prepare(self, person: Portrayed) -> Draw:
        """See ``Method``."""
        module, device = engines.named(self.engine), choose(self.device)
        made, reenacts = (self.recipe.of(self.engine, stage) for stage in ("personalize", "reenact"))
        avatar = module.personalize(person.scan(), self.base, made, device=device, progress=self.progress)

        def draw(pair: Pair) -> np.ndarray:
            take = module.reenact(avatar, pair.driving.performance(), reenacts, device=device, progress=self.progress)
            return np.concatenate([to_uint8(images) for images in synthesize(avatar, take, start=REST)])

        return draw


@dataclass(frozen=True)
class Truth:
    """The true frames: the best value of every column."""

    name: str = "truth"
    title: str = "the true frames"

    def prepare(self, person: Portrayed) -> Draw:
        """See ``Method``."""
        return lambda pair: pair.truth


@dataclass(frozen=True)
class Driver:
    """The driver's own pictures: what a method would show that copies the driver, looks and all."""

    name: str = "driver"
    title: str = "driver's own picture"

    def prepare(self, person: Portrayed) -> Draw:
        """See ``Method``."""
        return lambda pair: pair.driving.images
