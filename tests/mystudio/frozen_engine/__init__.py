"""A whole engine in one folder, for the tests: the base generator with the codes of its encoder. Nothing is tuned.

It has no edits, which shows what an engine may leave out.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mystudio.base.encoder import Encoder, load_encoder
from mystudio.errors import BadArtifact, ConsentRequired
from mystudio.motion.retarget import RetargetSettings, change_and_measures, neutral_face, neutral_of
from mystudio.types import Avatar, Outcome, Styles, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS
from selfscan.io.pixels import to_tensor

NAME = "frozen"


@dataclass(frozen=True)
class LookSettings:
    """How the person's look is read."""

    images: int = 16  # evenly chosen images of the scan


@dataclass(frozen=True)
class PersonalizeSettings:
    """The recipe table [frozen.look]."""

    look: LookSettings = field(default_factory=LookSettings)


@dataclass(frozen=True)
class ReenactSettings:
    """The shared recipe table [retarget]."""

    retarget: RetargetSettings = field(default_factory=RetargetSettings)


@dataclass(frozen=True)
class State:
    """The encoder with one person's look."""

    look: Tensor  # [E] mean appearance of the scan images
    encoder: dict[str, Tensor]  # state dict of the base's encoder

    def w(self, change: Tensor) -> Tensor:
        """Relative motion [T, 66, 3] -> w [T, D]."""
        net = Encoder(len(self.encoder["mean"]), len(self.look)).requires_grad_(False)
        net.load_state_dict(self.encoder)
        return net(self.look.expand(len(change), -1), change)


@torch.no_grad()
def personalize(scan, base, settings, checkpoints=NO_CHECKPOINTS, device="cpu", progress=silent) -> Avatar:
    if not scan.consent.name:
        raise ConsentRequired("an avatar needs a scan with a consent record; scan again")
    if (path := base.companion("encoder")) is None:
        raise BadArtifact(f"expected a base with an encoder, {base.name} has none; choose another base")
    encoder, count = load_encoder(path), min(settings.look.images, len(scan))
    chosen = np.linspace(0, len(scan) - 1, count).round().astype(int)
    look = encoder.appearance(to_tensor(scan.images[chosen])).mean(0)
    progress("samples", count, count)
    neutral = neutral_of(scan)
    state = State(look, encoder.state_dict())
    return Avatar(copy.deepcopy(base.generator), neutral, state, NAME, base.digest, scan.consent, {"base": base.name})


@torch.no_grad()
def reenact(avatar, performance, settings, checkpoints=NO_CHECKPOINTS, device="cpu", progress=silent) -> Take:
    seen = performance.observation
    usable = seen.track.valid & (seen.presence > 0.5)
    driver = torch.as_tensor(seen.landmarks, dtype=torch.float32)
    driver_neutral = neutral_face(seen.landmarks, usable)
    change, _ = change_and_measures(driver, avatar.neutral, driver_neutral, settings.retarget)
    change[torch.as_tensor(~usable)] = 0.0  # a frame without a face shows the neutral one
    outcome = np.where(usable, Outcome.CONVERGED, Outcome.NO_FACE).astype(np.uint8)
    progress("encode", len(usable), len(usable))
    return Take({"w": avatar.state.w(change)}, outcome, seen.track.times, {})


@torch.no_grad()
def decode(avatar, take, frames=slice(None)) -> Styles:
    device = next(avatar.generator.parameters()).device
    return avatar.generator.styles(avatar.generator.broadcast(take.codes["w"][frames].to(device)))


def follow(avatar, settings, device="cpu"):
    def codes(landmarks: Tensor, driver_neutral: Tensor) -> dict[str, Tensor]:
        change, _ = change_and_measures(landmarks, avatar.neutral, driver_neutral, settings.retarget)
        return {"w": avatar.state.w(change)}

    return codes
