"""Baseline of one-shot engines: the base tuned on a person's photos at the encoder's codes, as the personal engine."""

from __future__ import annotations

import torch
from torch import Tensor

from mystudio.engines.personal import images_of
from mystudio.engines.personal.tune import TuneSettings, tune
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.perceptual.metric import Perceptual
from selfscan.types import Scan

MOST = 4  # photos in a step of tuning


def tuned_on(
    generator: Generator, codes: Tensor, photos: Scan, perceptual: Perceptual, steps: int, progress: Progress = silent
) -> Generator:
    """Tune a copy of the base so that it draws the photos at their codes; no photo is held out.

    Args: codes: [K, D] of the photos, on the generator's device.
    Raises: TrainingDiverged.
    """
    images = images_of(photos, generator.resolution).to(codes.device)
    settings = TuneSettings(
        steps=steps, batch=min(MOST, len(images)), resolution=0, width=0, held_out=0, check_every=max(steps, 1),
        patience=0, compile="no",
    )  # fmt: skip
    with torch.enable_grad():
        return tune(generator, codes, images, perceptual, settings, progress)[0]
