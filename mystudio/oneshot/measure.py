"""Measurements of training images, made once and cached beside them: landmarks, motion, the encoder's appearance.

Any w of baseline 0 (appearance of one image, motion of another) is then one small network pass (``Encoder.forward``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mystudio.base.encoder import Encoder, encoder_of
from mystudio.base.groups import Groups
from mystudio.base.sources import ImageFolder
from mystudio.bases import Base
from mystudio.errors import OutputFailed
from mystudio.motion.retarget import frontal, relative_motion
from mystudio.storage.journal import write_bytes
from mystudio.storage.manifest import digest
from mystudio.types import Progress, silent
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.pixels import to_tensor
from selfscan.types import Array

VERSION = 1  # of what is measured
BATCH = 16
Rest = Callable[[Array, int], Array]  # code [64], px -> picture [R, R, 3] uint8 of that person at rest


@dataclass(frozen=True)
class Measured:
    """Measurements of N images, on the CPU."""

    landmarks: Tensor  # [N, 478, 3] in crops
    presence: Tensor  # [N] the landmark network's confidence
    motion: Tensor  # [N, 66, 3] relative to the person's neutral face (``retarget.relative_motion``)
    appearance: Tensor  # [N, E] of the base's encoder

    def __len__(self) -> int:
        return len(self.landmarks)


def at_rest(code: np.ndarray, size: int) -> np.ndarray:
    """Draw the actor of a code [64] with a neutral face, [size, size, 3] uint8. Raises BadArtifact: no head."""
    from mystudio.actors.actor import Actor
    from mystudio.actors.factors import N_MOTION
    from mystudio.actors.motion import frame_from_factors
    from mystudio.actors.render import render

    return render(Actor.from_code(code), *frame_from_factors(np.zeros(N_MOTION)), size, "ffhq").image


def measured_groups(
    groups: Groups, folder: Path, base: Base, device: torch.device, progress: Progress = silent, rest: Rest = at_rest
) -> Measured:
    """Measure the images of groups; every person is drawn once more, at rest, for the neutral face.

    Args: folder: of the data, which keeps the measurements. rest: draws a person's neutral face.
    Raises: BadArtifact: the base has no encoder, or the actors' head was not imported. OutputFailed.
    """

    def make(encoder: Encoder) -> Measured:
        count, each = len(groups.source), groups.motions
        seen = _look(lambda k: groups.source.get(k)[0], count, encoder, device, progress)
        codes = groups.codes.reshape(-1, each, groups.codes.shape[-1])[:, 0]
        size = groups.source.resolution
        neutral, _, _ = _look(lambda k: rest(codes[k], size), len(codes), None, device, progress, "rest")
        motion = [relative_motion(m, n) for m, n in zip(seen[0].unflatten(0, (-1, each)), neutral)]
        return Measured(seen[0], seen[1], torch.cat(motion), seen[2])

    return _cached(folder, [groups.people, groups.motions, groups.source.resolution, len(groups.source)], base, make)


def measured_portraits(
    portraits: ImageFolder, folder: Path, base: Base, device: torch.device, progress: Progress = silent
) -> Measured:
    """Measure portraits; nobody's neutral face is known, so the mean face of all stands in for it.

    Args and errors: as for ``measured_groups``.
    """

    def make(encoder: Encoder) -> Measured:
        seen = _look(lambda k: portraits.get(k)[0], len(portraits), encoder, device, progress, "portraits")
        neutral = frontal(seen[0].mean(0))
        return Measured(seen[0], seen[1], relative_motion(seen[0], neutral), seen[2])

    names = [[file.name, file.stat().st_size] for file in portraits.files]
    return _cached(folder, [portraits.resolution, names], base, make)


@torch.no_grad()
def _look(
    image: Callable[[int], np.ndarray],
    count: int,
    encoder: Encoder | None,
    device: torch.device,
    progress: Progress,
    stage: str = "measure",
) -> tuple[Tensor, Tensor, Tensor]:
    """Landmarks [N, 478, 3], presence [N] and appearance [N, E] of images."""
    mesh, rows = load_facemesh(device=device), list[tuple[Tensor, Tensor, Tensor]]()
    for first in range(0, count, BATCH):
        last = min(first + BATCH, count)
        images = to_tensor(np.stack([image(k) for k in range(first, last)]), device)
        marks, presence = crop_landmarks(mesh, images)
        look = encoder.appearance(images) if encoder else images.new_zeros(len(images), 0)
        rows.append((marks.cpu().float(), presence.cpu().float(), look.cpu()))
        progress(stage, last, count)
    marks, presence, look = (torch.cat(part) for part in zip(*rows))
    return marks, presence, look


def _cached(folder: Path, data: list, base: Base, make: Callable[[Encoder], Measured]) -> Measured:
    encoder, path = encoder_of(base)
    key = hashlib.sha256(json.dumps([VERSION, data, digest(path)]).encode()).hexdigest()[:16]
    place = folder / f"measured-{key}.safetensors"
    try:
        return Measured(**load_file(place))
    except (OSError, SafetensorError, TypeError):  # not there, or damaged
        pass
    found = make(encoder)
    try:
        write_bytes(place, save({f.name: getattr(found, f.name).contiguous() for f in fields(Measured)}))
    except OSError as error:
        raise OutputFailed(
            f"could not write the measurements of the data to {place}: {error.strerror}; free space, or copy the data "
            "to a folder that can be written"
        ) from error
    return found
