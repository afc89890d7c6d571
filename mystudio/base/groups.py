"""Reads data that ``mystudio actors dataset --grid`` wrote: groups that hold each person in each motion.

Image [p, m] of a group shows person p in motion m. So for a source [p, a] and a driver [q, b] the true
cross-reenactment is image [p, b].
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mystudio.actors.dataset import SETTINGS
from mystudio.actors.factors import MOTION, N_FACTORS, look_of
from mystudio.base.sources import Shards
from mystudio.errors import BadData
from selfscan.io.text import read_text


@dataclass(frozen=True)
class Groups:
    """Groups of people x motions; image [p, m] of group g is image (g * people + p) * motions + m of the source."""

    source: Shards
    people: int  # P of each group
    motions: int  # M of each group

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.source) // (self.people * self.motions)

    def get(self, group: int, person: int, motion: int) -> tuple[np.ndarray, np.ndarray]:
        """One image [R, R, 3] uint8 RGB and its code [64] float32.

        Raises: IndexError: there is no such group, person or motion.
        """
        for name, value, count in (
            ("group", group, len(self)), ("person", person, self.people), ("motion", motion, self.motions),
        ):  # fmt: skip
            if not 0 <= value < count:
                raise IndexError(f"{name}: expected 0 to {count - 1}, got {value}")
        return self.source.get((group * self.people + person) * self.motions + motion)

    def whole(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """All images [P, M, R, R, 3] uint8 RGB of a group, and their codes [P, M, 64] float32."""
        found = [self.get(group, p, m) for p in range(self.people) for m in range(self.motions)]
        images, codes = (np.stack(values) for values in zip(*found))
        shape = (self.people, self.motions)
        return images.reshape(*shape, *images.shape[1:]), codes.reshape(*shape, -1)

    @cached_property
    def codes(self) -> np.ndarray:
        """Codes [G, P, M, 64] of all groups."""
        return self.source.codes.reshape(len(self), self.people, self.motions, -1)


@dataclass(frozen=True)
class Triple:
    """Who reenacts what inside a group: person and motion of the source, and those of the driver."""

    person: int  # of the source, and of the truth
    motion: int  # of the source
    driver: int  # person of the driver
    driven: int  # motion of the driver, and of the truth

    @property
    def source(self) -> tuple[int, int]:
        """(person, motion) of the source's image."""
        return self.person, self.motion

    @property
    def truth(self) -> tuple[int, int]:
        """(person, motion) of the true cross-reenactment."""
        return self.person, self.driven


def triples(people: int, motions: int) -> Iterator[Triple]:
    """Every cross-reenactment in a group: a driver who is another person, in another motion than the source's."""
    for person in range(people):
        for driver in (p for p in range(people) if p != person):
            for motion in range(motions):
                yield from (Triple(person, motion, driver, b) for b in range(motions) if b != motion)


def open_groups(path: str | Path, resolution: int) -> Groups:
    """Open a dataset of groups.

    Args: path: the folder that ``mystudio actors dataset --grid`` wrote. resolution: px that images are reduced to.
    Raises: BadData: it is no such folder, is not finished, is damaged, or its codes are not those of groups.
    """
    path = Path(path)
    people, motions, count = _layout(path)
    source = Shards(path, resolution)
    if len(source) != count or count % (people * motions):
        raise BadData(
            f"{path}: expected the {count} images that {SETTINGS} names, in groups of {people} x {motions}, found "
            f"{len(source)}; run the same `mystudio actors dataset` command again to finish it"
        )
    groups = Groups(source, people, motions)
    if source.code_size != N_FACTORS or not _are_groups(groups.codes):
        raise BadData(
            f"{path}: expected groups of {people} people with the same {motions} motions, got other codes; choose "
            "another folder and draw the dataset again"
        )
    return groups


def _layout(path: Path) -> tuple[int, int, int]:
    """People and motions of a group, and the number of images."""
    try:
        found = json.loads(read_text(path / SETTINGS))
        layout = found.get("people", 1), found["takes"], found["count"]
        if not all(isinstance(value, int) and value > 0 for value in layout):
            raise ValueError("numbers of images")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(
            f"{path}: expected a folder that `mystudio actors dataset --grid` wrote, its {SETTINGS} is missing or "
            f"damaged ({type(error).__name__}); draw the dataset again"
        ) from error
    return layout


def _are_groups(codes: np.ndarray) -> bool:
    """Whether the people of codes [G, P, M, 64] have one look each, and all people the same motions."""
    looks, motions = look_of(codes), codes[..., MOTION]
    return bool((looks == looks[:, :, :1]).all() and (motions == motions[:, :1]).all())
