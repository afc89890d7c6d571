"""Training batches of one-shot engines: who is the source, who drives, and what is true.

In groups (``base.groups``) the true cross-reenactment is a picture of the data. Portraits are their own truth. Driven
by an actor they have none: then ``exact`` is false, and only losses that need no truth apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mystudio.actors.basis import EXPRESSIONS
from mystudio.actors.factors import MOTION
from mystudio.actors.motion import frame_from_factors
from mystudio.base.groups import Groups, open_groups
from mystudio.base.sources import ImageFolder
from mystudio.bases import Base
from mystudio.errors import BadData
from mystudio.oneshot.measure import Measured, Rest, at_rest, measured_groups, measured_portraits
from mystudio.types import Progress, silent
from selfscan.io.pixels import to_tensor

Kind = Literal["same", "self", "cross"]  # source and driver: one picture; one person; two people
HELD = 16  # of so many groups (and portraits) one is held out: its people are never trained on
EXPRESSION = len(EXPRESSIONS)  # weights that actors play
POSE = 6  # yaw, pitch, roll in radians and x, y, z in centimetres
Place = tuple[int, int]  # number of a set of images, and of an image in it


@dataclass(frozen=True)
class Faces:
    """Images of n people with their measurements (``Measured``)."""

    images: Tensor  # [n, 3, R, R] in [-1, 1]
    landmarks: Tensor  # [n, 478, 3] in crops
    motion: Tensor  # [n, 66, 3] relative to the person's neutral face
    appearance: Tensor  # [n, E] of the base's encoder


@dataclass(frozen=True)
class Batch:
    """Sources, drivers and true pictures, row by row."""

    source: Faces
    driver: Faces
    truth: Faces
    exact: Tensor  # [n] bool: the truth is the source's person in the driver's motion
    person: Tensor  # [n] int64 number of the source's person among all of the pool
    expression: Tensor  # [n, 53] of the driver, as actors play it; zero without one
    pose: Tensor  # [n, 6] of the driver, likewise
    played: Tensor  # [n] bool: the driver is an actor


@dataclass(frozen=True)
class _Set:
    """Images and their measurements; ``groups`` is None for portraits."""

    images: Groups | ImageFolder
    measured: Measured

    @cached_property
    def groups(self) -> Groups | None:
        return self.images if isinstance(self.images, Groups) else None

    @cached_property
    def blocks(self) -> int:
        """Groups, or portraits."""
        return len(self.images)

    @cached_property
    def people(self) -> int:
        return self.groups.people * self.blocks if self.groups else self.blocks

    def rows(self, held_out: bool) -> np.ndarray:
        """Numbers of the blocks that are trained on, or of those held out; of few blocks none is held out."""
        numbers = np.arange(self.blocks)
        held = numbers % HELD == HELD - 1
        return numbers[held == held_out] if held.any() else numbers

    @cached_property
    def codes(self) -> np.ndarray | None:
        """Codes [N, 64] of actors; None for portraits."""
        return self.groups.codes.reshape(len(self.measured), -1) if self.groups else None

    def image(self, row: int) -> np.ndarray:
        """[R, R, 3] uint8 RGB."""
        source = self.images.source if isinstance(self.images, Groups) else self.images
        return source.get(row)[0]


class Pool:
    """All training data of a one-shot engine. (seed, step) determines every batch.

    Args:
        groups, portraits: images with their measurements. share: of the sources that are portraits, 0..1.
    Raises: BadData: there are no groups, or a group has fewer than two people or motions.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Groups, Measured]],
        portraits: Sequence[tuple[ImageFolder, Measured]] = (),
        share: float = 0.25,
        seed: int = 0,
    ):
        if not groups or any(min(g.people, g.motions) < 2 or not len(g) for g, _ in groups):
            raise BadData(
                "expected data of at least two people in two motions each, got none; draw them with `mystudio actors "
                "dataset DIR --grid 4x4`"
            )
        self._sets = [_Set(*pair) for pair in (*groups, *portraits)]
        self._acted = len(groups)
        self.share, self.seed = share if portraits else 0.0, seed
        self._first = np.cumsum([0, *(s.people for s in self._sets)])

    @property
    def people(self) -> int:
        """Number of all people."""
        return int(self._first[-1])

    @property
    def resolution(self) -> int:
        """Side of the images, px."""
        return self._sets[0].image(0).shape[0]

    def batch(self, kind: Kind, step: int, size: int, device: torch.device, held_out: bool = False) -> Batch:
        """The batch of a step; ``held_out``: of people who are not trained on."""
        rng = np.random.default_rng((self.seed, step, held_out))
        rows = [self._draw(rng, kind, held_out) for _ in range(size)]
        source, driver, truth, exact, people = zip(*rows)
        played = [self._played(place) for place in driver]
        expression, pose = (torch.from_numpy(np.stack(part)).float().to(device) for part in zip(*played))
        return Batch(
            self.faces(source, device),
            self.faces(driver, device),
            self.faces(truth, device),
            torch.tensor(exact, device=device),
            torch.tensor(people, device=device),
            expression,
            pose,
            torch.tensor([place[0] < self._acted for place in driver], device=device),
        )

    def faces(self, places: Sequence[Place], device: torch.device) -> Faces:
        """Images and measurements at some places."""
        images = np.stack([self._sets[number].image(row) for number, row in places])
        found = [self._sets[number].measured for number, _ in places]
        parts = (
            torch.stack([getattr(m, name)[row] for m, (_, row) in zip(found, places)]).to(device)
            for name in ("landmarks", "motion", "appearance")
        )
        return Faces(to_tensor(images, device), *parts)

    def _draw(self, rng: np.random.Generator, kind: Kind, held_out: bool) -> tuple[Place, Place, Place, bool, int]:
        """Places of source, driver and truth, whether the truth is exact, and the source's person."""
        portrait = rng.random() < self.share
        number = self._choose(rng, portrait)
        images = self._sets[number]
        block = int(rng.choice(images.rows(held_out)))
        groups = images.groups
        if groups is None:
            source = number, block
            person = int(self._first[number]) + block
            if kind == "same":
                return source, source, source, True, person
            *_, driver, _, _ = self._draw_acted(rng, "cross", held_out)
            return source, driver, source, False, person
        return self._draw_acted(rng, kind, held_out, number, block)

    def _draw_acted(
        self, rng: np.random.Generator, kind: Kind, held_out: bool, number: int | None = None, block: int = 0
    ) -> tuple[Place, Place, Place, bool, int]:
        if number is None:
            number = self._choose(rng, portrait=False)
            block = int(rng.choice(self._sets[number].rows(held_out)))
        groups = self._sets[number].groups
        assert groups is not None
        person, other = rng.choice(groups.people, 2, replace=False).tolist()
        motion, driven = rng.choice(groups.motions, 2, replace=False).tolist()

        def at(who: int, when: int) -> Place:
            return number, (block * groups.people + who) * groups.motions + when

        source, driver = at(person, motion), at(other if kind == "cross" else person, driven)
        truth, who = at(person, driven), int(self._first[number]) + block * groups.people + person
        return (source, source, source, True, who) if kind == "same" else (source, driver, truth, True, who)

    def _choose(self, rng: np.random.Generator, portrait: bool) -> int:
        """A set of images, in proportion to its people."""
        numbers = range(self._acted, len(self._sets)) if portrait else range(self._acted)
        weights = np.array([self._sets[k].people for k in numbers], float)
        return int(rng.choice(list(numbers), p=weights / weights.sum()))

    def _played(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """Expression [53] and pose [6] that an actor plays; zeros for a portrait."""
        codes = self._sets[place[0]].codes
        if codes is None:
            return np.zeros(EXPRESSION), np.zeros(POSE)
        return frame_from_factors(codes[place[1], MOTION].astype(np.float64))


def open_pool(
    paths: Sequence[str | Path],
    base: Base,
    share: float = 0.25,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
    progress: Progress = silent,
    rest: Rest = at_rest,
) -> Pool:
    """Open folders at the base's resolution and measure them: of groups, or of portraits (JPEG, PNG).

    Raises: BadData: a folder is neither, or no groups are among them. BadArtifact, OutputFailed: ``measured_groups``.
    """
    groups, portraits, size = [], [], base.generator.resolution
    for path in map(Path, paths):
        if any(path.glob("*.npz")):
            found = open_groups(path, size)
            groups.append((found, measured_groups(found, path, base, device, progress, rest)))
        else:
            folder = ImageFolder(path, size)
            portraits.append((folder, measured_portraits(folder, path, base, device, progress)))
    return Pool(groups, portraits, share, seed)
