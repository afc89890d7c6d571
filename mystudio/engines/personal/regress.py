"""Two small networks of every avatar: motion -> code, and code -> measurements of the synthesized image.

The first gives start codes to the solvers and drives the live preview. It is the base's encoder with the person's
appearance as a constant. For a base without an encoder it is trained on samples of the avatar: codes near the anchors
are drawn, synthesized and measured. The second is always trained on these samples; its Jacobian is Gauss-Newton's.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mystudio.compute.compilation import drawer
from mystudio.engines.personal.anchors import PersonalEncoder
from mystudio.engines.personal.measure import KEYPOINT_NUMBERS, output_vector
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion.retarget import relative_motion
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.face import patches
from selfscan.face.facemesh import FaceMesh, crop_landmarks
from selfscan.types import Array

PRESENT = 0.5  # least presence of a face in an image that is used as a sample
HELD_OUT_EVERY = 12  # one of so many samples is held out
BATCH = 64  # samples a training step
RATE = 2e-3  # of AdamW at the start; it falls to 0 as a cosine
DECAY = 1e-2  # weight decay of AdamW
NOISE = 0.05  # standard deviation of the noise added to the inputs, as a share of theirs


@dataclass(frozen=True)
class RegressSettings:
    """How the avatar's two small networks are trained."""

    samples: int = 600  # synthesized frames
    rank: int = 24  # principal axes of the anchors that carry motion (0 = all)
    reach: float = 1.3  # codes are drawn from the hull, stretched by up to this factor
    noise: float = 0.15  # spread added to drawn codes, in anchor standard deviations
    steps: int = 1500  # training steps of each network
    seed: int = 0  # seed of the drawn codes and of the training


