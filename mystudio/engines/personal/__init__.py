"""The personal engine: an avatar that *is* one person (PGR, arXiv 2307.06307, on MyStyle, arXiv 2203.17272)."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mystudio.base.encoder import Encoder, load_encoder
from mystudio.bases import Base
from mystudio.engines.personal import anchors as inversion
from mystudio.engines.personal import regress, solve, trial, tune
from mystudio.engines.personal.edits import directions, learn_directions, move, neutral_codes
from mystudio.engines.personal.live import follow
from mystudio.engines.personal.regress import RegressSettings
from mystudio.engines.personal.resemblance import Resemblance
from mystudio.engines.personal.settings import PersonalizeSettings, ReenactSettings
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.state import AXES, NAME, State, state_of
from mystudio.engines.protocol import Forecast, Watch
from mystudio.errors import TooFewImages
from mystudio.motion import scans
from mystudio.motion.retarget import neutral_of, retarget
from mystudio.motion.scans import check_consent, seen_of
from mystudio.stylegan2 import growth
from mystudio.stylegan2.checkpoint import load_generator
from mystudio.stylegan2.generator import Generator
from mystudio.types import Avatar, Performance, Progress, Styles, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.face import patches
from selfscan.face.facemesh import load_facemesh
from selfscan.face.recognition import find_weights
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
    "forecast",
    "improve",
    "move",
    "neutral_codes",
    "personalize",
    "reenact",
    "shown",
]

NEEDED = 4  # images of a scan: an avatar moves between its images, and from fewer it learns no motion
DRAFT_SAMPLES = 120  # drawn for an avatar on the way, beside the anchors: a few seconds
COMPANIONS = {
    "encoder": "anchors start at the mean face: personalize takes longer",
    "start": "tuning starts from the base itself: personalize takes longer",
}


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
    Raises: ConsentRequired; TooFewImages: fewer than ``NEEDED``; TrainingDiverged.
    """
    return improve(scan, base, settings, lambda make: False, checkpoints, device, progress)


def improve(
    scan: Scan,
    base: Base,
    settings: PersonalizeSettings,
    watch: Watch,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Avatar:
    """As ``personalize``, and usable avatars on the way.

    Args: as ``engines.protocol.Improves.improve``.
    Raises: ConsentRequired; TooFewImages: fewer than ``NEEDED``; TrainingDiverged.
    """
    check_consent(scan)
    if len(scan) < NEEDED:
        raise TooFewImages(
            f"the engine {NAME} needs a scan of at least {NEEDED} images, better 60 or more, in different poses and "
            f"expressions, this one holds {len(scan)}; scan more photos, or a video of 20 seconds"
        )
    sizes = sized(settings.personalize, scan.images.shape[1])
    generator = copy.deepcopy(first_generator(base, sizes)).requires_grad_(False).to(device)
    perceptual = load_perceptual()
    path = base.companion("encoder")
    encoder = load_encoder(path).to(device) if path else None
    images, marks = images_of(scan, generator.resolution).to(device), torch.as_tensor(scan.landmarks).to(device)
    neutral = neutral_of(scan).to(device)
    seen = seen_of(scan, generator.resolution, device)
    anchors = inversion.invert(
        generator, encoder, perceptual, images, marks, neutral, settings.invert, progress, checkpoints, seen
    )
    facts = {"perceptual": perceptual.name, "base": base.name}
    finish = _Finish(scan, images.cpu(), marks.cpu(), neutral.cpu(), anchors.cpu(), encoder, settings)
    quick = replace(settings.regress, samples=min(settings.regress.samples, DRAFT_SAMPLES))
    ended = False

    def look(mean: Generator, figures: dict[str, Any]) -> bool:
        nonlocal ended
        ended = watch(lambda: finish.avatar(copy.deepcopy(mean).eval(), base.digest, facts | figures, quick))
        return ended

    tuned, info = tune.tune(
        generator, anchors, images, perceptual, settings.personalize, progress, checkpoints, look, seen
    )
    kept = NO_CHECKPOINTS if ended else checkpoints  # samples of a generator that will be tuned on are of no use later
    return finish.avatar(tuned, base.digest, facts | info, settings.regress, progress, kept)


def forecast(scan: Scan, base: Base, settings: PersonalizeSettings, device: torch.device | str = "cpu") -> Forecast:
    """Measure a few steps; returns how long the parts of ``personalize`` take, if it does not end early.

    Args: as ``engines.protocol.Forecasts.forecast``.
    """

    def make(few: Scan, small: PersonalizeSettings, note: Progress) -> Avatar:
        return personalize(few, base, small, trial.Unwritten(), device, note)

    return trial.forecast(make, scan, settings, torch.device(device).type == "cpu", DRAFT_SAMPLES)


def sized(sizes: tune.TuneSettings, side: int) -> tune.TuneSettings:
    """The settings for scan images of ``side`` px: a power of two from ``resolution`` up to ``largest``."""
    if not sizes.resolution or not sizes.largest:
        return sizes
    fitting = 2 ** int(math.log2(min(side, sizes.largest)))
    return replace(sizes, resolution=max(sizes.resolution, fitting))


def first_generator(base: Base, sizes: tune.TuneSettings) -> Generator:
    """The generator that tuning starts from, at the given size: the base's companion, or else the base.

    The companion serves avatars that are larger and at least as wide as the base is.
    """
    found, path = base.generator, base.companion("start")
    if path and sizes.resolution > found.resolution:
        companion = load_generator(path)
        if companion.config["channel_base"] <= sizes.width:
            found = growth.cut(companion, sizes.resolution)
    return growth.grown(found, sizes.resolution, sizes.width, sizes.seed)


class _Finish:
    """Makes an avatar of a tuned generator: samples, the regressor, edit directions and likeness."""

    def __init__(
        self,
        scan: Scan,
        images: Tensor,
        marks: Tensor,
        neutral: Tensor,
        anchors: Tensor,
        encoder: Encoder | None,
        settings: PersonalizeSettings,
    ):
        self._scan, self._marks, self._neutral, self._anchors = scan, marks, neutral, anchors
        self._space = AnchorSpace.of(anchors, settings.regress.rank)
        self._person = None
        if encoder is not None:
            axes = settings.invert.axes
            self._person = inversion.PersonalEncoder.of(encoder.cpu(), images, marks, neutral, self._space, axes)
        self._statistics = patches.statistics(images, marks)
        self._resemblance = Resemblance(images, marks, anchors) if find_weights() else None

    def avatar(
        self,
        tuned: Generator,
        base_digest: str,
        info: dict[str, Any],
        settings: RegressSettings,
        progress: Progress = silent,
        checkpoints: Checkpoints = NO_CHECKPOINTS,
    ) -> Avatar:
        """The avatar of a tuned generator, which may stay on its device."""
        mesh = load_facemesh(device=next(tuned.parameters()).device)
        samples = regress.sample(tuned, mesh, self._space, settings, progress, checkpoints)
        net, figures = regress.train_regressor(samples, self._space, self._marks, self._neutral, settings, self._person)
        state = State(
            anchors=self._anchors,
            anchor_ids=self._scan.frame_index,
            anchor_keypoints=self._marks,
            directions=learn_directions(samples, self._space),
            regressor=net.state_dict(),
            statistics=self._statistics,
        )
        if self._resemblance:
            info = info | {"likeness": self._resemblance.of(tuned), "own_likeness": self._resemblance.own}
        return Avatar(tuned, self._neutral, state, NAME, base_digest, self._scan.consent, info | figures)


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


def shown(avatar: Avatar) -> Tensor:
    """Landmarks [N, 478, 3] of the anchors' images."""
    return state_of(avatar).anchor_keypoints


def images_of(scan: Scan, resolution: int) -> Tensor:
    """Scan images at a generator's resolution, [N, 3, H, W] in [-1, 1]."""
    return scans.sized(scan.images, resolution)
