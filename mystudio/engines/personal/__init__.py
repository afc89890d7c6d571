"""The personal engine: an avatar that *is* one person (PGR, arXiv 2307.06307, on MyStyle, arXiv 2203.17272)."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.base.encoder import load_encoder
from mystudio.bases import Base
from mystudio.engines.personal import anchors as inversion
from mystudio.engines.personal import regress, solve, tune
from mystudio.engines.personal.edits import directions, learn_directions, move, neutral_codes
from mystudio.engines.personal.live import follow
from mystudio.engines.personal.settings import PersonalizeSettings, ReenactSettings
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.state import AXES, NAME, State, state_of
from mystudio.errors import ConsentRequired
from mystudio.motion.retarget import neutral_of, retarget
from mystudio.stylegan2 import growth
from mystudio.types import Avatar, Performance, Progress, Styles, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.face import patches
from selfscan.face.align import inside_frame
from selfscan.face.facemesh import load_facemesh
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.metric import load_perceptual
from selfscan.types import Scan

__all__ = [
    "COMPANIONS",
    "NAME",
    "PersonalizeSettings",
    "ReenactSettings",
    "State",
    "decode",
    "describe",
    "directions",
    "follow",
    "move",
    "neutral_codes",
    "personalize",
    "reenact",
]

COMPANIONS = {"encoder": "anchors start at the mean face: personalize takes longer"}


def personalize(
    scan: Scan,
    base: Base,
    settings: PersonalizeSettings,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Avatar:
    """Make an avatar: anchors by inversion, MyStyle tuning, then its regressor and edit directions.

    Args: as ``engines.protocol.Engine.personalize``.
    Raises: ConsentRequired; TrainingDiverged.
    """
    if not scan.consent.name:
        raise ConsentRequired(
            "an avatar needs a scan with a consent record; scan again with --i-am-the-person-or-have-consent NAME"
        )
    sizes = settings.personalize
    generator = growth.grown(base.generator, sizes.resolution, sizes.width, sizes.seed)
    generator = copy.deepcopy(generator).requires_grad_(False).to(device)
    perceptual = load_perceptual()
    path = base.companion("encoder")
    encoder = load_encoder(path).to(device) if path else None
    images, marks = images_of(scan, generator.resolution).to(device), torch.as_tensor(scan.landmarks).to(device)
    neutral = neutral_of(scan).to(device)
    seen = seen_of(scan, generator.resolution, device)
    anchors = inversion.invert(
        generator, encoder, perceptual, images, marks, neutral, settings.invert, progress, checkpoints, seen
    )
    tuned, info = tune.tune(
        generator, anchors, images, perceptual, settings.personalize, progress, checkpoints, seen=seen
    )
    anchors, images, marks, neutral = anchors.cpu(), images.cpu(), marks.cpu(), neutral.cpu()
    space, mesh = AnchorSpace.of(anchors, settings.regress.rank), load_facemesh(device=device)
    samples = regress.sample(tuned, mesh, space, settings.regress, progress, checkpoints)
    person = None
    if encoder is not None:
        person = inversion.PersonalEncoder.of(encoder.cpu(), images, marks, neutral, space, settings.invert.axes)
    net, figures = regress.train_regressor(samples, space, marks, neutral, settings.regress, person)
    state = State(
        anchors=anchors,
        anchor_ids=scan.frame_index,
        anchor_keypoints=marks,
        directions=learn_directions(samples, space),
        regressor=net.state_dict(),
        statistics=patches.statistics(images, marks),
    )
    facts = info | figures | {"perceptual": perceptual.name, "base": base.name}
    return Avatar(tuned, neutral, state, NAME, base.digest, scan.consent, facts)


def reenact(
    avatar: Avatar,
    performance: Performance,
    settings: ReenactSettings,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Take:
    """Drive an avatar with a performance; finished windows are checkpoints.

    Args: as ``engines.protocol.Engine.reenact``.
    """
    avatar.generator.to(device)
    motion = retarget(performance, avatar.neutral, state_of(avatar).statistics, settings.retarget)
    del performance  # frees its patches: retargeting took over what solving needs
    return solve.solve(avatar, motion, settings.retarget, settings.reenact, progress, checkpoints)


@torch.no_grad()
def decode(avatar: Avatar, take: Take, frames: slice = slice(None)) -> Styles:
    """Styles of a take's frames; codes of one row [T, 1, K] serve all layers."""
    ws = state_of(avatar).space.decode(take.codes[AXES][frames]).expand(-1, avatar.generator.num_ws, -1)
    return avatar.generator.styles(ws.to(next(avatar.generator.parameters()).device))


def describe(avatar: Avatar) -> dict[str, int | float | str]:
    """The number of anchors."""
    return {"anchors": len(state_of(avatar).anchors)}


def images_of(scan: Scan, resolution: int) -> Tensor:
    """Scan images at a generator's resolution, [N, 3, H, W] in [-1, 1]."""
    images = to_tensor(scan.images)
    if images.shape[-1] != resolution:
        images = torch.cat(
            [
                F.interpolate(part, (resolution, resolution), mode="bicubic", antialias=True, align_corners=False)
                for part in images.split(16)
            ]
        )
    return images.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def seen_of(scan: Scan, resolution: int, device: torch.device | str = "cpu") -> Tensor | None:
    """Which pixels of the scan images the camera saw, [N, 1, H, W] bool; None if it saw all, or if nobody stored it."""
    inside = inside_frame(scan.frame_corners, resolution)
    return None if inside.all() else torch.as_tensor(inside[:, None]).to(device)