class Regressor(nn.Module):
    """Inverse: relative motion [B, 66, 3] -> code [B, K]. Forward: code [B, K] -> output vector [B, M]."""

    motion_mean: Tensor  # of inputs and outputs over the samples, as their scales
    motion_scale: Tensor
    code_mean: Tensor
    code_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(self, motion_dim: int, rank: int, output_dim: int, width: int = 256):
        super().__init__()
        self.inverse = _mlp(motion_dim, rank, width)
        self.person: PersonalEncoder | None = None  # replaces ``inverse`` if the base has an encoder
        self.forward_net = _mlp(rank, output_dim, width)
        self.linear = nn.Linear(rank, output_dim)
        for name, size in (("motion", motion_dim), ("code", rank), ("output", output_dim)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    def code(self, motion: Tensor) -> Tensor:
        """Relative motion [B, 66, 3] -> code [B, K]; motion far outside the training's range is clamped."""
        if self.person is not None:
            return self.person(motion)
        x = ((motion.flatten(1) - self.motion_mean) / self.motion_scale).clamp(-4, 4)
        return self.code_mean + self.code_scale * self.inverse(x)

    def predict(self, code: Tensor) -> Tensor:
        """Code [B, K] -> output vector [B, M] (``measure.output_vector``)."""
        x = (code - self.code_mean) / self.code_scale
        return self.output_mean + self.output_scale * (self.linear(x) + self.forward_net(x))

    def jacobian(self, code: Tensor) -> Tensor:
        """d output / d code, [B, M, K], by forward differentiation along all K axes at once."""
        x = (code - self.code_mean) / self.code_scale
        push = torch.diag_embed((1 / self.code_scale).expand_as(x))
        straight = self.linear.weight @ push
        for layer in self.forward_net:
            if isinstance(layer, nn.Linear):
                x, push = layer(x), layer.weight @ push
            else:  # SiLU: the derivative of x s(x) is s + x s (1 - s)
                s = x.sigmoid()
                x, push = x * s, (s + x * s * (1 - s))[..., None] * push
        return self.output_scale[:, None] * (straight + push)

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> Regressor:
        """Rebuild it from its state dict."""
        net = cls(len(state["motion_mean"]), len(state["code_mean"]), len(state["output_mean"]))
        person = {k.removeprefix("person."): v for k, v in state.items() if k.startswith("person.")}
        net.person = PersonalEncoder.load(person) if person else None
        net.load_state_dict(state)
        return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class Samples:
    """Synthesized frames and their measurements."""

    codes: Tensor  # [S, K]; the last N are the anchors themselves
    landmarks: Tensor  # [S, 478, 3] in crops
    outputs: Tensor  # [S, M] ``measure.output_vector``


def sample(
    generator: Generator,
    mesh: FaceMesh,
    space: AnchorSpace,
    settings: RegressSettings,
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Samples:
    """Draw codes near the anchors, synthesize and measure them; images without a face are left out.

    Args: checkpoints: for the measurements, a chunk at a time.
    """
    codes = torch.cat([sample_codes(space, settings), space.codes])
    marks, outputs, presence = draw_and_measure(generator, mesh, space, codes, progress, checkpoints=checkpoints)
    shown = presence > PRESENT
    shown[-len(space.codes) :] = True
    return Samples(codes[shown], marks[shown], outputs[shown])


def sample_codes(space: AnchorSpace, settings: RegressSettings) -> Tensor:
    """Codes [S, K] in and slightly around the hull: mixtures of three anchors, which are neighbours in half of them."""
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
    generator: Generator,
    mesh: FaceMesh,
    space: AnchorSpace,
    codes: Tensor,
    progress: Progress = silent,
    batch: int = 8,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Synthesize and measure codes [S, K].

    Args: batch: images a pass. checkpoints: for the measurements, a chunk at a time.
    Returns: landmarks [S, 478, 3] in crops, output vectors [S, M], presence of a face [S] in 0..1.
    """
    device, names = next(generator.parameters()).device, ("marks", "outputs", "presence")
    draw = drawer(generator, device)

    def work(chunk: Array, rows: Iterator[Tensor]) -> Arrays:
        seen, done = list[tuple[Tensor, Tensor, Tensor]](), int(chunk[0])
        for part in torch.stack(list(rows)).split(batch):
            images = draw(generator.broadcast(space.decode(part).to(device))).clamp(-1, 1)
            marks, presence = crop_landmarks(mesh, images)
            seen.append((marks, output_vector(marks, *patches.mouth_and_irises(images, marks)), presence))
            progress("samples", done := done + len(part), len(codes))
        return {name: np.asarray(torch.cat(values).cpu()) for name, values in zip(names, zip(*seen))}

    def tell(done: int) -> None:
        progress("samples", done, len(codes))

    chunks = in_chunks(checkpoints, "samples", range(len(codes)), lambda k: enumerate(codes[k:], k), work, tell)
    parts = [found for _, found in chunks]
    marks, outputs, presence = (torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in names)
    return marks, outputs, presence


def train_regressor(
    samples: Samples,
    space: AnchorSpace,
    scan_landmarks: Tensor,
    neutral: Tensor,
    settings: RegressSettings = RegressSettings(),
    person: PersonalEncoder | None = None,
) -> tuple[Regressor, dict[str, float | None]]:
    """Fit both networks on synthesized samples, and the inverse also on the anchors with their real landmarks.

    Args:
        scan_landmarks: [N, 478, 3] of the scan images; neutral: [478, 3], in crops.
        person: the base's encoder for this person; it replaces the inverse, and only the forward network is fitted.
    Returns: the networks, and figures: "code_explained" and "output_explained" (share of variance on held-out samples;
        with ``person`` that of the codes at the anchors), "code_loss" and "output_loss".
    """
    codes, marks, outputs = samples.codes, samples.landmarks, samples.outputs
    motion, real = relative_motion(marks, neutral), relative_motion(scan_landmarks, neutral)
    net = _untrained(settings.seed, torch.cat([motion, real]), codes, outputs)
    held_out = torch.arange(len(codes)) % HELD_OUT_EVERY == 0
    held_out[-len(space.codes) :] = False
    trained = ~held_out
    net.person = person
    inverse = None
    if person is None:
        x, c = torch.cat([motion[trained], real]), torch.cat([codes[trained], space.codes])
        inverse = _fit(net, net.code, x.flatten(1), c, net.code_scale, settings)
    forward = _fit(net, net.predict, codes[trained], outputs[trained], net.output_scale, settings)
    net.eval().requires_grad_(False)
    if person is not None:  # it was not trained here, so the figure is how well it reproduces the anchors
        inverse = float((net.code(real) - space.codes).square().mean())
    known = (motion[held_out], codes[held_out]) if person is None else (real, space.codes)
    made, true = net.predict(codes[held_out]), outputs[held_out]
    return net, {
        "code_explained": _explained(net.code(known[0]), known[1]),
        "output_explained": _explained(made[:, :KEYPOINT_NUMBERS], true[:, :KEYPOINT_NUMBERS]),
        "code_loss": inverse,
        "output_loss": forward,
    }


def _untrained(seed: int, motion: Tensor, codes: Tensor, outputs: Tensor) -> Regressor:
    """New networks that normalise by the mean and the standard deviation of these samples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Regressor(motion[0].numel(), codes.shape[1], outputs.shape[1])
    for name, values in (("motion", motion.flatten(1)), ("code", codes), ("output", outputs)):
        net.get_buffer(f"{name}_mean").copy_(values.mean(0))
        scale = values.std(0)
        net.get_buffer(f"{name}_scale").copy_(scale.clamp_min(0.1 * float(scale.mean())))
    return net


def _fit(
    net: Regressor,
    call: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    settings: RegressSettings,
) -> float:
    """Train the part of ``net`` that ``call`` uses to map x [S, I] to y [S, O]; returns the last loss.

    Args: scale: [O] unit of each output.
    """
    draw = torch.Generator().manual_seed(settings.seed + 1)
    adam = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(adam, settings.steps)
    spread, loss = x.std(0), x.new_zeros(())
    for _ in range(settings.steps):
        rows = torch.randint(len(x), (BATCH,), generator=draw)
        noisy = x[rows] + NOISE * spread * torch.randn(BATCH, x.shape[1], generator=draw)
        loss = ((call(noisy) - y[rows]) / scale).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        plan.step()
    return float(loss.detach())


def _explained(made: Tensor, aim: Tensor) -> float:
    """Share of the variance of ``aim`` [S, O] that ``made`` explains."""
    return 1 - float((made - aim).square().sum() / (aim - aim.mean(0)).square().sum())


def _mlp(inputs: int, outputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )
