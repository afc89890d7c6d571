"""What an engine is: a module that fulfils ``Engine``, and as many of the optional parts as it can.

An engine turns a scan into an avatar, a performance into a take, and a take's codes into styles. Everything else
(storage, edits, live, rendering, reports) asks the engine and knows nothing of its codes. ``docs/adding_an_engine.md``
is the guide; ``tests/mystudio/engines/test_contract.py`` runs over every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mystudio.types import Avatar, Codes, Performance, Progress, Styles, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.types import Array

if TYPE_CHECKING:
    from mystudio.bases import Base
    from selfscan.types import Scan

Device = torch.device | str


@runtime_checkable
class Engine(Protocol):
    """The part that every engine has. A module fulfils it with constants, a dataclass and three functions."""

    @property
    def NAME(self) -> str:
        """The name that avatars carry and ``--engine`` takes."""
        ...

    @property
    def State(self) -> type:
        """Frozen dataclass of the engine's own part of an avatar.

        Its fields are stored by name: tensors, numpy arrays, dictionaries of them, generators
        (``stylegan2.Generator``) and plain values. The state of any other network is a dictionary of tensors.
        """
        ...

    @property
    def PersonalizeSettings(self) -> type:
        """Frozen dataclass whose fields are the recipe tables that ``personalize`` reads; every field has a default."""
        ...

    @property
    def ReenactSettings(self) -> type:
        """Frozen dataclass whose fields are the recipe tables that ``reenact`` and ``follow`` read."""
        ...

    def personalize(
        self,
        scan: Scan,
        base: Base,
        settings: Any,
        checkpoints: Checkpoints = NO_CHECKPOINTS,
        device: Device = "cpu",
        progress: Progress = silent,
    ) -> Avatar:
        """Make an avatar of the person of a scan.

        Args:
            scan: with a consent record. base: generator to start from. settings: ``PersonalizeSettings``.
            checkpoints: of finished parts; a run that was stopped goes on from them and gives the same avatar.
            device: that does the work; the avatar's tensors come back to the CPU, its generator need not.
        Raises: ConsentRequired: the scan has no consent record. TrainingDiverged.
        """
        ...

    def reenact(
        self,
        avatar: Avatar,
        performance: Performance,
        settings: Any,
        checkpoints: Checkpoints = NO_CHECKPOINTS,
        device: Device = "cpu",
        progress: Progress = silent,
    ) -> Take:
        """Drive an avatar with a performance.

        Args: settings: ``ReenactSettings``. The other arguments as for ``personalize``.
        Returns: a take with as many frames as the performance; a frame without a face says so in ``outcome``.
        """
        ...

    def decode(self, avatar: Avatar, take: Take, frames: slice = slice(None)) -> Styles:
        """Styles of a take's frames, on the generator's device; any split into parts gives the same styles."""
        ...


class Follower(Protocol):
    """Codes for one live frame at a time, from the past alone."""

    def __call__(self, landmarks: Tensor, driver_neutral: Tensor) -> Codes:
        """Landmarks [1, 478, 3] of the driver and the driver's neutral face [478, 3], in crops -> codes of 1 frame."""
        ...


@runtime_checkable
class Edits(Protocol):
    """Optional: semantic edits."""

    def directions(self, avatar: Avatar) -> Mapping[str, Tensor]:
        """The directions that an avatar offers: name -> [D]; a strength of 1 is one visible unit."""
        ...

    def neutral_codes(self, avatar: Avatar) -> Codes:
        """Codes of one frame with the neutral face."""
        ...

    def move(
        self,
        avatar: Avatar,
        codes: Codes,
        direction: Tensor,
        strengths: Array,
        edge: str,
        checkpoints: Checkpoints = NO_CHECKPOINTS,
    ) -> Codes:
        """Move codes of T frames along a direction [D] by strengths [T].

        Args:
            edge: policy where the avatar's knowledge ends (``types.EDGES``): "stop", "continue" or "project".
            checkpoints: of finished parts of this very edit.
        """
        ...


@runtime_checkable
class Follows(Protocol):
    """Optional: live driving."""

    def follow(self, avatar: Avatar, settings: Any, device: Device = "cpu") -> Follower:
        """What drives an avatar live. Args: settings: ``ReenactSettings``."""
        ...


@runtime_checkable
class Describes(Protocol):
    """Optional: words for reports and for the terminal."""

    def describe(self, avatar: Avatar) -> dict[str, int | float | str]:
        """Facts about an avatar: name -> number or words, such as {"anchors": 66}."""
        ...


@runtime_checkable
class Companions(Protocol):
    """Optional: files that a base should have for this engine."""

    @property
    def COMPANIONS(self) -> Mapping[str, str]:
        """Kind of file beside the base (``NAME.KIND.safetensors``) -> what is missed where it is not there."""
        ...
