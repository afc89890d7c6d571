"""Train the inversion encoder of a base on the base's own samples: exact triples (w, image, landmarks) without limit.

If the base documents which factors of z are look and which are motion, it can generate one person in two poses. The
appearance branch then gets one image and the motion branch the landmarks of the other. So neither branch can learn
the other's task. For any other base both branches get the same sample, and the mean sample replaces the neutral face.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.base.encoder import INPUT, Encoder
from mystudio.motion.retarget import relative_motion
from mystudio.types import Progress, silent
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.naming import derived
from selfscan.io.pixels import dequantize, quantize


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of the encoder's training."""

    people: int = 2000  # number of sampled looks
    poses: int = 4  # samples of each look, in addition to its neutral face
    motion_factors: int = 0  # numbers of z after the look factors that are motion; 0 = all that follow
    side_factors: tuple[int, int] = (0, 0)  # first and end of further numbers of z that are motion
    steps: int = 2500
    batch: int = 128
    rate: float = 1e-3  # learning rate of Adam at its peak, cosine decay
    seed: int = 0


@dataclass(frozen=True)
class Pairs:
    """Samples of a base; [P, Q] = people x poses."""

    images: Tensor  # [P, Q, 3, 64, 64] uint8
    motion: Tensor  # [P, Q, 66, 3] relative to the person's neutral face
    w: Tensor  # [P, Q, D]
    presence: Tensor  # [P, Q] the landmark network's confidence


@torch.no_grad()
def sample_pairs(
    generator, look_factors: int | None, settings: EncoderSettings, progress: Progress = silent, block: int = 8
) -> Pairs:
    """Sample people and poses from the base, and measure their landmarks; results are on the generator's device."""
    draw, device = torch.Generator().manual_seed(settings.seed), next(generator.parameters()).device
    mesh, people, poses = load_facemesh(device=device), settings.people, settings.poses
    images = torch.zeros(people, poses, 3, INPUT, INPUT, dtype=torch.uint8, device=device)
    motion, w_all = [], []
    presence = torch.zeros(people, poses, device=device)
    for first in range(0, people, block):
        count = min(block, people - first)
        z = torch.randn(count, poses + 1, generator.z_dim, generator=draw)
        if look_factors:
            z = one_look(z, look_factors, settings.motion_factors, settings.side_factors)
        w = generator.mapping(z.flatten(0, 1).to(device))
        made = generator(generator.broadcast(w)).clamp(-1, 1)
        marks, seen = crop_landmarks(mesh, made)
        marks = marks.unflatten(0, (count, -1))
        neutral = marks[:, 0] if look_factors else marks.mean((0, 1)).expand(count, -1, -1)
        motion.append(torch.stack([relative_motion(m[1:], n) for m, n in zip(marks, neutral)]))
        small = F.interpolate(made, (INPUT, INPUT), mode="bilinear", antialias=True, align_corners=False)
        small = small.unflatten(0, (count, -1))[:, 1:]
        images[first : first + count] = quantize(small)
        presence[first : first + count] = seen.unflatten(0, (count, -1))[:, 1:]
        w_all.append(w.unflatten(0, (count, -1))[:, 1:])
        progress("sample", first + count, people)
    return Pairs(images, torch.cat(motion), torch.cat(w_all), presence)


def one_look(z: Tensor, look_factors: int, motion_factors: int = 0, side_factors: tuple[int, int] = (0, 0)) -> Tensor:
    """Give all samples of a person the same look, and the first one the neutral face (motion 0).

    Args:
        z: [P, Q, Z]. look_factors: count of the first numbers, which are look. motion_factors: count of the next
            numbers, which are motion; the rest belongs to the look. 0 = all after the look factors are motion.
        side_factors: first and end of further numbers that are motion.
    """
    end = look_factors + motion_factors if motion_factors else z.shape[-1]
    same = z[:, :1].repeat(1, z.shape[1], 1)
    for motion in (slice(look_factors, end), slice(*side_factors)):
        same[:, :, motion] = z[:, :, motion]
        same[:, 0, motion] = 0
    return same


