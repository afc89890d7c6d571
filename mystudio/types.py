"""What passes between the stages. Artifact types are frozen; shapes are checked when made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from selfscan.face.patches import Outlined, Recoloured
from selfscan.types import NUM_LANDMARKS, Consent, Observation, check_shape
from selfscan.types import Progress as Progress  # both packages report progress in the same way
from selfscan.types import silent as silent


class Outcome(IntEnum):
    """What became of a frame. Takes store these numbers, so they never change."""

    CONVERGED = 0  # the solver met its tolerance
    MAX_STEPS = 1  # the solver used all its steps before that
    NO_FACE = 2  # no face in the driving frame: the code comes from its neighbours
    HELD = 3  # the code was not finite: it comes from its neighbours
    FOLLOWED = 4  # live alone: the regressor gave the code, nothing was solved; no take stores this

    @property
    def word(self) -> str:
        """The name in reports and in answers of the command line."""
        return self.name.lower()


TAKE_OUTCOMES = tuple(outcome for outcome in Outcome if outcome != Outcome.FOLLOWED)


@dataclass(frozen=True)
class Performance:
    """A driving clip as measured; knows no avatar, so it is reusable."""

    observation: Observation
    mouth: np.ndarray  # [T, h, w, 3] uint8 RGB: mouth patch of the driver in its own mouth frame
    irises: np.ndarray  # [T, 2, h, w, 3] uint8 RGB: right and left eye patches

    def __len__(self) -> int:
        return len(self.observation)


@dataclass(frozen=True)
class Motion:
    """What the avatar must show, frame by frame, in the avatar's own proportions."""

    keypoints: Tensor  # [T, K, 3] in crops, each part of zero mean (see landmarks.KEYPOINT_PARTS)
    weights: Tensor  # [K] importance of each keypoint
    change: Tensor  # [T, K, 3] the driver's change from the neutral face, in units of part sizes
    mouth: Tensor | Recoloured  # [T, 3, h, w] in [-1, 1], or what gives them by frame
    mouth_mask: Tensor | Outlined  # [T, 1, h, w] 1 inside the driver's inner lips
    irises: Tensor | Recoloured  # [T, 2, 3, h, w] in [-1, 1], as the mouth
    iris_mask: Tensor | Outlined  # [T, 2, 1, h, w] 1 on the driver's visible iris
    valid: Tensor  # [T] bool
    times: Tensor  # [T] float64 s
    measures: Tensor | None = None  # [T, M] expression in the avatar's measure (retarget.MEASURES)

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True)
class Styles:
    """What ``Generator.synthesize`` eats: a StyleSpace vector for every modulated layer, in order."""

    vectors: tuple[Tensor, ...]  # each [B, C of the layer]


@dataclass(frozen=True)
class Avatar:
    """A personal generator with the anchors it was tuned on."""

    generator: torch.nn.Module  # stylegan2.Generator, tuned
    anchors: Tensor  # [N, D] float32 in W
    anchor_ids: np.ndarray  # [N] int64 frame indices of the scan
    anchor_keypoints: Tensor  # [N, 478, 3] landmarks of the scan images, in crops (0..1)
    neutral: Tensor  # [478, 3] the person's neutral face, in crops
    directions: dict[str, Tensor]  # name -> [D] W direction; strength 1 = one visible unit
    regressor: dict[str, Tensor]  # state of keypoints -> code (engines/personal/regress.py)
    statistics: dict[str, Tensor]  # mean and spread of mouth and iris pixels over the scan (retarget.py)
    engine: str
    base_digest: str
    consent: Consent
    info: dict = field(default_factory=dict)  # numbers for the report: losses, seconds, LPIPS metric name

    def __post_init__(self):
        n = len(self.anchors)
        check_shape("anchor_ids", self.anchor_ids, (n,))
        check_shape("anchor_keypoints", self.anchor_keypoints, (n, NUM_LANDMARKS, 3))


@dataclass(frozen=True)
class Take:
    """Codes over time of one performance by one avatar: no pixels, no weights."""

    codes: Tensor  # [T, L, K] float32 coordinates in the avatar's anchor space (latents.AnchorSpace)
    outcome: np.ndarray  # [T] uint8 values of Outcome
    times: np.ndarray  # [T] float64 s
    losses: dict[str, np.ndarray]  # name -> [T] final value of each loss term
    edits: tuple[Edit, ...] = ()  # applied, in order, for the record

    def __post_init__(self):
        check_shape("outcome", self.outcome, (len(self.codes),))
        check_shape("times", self.times, (len(self.codes),))

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True)
class Edit:
    """A semantic edit: move along a named direction by a strength that may change over time."""

    name: str
    strength: float = 1.0
    keys: tuple[tuple[float, float], ...] = ()  # (seconds, strength) keyframes, linear between; empty = constant
    edge: str = "project"  # stop | continue | project: what happens at the border of the hull


class Engine(Protocol):
    """All that an engine is. One contract suite (tests/mystudio/test_engines.py) runs over every engine."""

    def personalize(self, scan, base, settings, progress: Progress) -> Avatar: ...
    def reenact(self, avatar: Avatar, performance: Performance, settings, progress: Progress) -> Take: ...
    def decode(self, avatar: Avatar, take: Take, frames: slice) -> Styles: ...
