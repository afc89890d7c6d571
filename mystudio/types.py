"""The artifact types that stages exchange. They are frozen, and their shapes are checked on construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selfscan.types import NUM_LANDMARKS, Array, Consent, Observation, check_shape
from selfscan.types import Progress as Progress  # both packages report progress in the same way
from selfscan.types import silent as silent

if TYPE_CHECKING:
    from mystudio.stylegan2.generator import Generator
else:  # that module imports this one; at run time storage needs only the name
    Generator = torch.nn.Module

Codes = Mapping[str, Tensor]  # name -> [T, ...]: codes of an engine over time


class Outcome(IntEnum):
    """The outcome of solving one frame. Takes store these numbers, so they must never change."""

    CONVERGED = 0  # the solver met its tolerance
    MAX_STEPS = 1  # the solver used all its steps before it converged
    NO_FACE = 2  # no face in the driving frame: the code comes from its neighbours
    HELD = 3  # the code was not finite: it comes from its neighbours
    FOLLOWED = 4  # live only: the regressor gave the code without solving; no take stores this

    @property
    def word(self) -> str:
        """The name in reports and in the output of the command line."""
        return self.name.lower()


TAKE_OUTCOMES = tuple(outcome for outcome in Outcome if outcome != Outcome.FOLLOWED)


@dataclass(frozen=True)
class Performance:
    """The measurements of a driving clip. They do not depend on an avatar, so every avatar can use them."""

    observation: Observation
    mouth: Array  # [T, h, w, 3] uint8 RGB: mouth patch of the driver in its own mouth frame
    irises: Array  # [T, 2, h, w, 3] uint8 RGB: right and left eye patches
    other: Array | None = None  # [T] bool: the face of this shot is not that of most of the clip; None: not compared

    def __len__(self) -> int:
        return len(self.observation)

    @property
    def shots(self) -> tuple[slice, ...]:
        """The frames between two cuts, in order. Smoothing, neutral faces and temporal terms stop at their ends."""
        return self.observation.track.shots


@dataclass(frozen=True)
class Styles:
    """The input of ``Generator.synthesize``: StyleSpace vectors and, if an engine gives them, weight deltas.

    ``vectors`` and ``weight_deltas`` follow the order of the modulated layers (``Generator.layers``).
    """

    vectors: tuple[Tensor, ...]  # each [B, C of the layer's input]
    #: each [B or 1, C of the output, C of the input] or None: the layer's weights W become W (1 + delta); () = none
    weight_deltas: tuple[Tensor | None, ...] = ()

    def __post_init__(self):
        if self.weight_deltas and len(self.weight_deltas) != len(self.vectors):
            raise ValueError(
                f"expected a weight delta or None for each of {len(self.vectors)} layers, got {len(self.weight_deltas)}"
            )


@dataclass(frozen=True)
class Avatar:
    """A generator that draws one person, and the state that its engine needs to drive it."""

    generator: Generator  # draws this person
    neutral: Tensor  # [478, 3] the person's neutral face, in crops
    state: Any  # the engine's own part: an instance of its ``State`` (engines/protocol.py)
    engine: str  # name of the engine that made it
    base_digest: str  # sha256 of the base generator's file
    consent: Consent
    info: dict[str, Any] = field(default_factory=dict[str, Any])  # shown in the report: losses, seconds, metric

    def __post_init__(self):
        check_shape("neutral", self.neutral, (NUM_LANDMARKS, 3))


@dataclass(frozen=True)
class Take:
    """Codes over time of one performance by one avatar: no pixels, no weights."""

    codes: Codes  # name -> [T, ...] float32; names and units are the engine's
    outcome: Array  # [T] uint8, an ``Outcome`` each
    times: Array  # [T] float64 s
    losses: dict[str, Array]  # name -> [T] final value of each loss term
    edits: tuple[Edit, ...] = ()  # edits that were applied, in order

    def __post_init__(self):
        check_shape("outcome", self.outcome, (len(self.times),))
        for name, values in self.codes.items():
            if len(values) != len(self.times):
                raise ValueError(f"codes {name!r}: expected {len(self.times)} frames, got {len(values)}")

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class Edit:
    """A semantic edit: move along a named direction by a strength that may change over time."""

    name: str
    strength: float = 1.0
    keys: tuple[tuple[float, float], ...] = ()  # (seconds, strength) keyframes, linear between; empty = constant
    edge: str = "project"  # "stop", "continue" or "project": treatment of codes outside the hull
