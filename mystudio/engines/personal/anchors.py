"""Images of a person -> anchors in W: a small encoder trained on the base's own samples, then optimisation.

The encoder sees two things: what the person looks like (an image network, averaged over the whole scan, so that all
anchors share one identity) and what the face does in this frame (normalised keypoints relative to the person's
neutral face). Landmarks mean the same on generated and on real images; pixels do not. This keeps the anchors a
smooth function of motion, which is what makes codes between the anchors look right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mystudio.base.encoder import MOTION_GAIN, Encoder, encode
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion import losses
from mystudio.types import Progress, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints


@dataclass(frozen=True)
class InvertSettings:
    """How scan images become anchors."""

    equalise: float = 0.3  # 0..1: how far the anchors' principal axes are brought to the length of the longest one
    axes: int = 16  # principal axes of the encoder's anchors that are kept
    steps: int = 0  # optimisation steps on top of the encoder (0 = encoder alone, as MyStyle)
    blind_steps: int = 100  # steps for a base that has no encoder (from its mean w)
    rate: float = 0.02  # Adam step, in standard deviations of W
    stay: float = 0.02  # weight of the squared distance to the encoder's anchor, in the same unit
    batch: int = 16  # images at a time


class PersonalEncoder(nn.Module):
    """The encoder with one person's appearance held fixed: relative motion -> code on the avatar's axes.

    It is the same map that gave the anchors, so it is exact at the anchors up to ``equalise`` (which is linear), and
    as smooth between them as the base is over its whole training.
    """

    def __init__(self, width: int, w_dim: int, rank: int):
        super().__init__()
        empty = Encoder(w_dim, width)
        self.motion, self.head = empty.motion, empty.head
        for name, shape in (("mean", w_dim), ("spread", w_dim), ("look", width), ("centre", w_dim)):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("project", torch.zeros(w_dim, rank))

    def forward(self, motion: Tensor) -> Tensor:
        """Relative motion [B, 66, 3] -> code [B, K], kept within four anchor deviations."""
        both = torch.cat([self.look.expand(len(motion), -1), self.motion(MOTION_GAIN * motion.flatten(1))], 1)
        w = self.mean + self.spread * self.head(both)
        return ((w - self.centre) @ self.project).clamp(-4, 4)

    @classmethod
    def of(
        cls, encoder: Encoder, images: Tensor, landmarks: Tensor, neutral: Tensor, space: AnchorSpace, axes: int
    ) -> PersonalEncoder:
        """Fit the linear map from the encoder's own anchors to the avatar's codes.

        Args:
            images, landmarks, neutral: as in ``encode``. space: of the avatar's anchors, in the same order.
            axes: principal axes of the encoder's anchors that were kept (``InvertSettings.axes``).
        """
        made = cls(len(encoder.look.bias), len(encoder.mean), space.rank)
        made.motion.load_state_dict(encoder.motion.state_dict())
        made.head.load_state_dict(encoder.head.state_dict())
        own = AnchorSpace.of(encode(encoder, images, landmarks, neutral), axes)
        to_code = torch.linalg.lstsq(own.codes.double(), space.codes.double()).solution.to(own.axes)
        made.mean.copy_(encoder.mean)
        made.spread.copy_(encoder.spread)
        made.centre.copy_(own.mean)
        made.look.copy_(torch.cat([encoder.appearance(part) for part in images.split(32)]).mean(0))
        made.project.copy_((own.axes / own.axes.square().sum(1, keepdim=True)).t() @ to_code)
        return made.eval().requires_grad_(False)

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> PersonalEncoder:
        """From its state dict."""
        made = cls(len(state["look"]), *state["project"].shape)
        made.load_state_dict(state)
        return made.eval().requires_grad_(False)


def invert(
    generator,
    encoder: Encoder | None,
    perceptual,
    images: Tensor,
    landmarks: Tensor,
    neutral: Tensor,
    settings: InvertSettings = InvertSettings(),
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Tensor:
    """Anchors in W for the scan images: encoder, then optimisation of each anchor near the encoder's.

    Without an encoder the search starts at the base's mean w, with the same penalty around it relaxed.

    Args:
        generator: the base. images: [N, 3, H, W] at the base's resolution, in [-1, 1].
        landmarks: [N, 478, 3]; neutral: [478, 3], in crops. perceptual: ``selfscan.perceptual.metric.Perceptual``.
        checkpoints: where the anchors of finished batches are kept.
    Returns: [N, D] float32.
    """
    if encoder is not None:
        start, spread = encode(encoder, images, landmarks, neutral), encoder.spread
        start = equalise(start, settings.equalise, settings.axes)
        stay = settings.stay
    else:
        seeds = torch.randn(512, generator.z_dim, generator=torch.Generator().manual_seed(0)).to(images)
        samples = generator.mapping(seeds)
        start, spread, stay = samples.mean(0).expand(len(images), -1), samples.std(0), settings.stay / 10
    start = start.detach()
    steps = settings.steps if encoder is not None else max(settings.steps, settings.blind_steps)
    if not steps:
        return start
    parts, total = [], steps * -(-len(images) // settings.batch)
    for first in range(0, len(images), settings.batch):
        rows, done, name = slice(first, first + settings.batch), len(parts) * steps, f"invert{first:05d}"
        found = checkpoints.get(name)
        if found is None:
            w = _refine(
                generator,
                perceptual,
                images[rows],
                start[rows],
                spread,
                stay,
                steps,
                settings.rate,
                lambda step, done=done: progress("invert", done + step, total),
            )
            checkpoints.put(name, found := {"w": w.cpu().numpy()})
        else:
            progress("invert", done + steps, total)
        parts.append(torch.as_tensor(found["w"]).to(start))
    return torch.cat(parts)


def equalise(anchors: Tensor, share: float, axes: int) -> Tensor:
    """Lengthen the anchors' short principal axes: length n becomes n^(1 - share) n_0^share.

    An encoder speaks of small motions in a low voice, and tuning then needs long to tell neighbours apart.

    Args:
        anchors: [N, D]. share: 0 = as they are, 1 = all axes alike. axes: how many are kept.
    """
    space = AnchorSpace.of(anchors, axes)
    length = space.axes.norm(dim=1, keepdim=True)
    return space.mean + space.codes @ (space.axes * (length[0] / length) ** share)


def _refine(generator, perceptual, images, start, spread, stay, steps, rate, tick) -> Tensor:
    offset = torch.zeros_like(start, requires_grad=True)
    adam = torch.optim.Adam([offset], lr=rate, betas=(0.9, 0.99))
    with torch.no_grad():
        aim = perceptual.embed(images)
    for step in range(steps):
        made = generator(generator.broadcast(start + spread * offset))
        loss = perceptual.distance_to(made, aim) + losses.pixel(made, images) + stay * offset.square().mean(1)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        tick(step + 1)
    return (start + spread * offset).detach()
