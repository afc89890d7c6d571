"""The personal engine: an avatar that *is* one person (PGR, arXiv 2307.06307, on MyStyle, arXiv 2203.17272)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.errors import ConsentRequired
from mystudio.storage.journal import DiskCheckpoints
from mystudio.types import Avatar, Performance, Progress, Styles, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS
from selfscan.io.pixels import to_tensor, to_uint8

NAME = "personal"


def personalize(
    scan, base, settings, progress: Progress = silent, journal: Path | None = None, device: str = "cpu"
) -> Avatar:
    """Make an avatar: anchors by inversion, MyStyle tuning, then its regressor and edit directions.

    Args:
        scan: ``selfscan.types.Scan`` with a consent record. base: ``mystudio.bases.Base``.
        settings: anything with the parts ``invert``, ``personalize`` and ``regress`` (a resolved recipe).
        journal: folder for checkpoints, finished parts and previews.
    Raises: ConsentRequired; TrainingDiverged.
    """
    from mystudio import editing
    from mystudio.base.encoder import load_encoder
    from mystudio.engines.personal import anchors as invert
    from mystudio.engines.personal import regress, tune
    from mystudio.engines.personal.space import AnchorSpace
    from mystudio.motion import retarget
    from mystudio.stylegan2 import growth
    from selfscan.face import patches
    from selfscan.face.facemesh import load_facemesh
    from selfscan.perceptual.metric import load_perceptual

    if not scan.consent.name:
        raise ConsentRequired(
            "an avatar needs a scan with a consent record; scan again with --i-am-the-person-or-have-consent NAME"
        )
    sizes = settings.personalize
    generator = growth.grown(base.generator, sizes.resolution, sizes.width, sizes.seed)
    generator = copy.deepcopy(generator).requires_grad_(False).to(device)
    perceptual = load_perceptual()
    encoder = load_encoder(base.encoder_path).to(device) if base.encoder_path else None
    images, marks = images_of(scan, generator.resolution).to(device), torch.as_tensor(scan.landmarks).to(device)
    neutral = retarget.neutral_face(scan.landmarks, np.ones(len(scan), bool)).to(device)
    checkpoints = DiskCheckpoints(journal) if journal else NO_CHECKPOINTS
    anchors = invert.invert(
        generator, encoder, perceptual, images, marks, neutral, settings.invert, progress, checkpoints
    )
    show = _preview_writer(journal) if journal else None
    tuned, info = tune.tune(generator, anchors, images, perceptual, settings.personalize, progress, journal, show)
    anchors, images, marks, neutral = anchors.cpu(), images.cpu(), marks.cpu(), neutral.cpu()
    space, mesh = AnchorSpace.of(anchors, settings.regress.rank), load_facemesh(device=device)
    samples = regress.sample(tuned, mesh, space, settings.regress, progress, checkpoints)
    person = None
    if encoder is not None:
        person = invert.PersonalEncoder.of(encoder.cpu(), images, marks, neutral, space, settings.invert.axes)
    net, figures = regress.train_regressor(samples, space, marks, neutral, settings.regress, person)
    return Avatar(
        generator=tuned,
        anchors=anchors,
        anchor_ids=scan.frame_index,
        anchor_keypoints=marks,
        neutral=neutral,
        directions=editing.learn_directions(samples, space),
        regressor=net.state_dict(),
        statistics=patches.statistics(images, marks),
        engine=NAME,
        base_digest=base.digest,
        consent=scan.consent,
        info=info | figures | {"perceptual": perceptual.name, "base": base.name},
    )


def reenact(
    avatar: Avatar,
    performance: Performance,
    settings,
    progress: Progress = silent,
    journal: Path | None = None,
    device: str = "cpu",
) -> Take:
    """Drive an avatar with a clip.

    Args:
        settings: anything with the parts ``retarget`` and ``reenact`` (a resolved recipe).
        journal: folder where finished windows are kept, so that a killed run goes on.
    """
    from mystudio.engines.personal.solve import solve
    from mystudio.motion.retarget import retarget

    avatar.generator.to(device)
    motion = retarget(performance, avatar.neutral, avatar.statistics, settings.retarget)
    del performance  # what retargeting did not take over is not needed while the clip is solved
    return solve(avatar, motion, settings.retarget, settings.reenact, progress, journal)


@torch.no_grad()
def decode(avatar: Avatar, take: Take, frames: slice = slice(None)) -> Styles:
    """Styles of a take's frames."""
    from mystudio.engines.personal.space import anchor_space

    ws = anchor_space(avatar).decode(take.codes[frames])
    return avatar.generator.styles(ws.to(next(avatar.generator.parameters()).device))


def images_of(scan, resolution: int) -> Tensor:
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


def _preview_writer(journal: Path):
    import cv2

    def write(step: int, pair: Tensor) -> None:
        rows = [torch.cat(list(row), 2) for row in pair]
        picture = to_uint8(torch.cat(rows, 1))
        cv2.imwrite(str(journal / "preview.png"), picture[..., ::-1])

    return write
