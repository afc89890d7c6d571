"""People and motions drawn by the base itself: identity code, deformation and picture are exactly known.

Rows are made anew for every step, from its number alone, so training needs no store and resumes exactly. A driver is
another person than the source. The base must document which numbers of z are look and which are motion.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from mystudio.base.train_encoder import one_look
from mystudio.engines.hybrid.signals import signal_of
from mystudio.stylegan2.generator import Generator
from selfscan.face.facemesh import FaceMesh, crop_landmarks


@dataclass(frozen=True)
class Factors:
    """Which numbers of the base's z are what."""

    look: int  # the first ones
    motion: int  # the next ones; the rest is look again


def factors_of(info: dict[str, str]) -> Factors | None:
    """The layout in a base's header ("z = 32 look factors, 26 motion factors, ..."); None if it has none."""
    found = re.match(r"z = (\d{1,4}) look factors, (\d{1,4}) motion factors", info.get("code", ""))
    return Factors(int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True)
class Samples:
    """Rows of a source, a driver, and the exact codes."""

    images: Tensor  # [N, 3, R, R] pictures of the sources
    signals: Tensor  # [N, SIZE] of the drivers
    own: Tensor  # [N, SIZE] of the sources' pictures
    w: Tensor  # [N, D] of the source with its neutral face
    driven: Tensor  # [N, D] of the source in the driver's motion


@torch.no_grad()
def draw(generator: Generator, mesh: FaceMesh, factors: Factors, count: int, seed: int) -> Samples:
    """Samples of ``count`` rows, two for each person; ``seed`` alone decides them."""
    people, device = -(-count // 2), next(generator.parameters()).device
    people = max(people, 2)  # a driver is another person
    z = torch.randn(people, 3, generator.z_dim, generator=torch.Generator().manual_seed(seed)).to(device)
    z = one_look(z, factors.look, factors.motion)
    images = generator(generator.broadcast(generator.mapping(z.flatten(0, 1)))).clamp(-1, 1)
    marks, _ = crop_landmarks(mesh, images)
    neutral = marks.unflatten(0, (people, 3))[:, :1].expand(-1, 3, -1, -1).flatten(0, 1)
    signals = signal_of(images, marks, neutral).unflatten(0, (people, 3))[:, 1:].flatten(0, 1)
    moved = z[:, 1:].flatten(0, 1)
    driver = torch.arange(len(moved), device=device).roll(-2)  # the next person
    both = moved.clone()
    motion = slice(factors.look, factors.look + factors.motion)
    both[:, motion] = moved[driver][:, motion]
    still = z[:, :1].expand(-1, 2, -1).flatten(0, 1)
    rows = slice(count)
    return Samples(
        images.unflatten(0, (people, 3))[:, 1:].flatten(0, 1)[rows],
        signals[driver][rows],
        signals[rows],
        generator.mapping(still)[rows],
        generator.mapping(both)[rows],
    )
