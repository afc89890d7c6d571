"""The engine protocol: a module fulfils ``Engine`` and any of the optional protocols below.

An engine turns a scan into an avatar, a performance into a take, and a take's codes into styles. All other modules
(storage, edits, live, rendering, reports) call the engine and never interpret its codes.
``docs/adding_an_engine.md`` is the guide; ``tests/mystudio/engines/test_contract.py`` tests every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mystudio.types import Avatar, Codes, Performance, Progress, Styles, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.types import Array

if TYPE_CHECKING:
    from pathlib import Path

    from mystudio.bases import Base
    from selfscan.types import Scan

Device = torch.device | str
#: sees an avatar while it is made, as a function that makes a usable one of it; True ends the work with it
Watch = Callable[[Callable[[], Avatar]], bool]


@dataclass(frozen=True)
class Forecast:
    """How long the parts of ``personalize`` take."""

    before: float  # s until avatars on the way can be made
    during: float  # s in which they can, without making any
    after: float  # s of the rest
    draft: float  # s of making one on the way


@runtime_checkable
class Engine(Protocol):
    """Required of every engine. A module fulfils it with constants, dataclasses and three functions."""

    @property
    def NAME(self) -> str:
        """The engine's name, as stored in avatars and given to ``--engine``."""
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
            checkpoints: of finished parts; a stopped run resumes from them and gives the same avatar.
            device: of the computation. The avatar's tensors return to the CPU; its generator may stay on the device.
        Raises: ConsentRequired: the scan has no consent record. TooFewImages: it holds fewer images than the engine
            needs, which may be one. TrainingDiverged.
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

        ``performance.shots`` are the frames between two cuts: nothing may be smoothed, interpolated or linked from one
        shot to the next, and ``motion.retarget.neutral_faces`` gives the driver's neutral face of each.

        Args: settings: ``ReenactSettings``. The other arguments as for ``personalize``.
        Returns: a take with as many frames as the performance; ``outcome`` marks frames without a face.
        """
        ...

    def decode(self, avatar: Avatar, take: Take, frames: slice = slice(None)) -> Styles:
        """Decode frames of a take to styles, on the generator's device; other frames must not change the result."""
        ...


@runtime_checkable
class Improves(Protocol):
    """Optional: an avatar that can be used while it is still being made."""

    def improve(
        self,
        scan: Scan,
        base: Base,
        settings: Any,
        watch: Watch,
        checkpoints: Checkpoints = NO_CHECKPOINTS,
        device: Device = "cpu",
        progress: Progress = silent,
    ) -> Avatar:
        """As ``personalize``, but ``watch`` is called after every step.

        Its argument makes a usable avatar of what is there, in seconds. ``info["likeness"]`` says how much it looks
        like the person, ``info["own_likeness"]`` how alike the person's own images are, and ``info["steps"]`` how far
        it came. If ``watch`` returns True, the avatar of this moment is the result, and the checkpoints can go on.
        """
        ...


class Follower(Protocol):
    """Codes of live frames, one at a time and causal."""

    def __call__(self, landmarks: Tensor, driver_neutral: Tensor) -> Codes:
        """Landmarks [1, 478, 3] of the driver and the driver's neutral face [478, 3], in crops -> codes of 1 frame."""
        ...


@runtime_checkable
class Edits(Protocol):
    """Optional: semantic edits."""

    def directions(self, avatar: Avatar) -> Mapping[str, Tensor]:
        """The directions that an avatar offers: name -> [D]; a strength of 1 is a clearly visible change."""
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
        """Move codes of T frames along a direction by strengths [T]; it is [D], or [L, D] with its own row a layer.

        Args:
            edge: policy for codes outside the person's own range: one of ``editing.POLICIES``.
            checkpoints: of finished parts of this very edit.
        """
        ...


@runtime_checkable
class Follows(Protocol):
    """Optional: live driving."""

    def follow(self, avatar: Avatar, settings: Any, device: Device = "cpu") -> Follower:
        """Make the follower that drives an avatar live. Args: settings: ``ReenactSettings``."""
        ...


@runtime_checkable
class Describes(Protocol):
    """Optional: facts for reports and the terminal."""

    def describe(self, avatar: Avatar) -> dict[str, int | float | str]:
        """Facts about an avatar: name -> number or text, such as {"anchors": 66}."""
        ...


@runtime_checkable
class Shows(Protocol):
    """Optional: what an avatar was trained on, for the forecast of what it cannot follow (``evaluation.forecast``)."""

    def shown(self, avatar: Avatar) -> Tensor:
        """Landmarks [N, 478, 3] in crops of the images that the avatar was trained on."""
        ...


@runtime_checkable
class Forecasts(Protocol):
    """Optional: how long ``personalize`` takes on this machine."""

    def forecast(self, scan: Scan, base: Base, settings: Any, device: Device = "cpu") -> Forecast:
        """Measure some seconds of the work itself; returns an estimate of the whole.

        Args and errors: as for ``Engine.personalize``.
        """
        ...


@runtime_checkable
class Needs(Protocol):
    """Optional: more than one image."""

    @property
    def NEEDED(self) -> int:
        """The fewest images of a scan that ``personalize`` takes; with fewer it raises TooFewImages."""
        ...


@runtime_checkable
class Companions(Protocol):
    """Optional: files that a base should have for this engine."""

    @property
    def COMPANIONS(self) -> Mapping[str, str]:
        """Kind of file beside the base (``NAME.KIND.safetensors``) -> what is lost without it."""
        ...


@runtime_checkable
class Trains(Protocol):
    """Optional: the engine has networks of its own, which are trained once for each base."""

    @property
    def TrainSettings(self) -> type:
        """Frozen dataclass of the training recipe's tables; every field has a default."""
        ...

    def train(
        self,
        run: Path,
        base: Base,
        data: Sequence[Path],
        settings: Any,
        limits: Any,
        device: Device = "cpu",
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Start a training run or resume a stopped one.

        Args:
            run: its folder. data: folders of ``actors dataset --grid``, and of portraits.
            settings: ``TrainSettings``. limits: ``oneshot.loop.Limits``.
        Returns: {"done": bool, "phase": str, "images": of the phase, "steps": int, "rollbacks": int}.
        Raises: BadData, BadArtifact, BadCheckpoint, OutputFailed, ArtifactBusy, TrainingDiverged.
        """
        ...

    def install(self, source: Path, base: Base) -> Path:
        """Put the weights of a run, or of a file, beside the base, and return their file.

        Raises: BadCheckpoint, BadArtifact: it is neither, or for another base. OutputFailed.
        """
        ...
