"""The hybrid engine: one-shot reenactment by hybrid latents (arXiv 2302.07848).

A photo gives an identity code in W+. A driver's frame gives 64 numbers, which become offsets of the styles of the first
layers. The generator is then adjusted to the person (``mystudio.oneshot.adjust``).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mystudio.bases import Base
from mystudio.engines.hybrid.network import Deformation, Hybrid, Source
from mystudio.engines.hybrid.settings import PersonalizeSettings, ReenactSettings, TrainSettings
from mystudio.engines.hybrid.signals import signal, signal_of
from mystudio.engines.hybrid.teach import install, train
from mystudio.engines.hybrid.training import NAME
from mystudio.engines.hybrid.weights import KIND, model_from, weights_of
from mystudio.motion.retarget import change_and_measures, neutral_faces, neutral_of, neutral_scores, usable_frames
from mystudio.motion.scans import check_consent, seen_of, sized
from mystudio.motion.smoothing import smooth_over_time
from mystudio.oneshot.adjust import Person, adjust
from mystudio.stylegan2.generator import Generator
from mystudio.types import Avatar, Outcome, Performance, Progress, Styles, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.metric import load_perceptual
from selfscan.types import Array, Scan

__all__ = [
    "COMPANIONS",
    "NAME",
    "PersonalizeSettings",
    "ReenactSettings",
    "State",
    "TrainSettings",
    "decode",
    "describe",
    "install",
    "personalize",
    "reenact",
    "train",
]

DEFORMATION = "deformation"  # name of a take's codes: [T, B]
FRAMES = 256  # of a clip that are read at once
COMPANIONS = {KIND: "the engine hybrid makes no avatars"}


@dataclass(frozen=True)
class State:
    """What the engine needs to drive one person. The identity encoder is not kept: driving reads no photo."""

    codes: Tensor  # [1, L, D] identity code in W+
    cells: Tensor  # [1, 64, C] the source's 8 x 8 map
    network: dict[str, Tensor]  # state dict of the ``Deformation``
    model: str  # sizes of the network, as JSON
    photos: int  # number of photos that the person is known from

    def deformation(self, generator: Generator) -> Deformation:
        """The network that reads signals and moves styles, on the CPU."""
        net = Deformation(generator, model_from(json.loads(self.model)))
        net.load_state_dict(self.network)
        return net.eval().requires_grad_(False)


def personalize(
    scan: Scan,
    base: Base,
    settings: PersonalizeSettings,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Avatar:
    """Make an avatar of one photo or a few: its codes, and the generator adjusted to them.

    Args: as ``engines.protocol.Engine.personalize``.
    Raises: ConsentRequired; BadArtifact: the base has no trained weights of this engine; TrainingDiverged.
    """
    check_consent(scan)
    net = weights_of(base).to(device)
    generator = copy.deepcopy(base.generator).requires_grad_(False).to(device)
    rows = np.argsort(neutral_scores(scan.landmarks, np.ones(len(scan), bool)), kind="stable")
    rows = rows[: max(1, settings.source.photos)]
    images, marks = sized(scan.images[rows], generator.resolution).to(device), torch.as_tensor(scan.landmarks[rows])
    neutral, perceptual = neutral_of(scan), load_perceptual()
    with torch.no_grad():
        found = net.identify(images)
        source = Source(found.codes.mean(0, keepdim=True), found.cells[:1])  # the most neutral photo has the best map
        own = net.deformation.read(signal_of(images, marks.to(device), neutral.to(device)))
    progress("encode", len(images), len(images))
    seen = seen_of(scan, generator.resolution, device)
    person = _person(net, generator, source, own, images, None if seen is None else seen[rows])
    tuned, figures = adjust(generator, person, perceptual, settings.adjust, progress, checkpoints)
    network = {name: value.cpu() for name, value in net.deformation.state_dict().items()}
    state = State(source.codes.cpu(), source.cells.cpu(), network, json.dumps(asdict(net.settings)), len(rows))
    info = {"base": base.name, "perceptual": perceptual.name} | figures
    return Avatar(tuned, neutral, state, NAME, base.digest, scan.consent, info)


def _person(
    net: Hybrid, generator: Generator, source: Source, own: Tensor, images: Tensor, seen: Tensor | None
) -> Person:
    """The photos for the adjustment; ``own`` [K, B] are their deformation codes."""

    def drive(count: int, draw: torch.Generator) -> Styles:
        motions = net.deformation.bank[torch.randint(len(net.deformation.bank), (count,), generator=draw)]
        return net.styles(generator, _spread(source, count), motions)

    def redraw(pictures: Tensor, rows: Tensor) -> Styles:
        return net.styles(generator, net.identify(pictures), own[rows])

    with torch.no_grad():
        styles = net.styles(generator, _spread(source, len(own)), own)
    return Person(images, styles, drive, redraw, seen)


def _spread(source: Source, count: int) -> Source:
    """One source, ``count`` times."""
    return Source(source.codes.expand(count, -1, -1), source.cells.expand(count, -1, -1))


@torch.no_grad()
def reenact(
    avatar: Avatar,
    performance: Performance,
    settings: ReenactSettings,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Take:
    """Drive an avatar with a performance: one deformation code a frame, without optimisation.

    Args: as ``engines.protocol.Engine.reenact``.
    """
    seen, usable, shots = performance.observation, usable_frames(performance), performance.shots
    marks = torch.as_tensor(seen.landmarks, dtype=torch.float32)
    changes = [
        change_and_measures(marks[shot], avatar.neutral, face, settings.retarget)[0]
        for shot, face in zip(shots, neutral_faces(performance))
    ]
    change, net, parts = torch.cat(changes), avatar.state.deformation(avatar.generator), list[Tensor]()
    for first in range(0, len(seen), FRAMES):
        part = slice(first, first + FRAMES)
        pixels = (to_tensor(patch[part]) for patch in (performance.mouth, performance.irises))
        parts.append(net.read(signal(change[part], *pixels)))
        progress("drive", min(first + FRAMES, len(seen)), len(seen))
    codes = _held(torch.cat(parts).numpy(), usable, shots)
    codes = smooth_over_time(codes, settings.retarget.smooth, usable, shots)
    outcome = np.where(usable, Outcome.CONVERGED, Outcome.NO_FACE).astype(np.uint8)
    return Take({DEFORMATION: torch.as_tensor(codes)}, outcome, seen.track.times, {})


def _held(codes: Array, usable: Array, shots: tuple[slice, ...]) -> Array:
    """Codes [T, B] in which a frame without a face has the code of the nearest frame of its shot that has one.

    A shot without any face has code 0, which is the neutral face.
    """
    held = codes.copy()
    for shot in shots:
        good, frames = np.flatnonzero(usable[shot]), np.arange(shot.stop - shot.start)
        if not len(good):
            held[shot] = 0
            continue
        after = np.searchsorted(good, frames).clip(max=len(good) - 1)
        before = (after - 1).clip(min=0)
        nearer = np.abs(good[before] - frames) <= np.abs(good[after] - frames)
        held[shot] = codes[shot][good[np.where(nearer, before, after)]]
    return held


@torch.no_grad()
def decode(avatar: Avatar, take: Take, frames: slice = slice(None)) -> Styles:
    """Styles of a take's frames: those of the identity code, moved by the deformation."""
    device, state = next(avatar.generator.parameters()).device, avatar.state
    codes, net = take.codes[DEFORMATION][frames].to(device), state.deformation(avatar.generator).to(device)
    source = _spread(Source(state.codes.to(device), state.cells.to(device)), len(codes))
    return net.moved(avatar.generator.styles(source.codes), net(codes, source.cells))


def describe(avatar: Avatar) -> dict[str, int | float | str]:
    """The number of photos."""
    return {"photos": avatar.state.photos}
