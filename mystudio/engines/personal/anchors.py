"""Images of a person -> anchors in W, by the encoder of the base and optional optimisation steps.

The encoder has two inputs. An image network reads the person's appearance and is averaged over the whole scan, so that
all anchors share one identity. A second network reads the motion of each frame: normalised keypoints relative to the
person's neutral face. Landmarks mean the same on generated and on real images, and pixels do not. The anchors are thus
a smooth function of motion, and codes between anchors look right.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mystudio.base.encoder import MOTION_GAIN, Encoder, encode
from mystudio.engines.personal.likeness import where_seen
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion import losses
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.perceptual.metric import Perceptual


@dataclass(frozen=True)
class InvertSettings:
    """How scan images become anchors."""

    equalise: float = 0.3  # 0..1: lengthening of the anchors' short principal axes; at 1 all equal the longest
    axes: int = 16  # principal axes of the encoder's anchors that are kept
    steps: int = 0  # optimisation steps after the encoder; 0 = the encoder alone, as MyStyle
    blind_steps: int = 100  # optimisation steps from the mean w, for a base that has no encoder
    rate: float = 0.02  # Adam step, in standard deviations of W
    stay: float = 0.02  # weight of the squared distance to the encoder's anchor, in the same unit
    batch: int = 16  # images at a time


class PersonalEncoder(nn.Module):
    """The encoder with one person's appearance as a constant: relative motion -> code on the avatar's axes.

    The same map gave the anchors, so it is exact at the anchors up to ``equalise``, which is linear. Between them it is
    as smooth as the encoder.
    """

    mean: Tensor  # [D] of the encoder's W
    spread: Tensor  # [D]
    look: Tensor  # [width] the person's appearance
    centre: Tensor  # [D] mean of the encoder's own anchors
    project: Tensor  # [D, K] from W to codes

    def __init__(self, width: int, w_dim: int, rank: int):
        super().__init__()
        empty = Encoder(w_dim, width)
        self.motion, self.head = empty.motion, empty.head
        for name, shape in (("mean", w_dim), ("spread", w_dim), ("look", width), ("centre", w_dim)):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("project", torch.zeros(w_dim, rank))

    def forward(self, motion: Tensor) -> Tensor:
        """Relative motion [B, 66, 3] -> code [B, K], clamped to four anchor deviations."""
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
            axes: number of principal axes of the encoder's anchors that were used (``InvertSettings.axes``).
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
        """Rebuild it from its state dict."""
        made = cls(len(state["look"]), *state["project"].shape)
        made.load_state_dict(state)
        return made.eval().requires_grad_(False)


def invert(
    generator: Generator,
    encoder: Encoder | None,
    perceptual: Perceptual,
    images: Tensor,
    landmarks: Tensor,
    neutral: Tensor,
    settings: InvertSettings = InvertSettings(),
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    seen: Tensor | None = None,
) -> Tensor:
    """Anchors in W of the scan images: the encoder's, then optionally optimised near them.

    Without an encoder the search starts at the mean w of the base, and the penalty on leaving it is ten times weaker.

    Args:
        generator: the base. images: [N, 3, H, W] at the base's resolution, in [-1, 1].
        landmarks: [N, 478, 3]; neutral: [478, 3], in crops. perceptual: ``selfscan.perceptual.metric.Perceptual``.
        checkpoints: for the anchors of finished batches. seen: as in ``tune``.
    Returns: [N, D] float32.
    """
    begin = _begin(generator, encoder, images, landmarks, neutral, settings)
    if not begin.steps:
        return begin.anchors
    parts, total = list[Tensor](), begin.steps * -(-len(images) // settings.batch)
    for first in range(0, len(images), settings.batch):
        rows, done, name = slice(first, first + settings.batch), len(parts) * begin.steps, f"invert{first:05d}"
        found = checkpoints.get(name)
        if found is None:
            tick = partial(_tick, progress, done, total)
            part = None if seen is None else seen[rows]
            w = _optimize(generator, perceptual, images[rows], part, begin.anchors[rows], begin, settings.rate, tick)
            checkpoints.put(name, found := {"w": w.cpu().numpy()})
        else:
            progress("invert", done + begin.steps, total)
        parts.append(torch.as_tensor(found["w"]).to(begin.anchors))
    return torch.cat(parts)


def equalise(anchors: Tensor, share: float, axes: int) -> Tensor:
    """Lengthen the anchors' short principal axes: length n becomes n^(1 - share) n_0^share.

    The encoder under-represents small motions; stretching the minor axes helps tuning separate neighbouring frames.

    Args:
        anchors: [N, D]. share: 0 = unchanged, 1 = all axes have the length of the longest. axes: number of axes used;
            components outside of them are dropped.
    """
    space = AnchorSpace.of(anchors, axes)
    length = space.axes.norm(dim=1, keepdim=True)
    return space.mean + space.codes @ (space.axes * (length[0] / length) ** share)


@dataclass(frozen=True)
class _Begin:
    """The anchors from which the optimisation starts, and the penalty for leaving them."""

    anchors: Tensor  # [N, D]
    spread: Tensor  # [D] standard deviation of W
    stay: float  # weight of the squared distance to ``anchors``, in units of ``spread``
    steps: int


def _begin(
    generator: Generator,
    encoder: Encoder | None,
    images: Tensor,
    landmarks: Tensor,
    neutral: Tensor,
    settings: InvertSettings,
) -> _Begin:
    if encoder is not None:
        anchors = equalise(encode(encoder, images, landmarks, neutral), settings.equalise, settings.axes)
        return _Begin(anchors.detach(), encoder.spread, settings.stay, settings.steps)
    seeds = torch.randn(512, generator.z_dim, generator=torch.Generator().manual_seed(0)).to(images)
    samples = generator.mapping(seeds)
    mean = samples.mean(0).expand(len(images), -1)
    return _Begin(mean.detach(), samples.std(0), settings.stay / 10, max(settings.steps, settings.blind_steps))


def _tick(progress: Progress, done: int, total: int, step: int) -> None:
    progress("invert", done + step, total)


def _optimize(
    generator: Generator,
    perceptual: Perceptual,
    images: Tensor,
    seen: Tensor | None,
    start: Tensor,
    begin: _Begin,
    rate: float,
    tick: Callable[[int], None],
) -> Tensor:
    """Optimise w [B, D] from ``start`` so that the generator shows these images [B, 3, H, W]."""
    offset = torch.zeros_like(start, requires_grad=True)
    adam = torch.optim.Adam([offset], lr=rate, betas=(0.9, 0.99))
    with torch.no_grad():
        aim = perceptual.embed(images)
    for step in range(begin.steps):
        made = generator(generator.broadcast(start + begin.spread * offset))
        made = where_seen(made, images, seen)
        distance = perceptual.distance_to(made, aim) + losses.pixel(made, images)
        loss = distance + begin.stay * offset.square().mean(1)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        tick(step + 1)
    return (start + begin.spread * offset).detach()
