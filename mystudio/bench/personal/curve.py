"""Tuning on most images of a scan, watched on the others."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch have gaps)

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mystudio.base.encoder import load_encoder
from mystudio.bases import Base
from mystudio.engines import personal
from mystudio.engines.personal import anchors as inversion
from mystudio.engines.personal.tune import tune
from mystudio.motion.retarget import neutral_of
from mystudio.storage.journal import DiskCheckpoints, write_bytes
from mystudio.stylegan2 import growth
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.perceptual.metric import Perceptual, load_perceptual
from selfscan.types import Array, Scan

Look = Callable[[int, float, Tensor, Tensor], None]  # steps, processor seconds, pictures, held-out images


def watched(
    scan: Scan,
    out: Array,
    base: Base,
    settings: personal.PersonalizeSettings,
    from_base: bool,
    at: Collection[int],
    look: Look,
    folder: Path,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> None:
    """Tune as ``personalize`` does, without some scan images; a stopped run goes on from its last checkpoint.

    Args:
        out: [N] bool, scan images that tuning does not see. from_base: start from the base, not from its companion.
        at: steps after which ``look`` gets the avatar's pictures of those images [M, 3, H, H] and the images
            themselves; tuning ends after the last of them. folder: of the checkpoint.
    """
    perceptual, sizes = load_perceptual(), personal.sized(settings.personalize, scan.images.shape[1])
    if from_base:
        first = growth.grown(base.generator, sizes.resolution, sizes.width, sizes.seed)
    else:
        first = personal.first_generator(base, sizes)
    generator = copy.deepcopy(first).requires_grad_(False).to(device)
    images, held = personal.images_of(scan, generator.resolution).to(device), torch.as_tensor(out)
    codes = _anchors(scan, base, generator, images, perceptual, settings, progress)
    seen = personal.seen_of(scan, generator.resolution, device)
    folder.mkdir(parents=True, exist_ok=True)
    clock = _Clock(folder / "seconds.txt")

    def watch(mean: Generator, figures: Mapping[str, Any]) -> bool:
        step = figures["steps"]
        if step in at:
            spent = clock.stop()
            look(step, spent, _draw(mean, codes[held]), images[held])
            clock.start()
        if step % sizes.check_every == 0:
            clock.save()
        return step >= max(at)

    how, checkpoints, seen = replace(sizes, patience=0), DiskCheckpoints(folder), None if seen is None else seen[~held]
    tune(generator, codes[~held], images[~held], perceptual, how, progress, checkpoints, watch, seen)


def _anchors(
    scan: Scan,
    base: Base,
    generator: Generator,
    images: Tensor,
    perceptual: Perceptual,
    settings: personal.PersonalizeSettings,
    progress: Progress,
) -> Tensor:
    path, to = base.companion("encoder"), images.device
    encoder, marks = load_encoder(path).to(to) if path else None, torch.as_tensor(scan.landmarks).to(to)
    neutral = neutral_of(scan).to(to)
    return inversion.invert(generator, encoder, perceptual, images, marks, neutral, settings.invert, progress)


@torch.no_grad()
def _draw(generator: Generator, codes: Tensor) -> Tensor:
    return torch.cat([generator(generator.broadcast(w)).clamp(-1, 1) for w in codes.split(4)])


class _Clock:
    """Counts processor seconds from its creation, over restarts of the command, and without measurements."""

    def __init__(self, path: Path):
        self._path, self._before = path, float(path.read_text()) if path.is_file() else 0.0
        self.start()

    def start(self) -> None:
        """Go on counting."""
        self._began = time.process_time()

    def stop(self) -> float:
        """Stop counting; returns the seconds so far."""
        self._before += time.process_time() - self._began
        self.start()
        return self._before

    def save(self) -> None:
        """Keep the seconds so far beside the checkpoint."""
        write_bytes(self._path, str(self.stop()).encode())