def train_encoder(
    generator,
    look_factors: int | None,
    settings: EncoderSettings = EncoderSettings(),
    progress: Progress = silent,
    pairs: Pairs | None = None,
) -> tuple[Encoder, dict]:
    """Train an encoder to regress w from the appearance of one sample and the motion of another.

    The loss is in standard deviations of W.

    Args:
        look_factors: count of z's look factors; None = the base does not document them.
        pairs: samples to train on; None = new ones.
    Returns: the encoder, and figures on held-out people (share of W's variance explained).
    """
    pairs = pairs or sample_pairs(generator, look_factors, settings, progress)
    draw = torch.Generator().manual_seed(settings.seed + 1)
    held = max(1, len(pairs.w) // 20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = Encoder(generator.w_dim).to(pairs.w.device)
    flat = pairs.w.flatten(0, 1)
    encoder.mean.copy_(flat.mean(0))
    encoder.spread.copy_(flat.std(0).clamp_min(1e-4))
    adam = torch.optim.AdamW(encoder.parameters(), lr=settings.rate, weight_decay=1e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(adam, settings.rate, settings.steps, pct_start=0.05)
    for step in range(settings.steps):
        person = torch.randint(held, len(pairs.w), (settings.batch,), generator=draw)
        pose, other = torch.randint(pairs.w.shape[1], (2, settings.batch), generator=draw)
        other = other if look_factors else pose
        image = _augment(dequantize(pairs.images[person, other]), draw)
        made = encoder(encoder.appearance(image), pairs.motion[person, pose])
        aim = pairs.w[person, pose]
        loss = ((made - aim) / encoder.spread).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        plan.step()
        progress("encoder", step + 1, settings.steps)
    return encoder.eval().requires_grad_(False), _score(encoder, pairs, held)


def train_and_save(
    base,
    look_factors: int | None,
    settings: EncoderSettings,
    progress: Progress = silent,
    device: torch.device = torch.device("cpu"),
) -> tuple[Path, dict]:
    """Train the encoder of a ``mystudio.bases.Base`` and write it beside the base; an older encoder is replaced."""
    generator = copy.deepcopy(base.generator).requires_grad_(False).to(device)  # the base's own generator is shared
    encoder, figures = train_encoder(generator, look_factors, settings, progress)
    path = base.companion_path("encoder")
    part = derived(path, after=".part", stem=path.stem)
    save_encoder(encoder, part, {"kind": "inversion-encoder", "base": base.digest} | figures)
    part.replace(path)
    return path, figures


def save_encoder(encoder: Encoder, path: Path, info: dict) -> None:
    """Write an encoder as fp16 safetensors; ``info`` becomes its metadata."""
    from safetensors.torch import save

    state = {k: v.half().contiguous() for k, v in encoder.state_dict().items()}
    path.write_bytes(save(state, {k: str(v) for k, v in info.items()}))


def _augment(x: Tensor, draw: torch.Generator) -> Tensor:
    """Vary light, contrast, noise and position as real cameras do; the base does not. ``draw`` is on the CPU."""
    n = len(x)

    def rand(*shape):
        return torch.rand(*shape, generator=draw).to(x)

    x = x * (0.8 + 0.4 * rand(n, 1, 1, 1)) + 0.2 * (rand(n, 3, 1, 1) - 0.5)
    x = x + 0.1 * rand(n, 1, 1, 1) * torch.randn(x.shape, generator=draw).to(x)
    dx, dy = torch.randint(-2, 3, (2,), generator=draw).tolist()
    return torch.roll(x, (dy, dx), (2, 3)).clamp(-1, 1)


@torch.no_grad()
def _score(encoder: Encoder, pairs: Pairs, held: int) -> dict:
    image = dequantize(pairs.images[:held])
    look = encoder.appearance(image.flatten(0, 1)).unflatten(0, image.shape[:2]).mean(1, keepdim=True)
    look = look.expand(-1, image.shape[1], -1)
    made = encoder(look.flatten(0, 1), pairs.motion[:held].flatten(0, 1)).unflatten(0, image.shape[:2])
    aim = pairs.w[:held]
    error = ((made - aim) / encoder.spread).square()
    within = (((made - made.mean(1, keepdim=True)) - (aim - aim.mean(1, keepdim=True))) / encoder.spread).square()
    motion = ((aim - aim.mean(1, keepdim=True)) / encoder.spread).square()
    share = 1 - float(within.mean() / motion.mean().clamp_min(1e-9))
    return {"explained": 1 - float(error.mean()), "explained_motion": share}
