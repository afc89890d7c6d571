"""Two small networks per avatar, learned from its own samples: motion -> code, and code -> what will be seen.

The first starts every solve and is the live preview: the base's encoder with the person's appearance held fixed, or,
for a base without an encoder, a network that learns from the avatar's own samples (draw codes near the anchors,
synthesize, look). The second always learns from them; its Jacobian steers Gauss-Newton.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mystudio.engines.personal.anchors import PersonalEncoder
from mystudio.engines.personal.measure import output_vector
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion.retarget import relative_motion
from mystudio.types import Progress, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.face import patches
from selfscan.face.facemesh import crop_landmarks


@dataclass(frozen=True)
class RegressSettings:
    """How the avatar's two small networks are trained."""

    samples: int = 600  # synthesized frames
    rank: int = 24  # principal axes of the anchors that carry motion (0 = all)
    reach: float = 1.3  # codes are drawn from the hull stretched by up to this factor
    noise: float = 0.15  # spread added to drawn codes, in anchor standard deviations
    steps: int = 1500  # training steps of each network
    seed: int = 0


class Regressor(nn.Module):
    """Inverse: relative motion [B, 66, 3] -> code [B, K]. Forward: code [B, K] -> output vector [B, M]."""

    def __init__(self, motion_dim: int, rank: int, output_dim: int, width: int = 256):
        super().__init__()
        self.inverse = _mlp(motion_dim, rank, width)
        self.person: PersonalEncoder | None = None  # takes the place of ``inverse`` where the base has an encoder
        self.forward_net = _mlp(rank, output_dim, width)
        self.linear = nn.Linear(rank, output_dim)
        for name, size in (("motion", motion_dim), ("code", rank), ("output", output_dim)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    def code(self, motion: Tensor) -> Tensor:
        """Relative motion [B, 66, 3] -> code [B, K], kept within a little more than the range of its training."""
        if self.person is not None:
            return self.person(motion)
        x = ((motion.flatten(1) - self.motion_mean) / self.motion_scale).clamp(-4, 4)
        return self.code_mean + self.code_scale * self.inverse(x)

    def predict(self, code: Tensor) -> Tensor:
        """Code [B, K] -> output vector [B, M] (``measure.output_vector``)."""
        x = (code - self.code_mean) / self.code_scale
        return self.output_mean + self.output_scale * (self.linear(x) + self.forward_net(x))

    def jacobian(self, code: Tensor) -> Tensor:
        """d output / d code, [B, M, K]: all K directions pushed through the layers."""
        x = (code - self.code_mean) / self.code_scale
        push = torch.diag_embed((1 / self.code_scale).expand_as(x))
        straight = self.linear.weight @ push
        for layer in self.forward_net:
            if isinstance(layer, nn.Linear):
                x, push = layer(x), layer.weight @ push
            else:  # SiLU: x s(x) has the slope s + x s (1 - s)
                s = x.sigmoid()
                x, push = x * s, (s + x * s * (1 - s))[..., None] * push
        return self.output_scale[:, None] * (straight + push)

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> Regressor:
        """From ``Avatar.regressor``."""
        net = cls(len(state["motion_mean"]), len(state["code_mean"]), len(state["output_mean"]))
        person = {k.removeprefix("person."): v for k, v in state.items() if k.startswith("person.")}
        net.person = PersonalEncoder.load(person) if person else None
        net.load_state_dict(state)
        return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class Samples:
    """Synthesized frames and what was seen in them."""

    codes: Tensor  # [S, K]; the last N are the anchors themselves
    landmarks: Tensor  # [S, 478, 3] in crops
    outputs: Tensor  # [S, M] ``measure.output_vector``


def sample(
    generator,
    mesh,
    space: AnchorSpace,
    settings: RegressSettings,
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Samples:
    """Draw codes near the anchors, synthesize them and look; frames without a face are left out.

    Args: checkpoints: where what was seen is kept, a chunk at a time.
    """
    codes = torch.cat([sample_codes(space, settings), space.codes])
    marks, outputs, presence = draw_and_measure(generator, mesh, space, codes, progress, checkpoints=checkpoints)
    shown = presence > 0.5
    shown[-len(space.codes) :] = True
    return Samples(codes[shown], marks[shown], outputs[shown])


def sample_codes(space: AnchorSpace, settings: RegressSettings) -> Tensor:
    """Codes in and a little around the hull: mixtures of three anchors, half of them neighbours, [S, K]."""
    draw = torch.Generator().manual_seed(settings.seed)
    n, count = len(space.codes), settings.samples
    first = torch.randint(n, (count,), generator=draw)
    near = torch.cdist(space.codes[first], space.codes).topk(min(12, n), largest=False).indices
    pick = torch.randint(near.shape[1], (count, 2), generator=draw)
    others = near.gather(1, pick)
    far = torch.rand(count, generator=draw) < 0.5
    others[far] = torch.randint(n, (int(far.sum()), 2), generator=draw)
    mix = torch.distributions.Dirichlet(torch.ones(3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        alpha = mix.sample((count,))
    codes = (alpha[..., None] * space.codes[torch.cat([first[:, None], others], 1)]).sum(1)
    stretch = 1 + (settings.reach - 1) * torch.rand(count, 1, generator=draw)
    return codes * stretch + settings.noise * torch.randn(codes.shape, generator=draw)


@torch.no_grad()
def draw_and_measure(
    generator,
    mesh,
    space: AnchorSpace,
    codes: Tensor,
    progress: Progress = silent,
    batch: int = 8,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Synthesize codes [S, K]: landmarks [S, 478, 3], output vectors [S, M], face presence [S].

    Args: batch: images a pass. checkpoints: where what was seen is kept, a chunk at a time.
    """
    device, names = next(generator.parameters()).device, ("marks", "outputs", "presence")

    def work(chunk: np.ndarray, rows: Iterator[Tensor]) -> Arrays:
        seen, done = [], int(chunk[0])
        for part in torch.stack(list(rows)).split(batch):
            images = generator(generator.broadcast(space.decode(part).to(device))).clamp(-1, 1)
            marks, presence = crop_landmarks(mesh, images)
            seen.append((marks, output_vector(marks, *patches.mouth_and_irises(images, marks)), presence))
            progress("look", done := done + len(part), len(codes))
        return {name: torch.cat(values).cpu().numpy() for name, values in zip(names, zip(*seen))}

    parts = [
        found
        for _, found in in_chunks(
            checkpoints,
            "look",
            range(len(codes)),
            lambda k: enumerate(codes[k:], k),
            work,
            lambda done: progress("look", done, len(codes)),
        )
    ]
    marks, outputs, presence = (torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in names)
    return marks, outputs, presence


def train_regressor(
    samples: Samples,
    space: AnchorSpace,
    scan_landmarks: Tensor,
    neutral: Tensor,
    settings: RegressSettings = RegressSettings(),
    person: PersonalEncoder | None = None,
) -> tuple[Regressor, dict]:
    """Fit both networks on synthesized samples and on the anchors (whose real landmarks are known too).

    Args:
        scan_landmarks: [N, 478, 3] of the scan images; neutral: [478, 3], in crops.
        person: the base's encoder for this person; it is the inverse, and only the forward network is fitted.
    Returns: the networks, and their share of variance explained: on held-out samples, or, for ``person``, at the
    anchors.
    """
    codes, marks, outputs = samples.codes, samples.landmarks, samples.outputs
    motion = relative_motion(marks, neutral).flatten(1)
    real = relative_motion(scan_landmarks, neutral).flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net = Regressor(motion.shape[1], codes.shape[1], outputs.shape[1])
    for name, values in (("motion", torch.cat([motion, real])), ("code", codes), ("output", outputs)):
        getattr(net, f"{name}_mean").copy_(values.mean(0))
        scale = values.std(0)
        getattr(net, f"{name}_scale").copy_(scale.clamp_min(0.1 * float(scale.mean())))
    held = torch.arange(len(codes)) % 12 == 0
    held[-len(space.codes) :] = False
    x, c = torch.cat([motion[~held], real]), torch.cat([codes[~held], space.codes])
    net.person = person
    inverse = None if person else _fit(net, lambda m: net.code(m), x, c, net.code_scale, settings)
    forward = _fit(net, lambda k: net.predict(k), codes[~held], outputs[~held], net.output_scale, settings)
    net.eval().requires_grad_(False)
    with torch.no_grad():
        if person is not None:  # not trained here: what counts is that it knows the scan
            inverse = float((person(real.unflatten(1, (-1, 3))) - space.codes).square().mean())
        known = (real, space.codes) if person is not None else (motion[held], codes[held])
        figures = {
            "code_explained": _explained(net.code(known[0].unflatten(1, (-1, 3))), known[1]),
            "output_explained": _explained(net.predict(codes[held])[:, :198], outputs[held][:, :198]),
            "code_loss": inverse,
            "output_loss": forward,
        }
    return net, figures


def _fit(net, call, x: Tensor, y: Tensor, scale: Tensor, settings: RegressSettings) -> float:
    draw = torch.Generator().manual_seed(settings.seed + 1)
    adam = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(adam, settings.steps)
    spread = x.std(0)
    for _ in range(settings.steps):
        rows = torch.randint(len(x), (64,), generator=draw)
        noisy = x[rows] + 0.05 * spread * torch.randn(64, x.shape[1], generator=draw)
        loss = ((call(noisy) - y[rows]) / scale).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        plan.step()
    return float(loss.detach())


def _explained(made: Tensor, aim: Tensor) -> float:
    return 1 - float((made - aim).square().sum() / (aim - aim.mean(0)).square().sum())


def _mlp(inputs: int, outputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )
