"""The engine hyper: an avatar from one photo, by predicted changes of the generator's weights.

HyperReenact (arXiv 2307.10797). Nothing is tuned for a person: an avatar takes seconds. A take stores a w and the block
features of a frame; ``decode`` makes weight deltas of them. The networks are trained once for each base.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mystudio.base.encoder import encoder_of
from mystudio.bases import Base
from mystudio.engines.hyper.settings import PersonalizeSettings, ReenactSettings, TrainSettings
from mystudio.engines.hyper.state import NAME, State, state_of
from mystudio.engines.hyper.weights import KIND, half, weights_of
from mystudio.engines.protocol import Follower
from mystudio.motion.retarget import (
    change_and_measures,
    neutral_faces,
    neutral_of,
    relative_motion,
    usable_frames,
)
from mystudio.motion.scans import check_consent
from mystudio.motion.smoothing import smooth_over_time
from mystudio.types import Avatar, Codes, Outcome, Performance, Progress, Styles, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.io.pixels import to_tensor
from selfscan.types import Array, Scan

if TYPE_CHECKING:
    from mystudio.oneshot.loop import Limits

__all__ = [
    "COMPANIONS",
    "NAME",
    "PersonalizeSettings",
    "ReenactSettings",
    "State",
    "TrainSettings",
    "decode",
    "describe",
    "follow",
    "install",
    "personalize",
    "reenact",
    "train",
]

COMPANIONS = {KIND: "the engine hyper makes no avatars: an avatar from one photo needs its trained weights"}
CHUNK = 64  # frames that are encoded at once
W, FEATURES = "w", "features"  # names of a take's codes: [T, D], and [T, B, F] block features


@torch.no_grad()
def personalize(
    scan: Scan,
    base: Base,
    settings: PersonalizeSettings,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Avatar:
    """Make an avatar: the look of one photo or more, read by two networks. One image is enough.

    Args: as ``engines.protocol.Engine.personalize``.
    Raises: ConsentRequired; BadArtifact: no weights or no encoder are installed for the base; BadCheckpoint.
    """
    check_consent(scan)
    nets, (encoder, _) = weights_of(base), encoder_of(base)
    count = min(max(1, settings.look.images), len(scan))
    chosen = np.linspace(0, len(scan) - 1, count).round().astype(int)
    images = to_tensor(scan.images[chosen], device)
    look = encoder.to(device).appearance(images).mean(0)
    maps = nets.appearance.to(device)(images).mean(0)
    neutral = neutral_of(scan)
    own = relative_motion(torch.as_tensor(scan.landmarks[chosen]), neutral).mean(0).to(device)
    state = State(
        look=look.cpu(),
        maps=maps.contiguous().cpu(),
        source=encoder(look[None], own[None])[0].cpu(),
        encoder=half(encoder),
        hyper=half(nets),
        width=nets.model.width,
        features=nets.model.features,
        rank=nets.model.rank,
        identity=nets.model.identity,
        appearance=nets.model.appearance,
        start=nets.model.start,
    )
    progress("photo", count, count)
    info: dict[str, Any] = {"base": base.name, "photos": count}
    return Avatar(copy.deepcopy(base.generator), neutral, state, NAME, base.digest, scan.consent, info)


@torch.no_grad()
def reenact(
    avatar: Avatar,
    performance: Performance,
    settings: ReenactSettings,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Take:
    """Drive an avatar: one network pass a frame, no solver.

    Args: as ``engines.protocol.Engine.reenact``.
    """
    seen, usable = performance.observation, usable_frames(performance)
    driver = torch.as_tensor(seen.landmarks, dtype=torch.float32)
    parts, shots = list[Tensor](), performance.shots
    for shot, neutral in zip(shots, neutral_faces(performance)):
        change, _ = change_and_measures(driver[shot], avatar.neutral, neutral, settings.retarget)
        parts.append(torch.as_tensor(_filled(change.numpy(), usable[shot])))
    change = smooth_over_time(torch.cat(parts).numpy(), settings.retarget.smooth, usable, shots)
    found = list[Codes]()
    for first in range(0, len(change), CHUNK):
        found.append(_codes(avatar, torch.as_tensor(change[first : first + CHUNK]), settings, device))
        progress("encode", min(first + CHUNK, len(change)), len(change))
    codes = {name: torch.cat([part[name] for part in found]).cpu() for name in (W, FEATURES)}
    outcome = np.where(usable, Outcome.CONVERGED, Outcome.NO_FACE).astype(np.uint8)
    return Take(codes, outcome, seen.track.times, {})


@torch.no_grad()
def decode(avatar: Avatar, take: Take, frames: slice = slice(None)) -> Styles:
    """Frames of a take -> style vectors, and weight deltas for each frame."""
    device = next(avatar.generator.parameters()).device
    nets = state_of(avatar).networks(avatar.generator).reenactor.to(device)
    w, features = (take.codes[name][frames].to(device) for name in (W, FEATURES))
    vectors = avatar.generator.styles(avatar.generator.broadcast(w)).vectors
    return Styles(vectors, nets.deltas(features))


def follow(avatar: Avatar, settings: ReenactSettings, device: torch.device | str = "cpu") -> Follower:
    """Drive an avatar live: landmarks of one frame -> codes."""

    @torch.no_grad()
    def codes(landmarks: Tensor, driver_neutral: Tensor) -> Codes:
        change, _ = change_and_measures(landmarks, avatar.neutral, driver_neutral, settings.retarget)
        return _codes(avatar, change, settings, "cpu")

    return codes


def describe(avatar: Avatar) -> dict[str, int | float | str]:
    """Facts about an avatar: of how many photos it was made."""
    return {"photos": avatar.info.get("photos", 1)}


def train(
    run: Path,
    base: Base,
    data: Sequence[Path],
    settings: TrainSettings,
    limits: Limits,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Start or resume a training run; see ``engines.protocol.Trains``."""
    from mystudio.engines.hyper import teach  # every command loads this module, and only training needs that one

    return teach.train(run, base, data, settings, limits, device, progress)


def install(source: Path, base: Base) -> Path:
    """Put the weights of a run, or of a file of weights, beside the base; see ``engines.protocol.Trains``."""
    from mystudio.engines.hyper import teach

    return teach.install(source, base)


def _codes(avatar: Avatar, change: Tensor, settings: ReenactSettings, device: torch.device | str) -> Codes:
    """w and block features of relative motions [T, 66, 3]."""
    state, change = state_of(avatar), change.float().to(device)
    nets, encoder = state.networks(avatar.generator).to(device), state.encoder_net.to(device)
    start = state.start if settings.drive.start == "trained" else settings.drive.start
    if start == "driver":
        w = encoder(state.look.to(device).expand(len(change), -1), change)
    else:
        w = state.source.to(device).expand(len(change), -1)
    features = nets.reenactor.features(state.maps.to(device)[None], nets.pose(change))
    return {W: w.contiguous(), FEATURES: features}


def _filled(change: Array, usable: Array) -> Array:
    """Changes [T, 66, 3] of a shot; a frame without a face gets those of its nearest frames with one, or none."""
    known = np.flatnonzero(usable)
    if not len(known):
        return np.zeros_like(change)
    flat, at = change.reshape(len(change), -1), np.arange(len(change))
    found = np.stack([np.interp(at, known, column[known]) for column in flat.T], 1)
    return found.reshape(change.shape).astype(change.dtype)
