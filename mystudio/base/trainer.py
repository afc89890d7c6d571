"""The networks of a training run, and one step of each phase; without files or time limits."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from mystudio.base import objectives, randomness
from mystudio.base.adam import descend, fill_slots, make_adam, slots_of
from mystudio.base.augment import adjust, augment
from mystudio.base.data import Batch
from mystudio.base.parallel import Team
from mystudio.base.randomness import StepRandom
from mystudio.base.reader import Reader, divergence
from mystudio.base.settings import BaseSettings
from mystudio.compute.compilation import compiled
from mystudio.compute.device import feature_dtype
from mystudio.stylegan2.discriminator import Discriminator
from mystudio.stylegan2.generator import Generator
from selfscan.io.pixels import to_tensor

PHASES = ("supervised", "adversarial")
W_AVERAGE = 0.998  # share of the running mean of w that each step keeps (StyleGAN2)


@dataclass
class Counters:
    """Progress of a run, without tensors."""

    step: int = 0  # steps of both phases together
    supervised: int = 0  # images seen in each phase
    adversarial: int = 0
    phase: str = ""
    probability: float = 0.0  # probability of augmentations
    mean_sign: float = 0.0  # last value of r_t (``augment.AugmentSettings``)
    rate_scale: float = 1.0
    rollbacks: int = 0


class Trainer:
    """Generator, its average, discriminator and their optimisers; ``step`` trains them.

    Args:
        settings: of the run. team: this process among others. device: of the networks.
        code_size, coded_share: of the data (``data.Mixture``).
        perceptual, mesh: ``Perceptual`` and ``FaceMesh`` of ``selfscan``; None where their weights are 0.
    """

    def __init__(
        self,
        settings: BaseSettings,
        device: torch.device,
        team: Team = Team(),
        code_size: int = 0,
        coded_share: float = 0.0,
        perceptual=None,
        mesh=None,
    ):
        self.settings, self.device, self.team = settings, device, team
        self._mesh, s = mesh, settings.supervised
        self._likeness = partial(objectives.likeness, settings=s, perceptual=perceptual)
        model = settings.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.train.seed)  # modules draw their first weights from the global generator
            self.g = Generator(
                model.resolution, model.z_dim, model.w_dim, model.mapping_layers, model.channel_base, model.channel_max
            ).to(device)
            self.d = Discriminator(model.resolution, model.channel_base, model.channel_max).to(device)
            self.reader = Reader(model.z_dim).to(device) if settings.supervised.read else None
        self.ema = copy.deepcopy(self.g).eval().requires_grad_(False)
        self.random = StepRandom(settings, self.g.num_ws, device, team, code_size, coded_share)
        self.dtype = feature_dtype(settings.train.precision, device)
        self.warnings: list[str] = []
        self._fast_g, self._fast_d = (
            compiled(net, self.warnings) if settings.train.compile else net for net in (self.g, self.d)
        )
        self.counters = Counters(probability=settings.adversarial.augment.start)
        sizes = {"signs": 2, "path": 1, "skipped": 1}
        self.tensors = {name: torch.zeros(size, device=device) for name, size in sizes.items()}
        self.adams: dict[str, torch.optim.Adam] = {}

    def enter(self, phase: str) -> None:
        """Begin a phase with new optimisers; the generator's average becomes its first weights."""
        settings = self.settings
        if phase == "supervised":
            self.adams = {"g": make_adam(self.g, settings.supervised.rate, 0, (0.9, 0.99), settings.supervised.mapping)}
            if self.reader:
                self.adams["reader"] = make_adam(self.reader, settings.supervised.read_rate, 0, (0.9, 0.99))
        else:
            s = settings.adversarial
            self.adams = {
                "g": make_adam(self.g, s.rate, s.path_every, (0.0, 0.99)),
                "d": make_adam(self.d, s.critic_rate, s.r1_every, (0.0, 0.99)),
            }
        if self.counters.phase != phase and self.counters.phase:
            self.g.load_state_dict(self.ema.state_dict())
        self.counters.phase = phase

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimisation step of the current phase; returns the losses by name."""
        settings = getattr(self.settings, self.counters.phase)
        decay = 1.0
        if self.counters.phase == "supervised":
            done = self.counters.supervised / max(settings.kimg * 1000, 1)
            decay = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        self.random.begin(self.counters.step, self.counters.phase)
        for adam in self.adams.values():
            for group in adam.param_groups:
                group["lr"] = group["peak"] * decay * self.counters.rate_scale
        losses = self._supervised(batch) if self.counters.phase == "supervised" else self._adversarial(batch)
        setattr(self.counters, self.counters.phase, getattr(self.counters, self.counters.phase) + settings.batch)
        self._average()
        self.counters.step += 1
        return losses

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Everything that a resumed run needs: tensors by name, and the counters."""
        nets = self._nets()
        tensors = {f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()}
        for name, adam in self.adams.items():
            tensors |= {f"adam.{name}.{key}": value for key, value in slots_of(adam).items()}
        return tensors | {f"state.{k}": v for k, v in self.tensors.items()}, vars(self.counters).copy()

    def restore(self, tensors: dict[str, Tensor], counters: dict) -> None:
        """Load a state. A packed one has no optimisers: the generator starts from its average, Adam without moments."""
        known = {f.name for f in fields(Counters)}
        self.counters = Counters(**{k: v for k, v in counters.items() if k in known})
        light = not any(name.startswith("g.") for name in tensors)
        for name, net in self._nets().items():
            if name == "reader" and light:
                continue
            head = "ema." if light and name == "g" else f"{name}."
            net.load_state_dict({k[len(head) :]: v.float() for k, v in tensors.items() if k.startswith(head)})
        for name, value in self.tensors.items():
            value.copy_(tensors[f"state.{name}"])
        if self.counters.phase:
            self.enter(self.counters.phase)
        for name, adam in self.adams.items():
            head = f"adam.{name}."
            fill_slots(adam, {k[len(head) :]: v for k, v in tensors.items() if k.startswith(head)})

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(p.isfinite().all()) for net in self._nets().values() for p in net.parameters())

    def _nets(self) -> dict[str, nn.Module]:
        nets: dict[str, nn.Module] = {"g": self.g, "d": self.d, "ema": self.ema}
        return nets | {"reader": self.reader} if self.reader else nets

    def _supervised(self, batch: Batch) -> dict[str, Tensor]:
        images, codes, coded = self._to_device(batch)
        known = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        known[coded] = True
        z, loss, losses = self.random.with_codes(codes), images.new_zeros(()), {}
        if self.reader:
            read, loss, losses = self._read(self.reader, images, codes, known)
            z = torch.where(known[:, None], z, read)
        w = self.g.mapping(z)
        self._track(w)
        made = self._fast_g(self.g.broadcast(w), "none", None, None, self.dtype)
        marks = self._marks(made, images)
        likeness = self._likeness(made, images, marks=marks)
        for name, here, rows in (("likeness", batch.coded, known), ("portraits", ~batch.coded, ~known)):
            if here.any():  # this flag is on the CPU, so reading it does not wait for the device
                losses[name] = (likeness.detach() * rows).sum() / here.sum()
        loss = loss + likeness.mean()
        if len(batch.pairs):
            pairs, s = torch.from_numpy(batch.pairs).to(images.device), self.settings.supervised
            change = objectives.change(made, images, pairs, s, marks).mean()
            loss, losses["change"] = loss + s.pairs * change, change.detach()
        self._apply("g", loss, self.g, *([("reader", self.reader)] if self.reader else []))
        return losses

    def _marks(self, made: Tensor, images: Tensor) -> objectives.Marks | None:
        return objectives.marks_of(made, images, self._mesh) if self._mesh is not None and len(made) else None

    def _read(
        self, reader: Reader, images: Tensor, codes: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """z [n, Z] inferred from images, the reader's own loss, and the parts of that loss."""
        s, size = self.settings.supervised, codes.shape[1]
        mean, variance = reader(images)
        noise = self.random.with_codes(torch.zeros_like(codes[:, :0]))
        z = mean + (variance / 2).exp() * noise
        z = torch.cat([z[:, :-1], -z[:, -1:].abs()], 1) if self.random.split else z
        wrong = ((mean[:, :size] - codes).square().mean(1) * known).sum() / len(images)
        apart = (divergence(mean, variance) * ~known).sum() / len(images)
        return z, s.read * wrong + s.prior * apart, {"read": wrong.detach(), "prior": apart.detach()}

    def _adversarial(self, batch: Batch) -> dict[str, Tensor]:
        s, losses = self.settings.adversarial, {}
        images, codes, coded = self._to_device(batch)
        if self.counters.adversarial >= s.wait_kimg * 1000:
            losses |= self._generator_step(images, codes, coded, batch.coded_in_all)
            if s.path_every and s.path and self.counters.step % s.path_every == 0:
                losses |= self._path_step()
        losses |= self._discriminator_step(images)
        if s.r1_every and s.r1 and self.counters.step % s.r1_every == 0:
            losses |= self._penalty_step(images)
        self._follow()
        return losses

    def _generator_step(self, images: Tensor, codes: Tensor, coded: Tensor, coded_in_all: int) -> dict[str, Tensor]:
        s = self.settings.adversarial
        w = self.g.mapping(self.random.latents(randomness.G))
        self._track(w)
        self.d.requires_grad_(False)
        fake = self._synthesize(self.random.mixed(w))
        loss = adversarial = objectives.generator_loss(self._judge(fake, randomness.FAKE)).mean()
        losses = {"generator": adversarial.detach()}
        if s.supervised and coded_in_all:
            codes, images = self.random.with_codes(codes)[coded], images[coded]
            made = self._synthesize(self.g.broadcast(self.g.mapping(codes))) if len(codes) else images
            likeness = (
                self._likeness(made, images, marks=self._marks(made, images)).sum() * self.team.size / coded_in_all
            )
            loss = loss + s.supervised * likeness
            losses["likeness"] = likeness.detach()
        self._apply("g", loss, self.g)
        self.d.requires_grad_(True)
        return losses

    def _path_step(self) -> dict[str, Tensor]:
        s, running = self.settings.adversarial, self.tensors["path"]
        z = self.random.latents(randomness.PATH)
        z = z[: max(1, len(z) // 2)]
        ws = self.g.mapping(z)[:, None].repeat(1, self.g.num_ws, 1)
        made = self.g(ws, s.noise, self.random.on_device(randomness.PATH), dtype=self.dtype)
        shape = (len(z) * self.team.size, *made.shape[1:])
        noise = torch.randn(shape, generator=self.random.on_device(randomness.NOISE, alike=True), device=self.device)
        lengths = objectives.path_lengths(made, ws, self.team.share(noise))
        running.lerp_(self.team.mean(lengths.mean()), s.path_decay)
        loss = (lengths - running).square().mean()
        self._apply("g", loss * s.path * s.path_every, self.g)
        return {"path": loss.detach(), "path_length": lengths.detach().mean()}

    def _discriminator_step(self, images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self._synthesize(self.random.mixed(self.g.mapping(self.random.latents(randomness.D))))
        on_fake, on_real = self._judge(fake, randomness.FAKE_D), self._judge(images, randomness.REAL)
        loss = objectives.discriminator_loss(on_real, on_fake).mean()
        self._apply("d", loss, self.d)
        signs = on_real.detach().sign()
        self.tensors["signs"] += torch.stack([signs.sum(), signs.new_tensor(float(len(signs)))])
        return {"discriminator": loss.detach(), "real": on_real.detach().mean(), "fake": on_fake.detach().mean()}

    def _penalty_step(self, images: Tensor) -> dict[str, Tensor]:
        s = self.settings.adversarial
        numbers, p = self.random.augmentation(randomness.R1), self.counters.probability
        penalty = objectives.gradient_penalty(
            lambda x: self.d(augment(x, numbers, p, s.augment), self.dtype), images
        ).mean()
        self._apply("d", penalty * (s.r1 / 2 * s.r1_every), self.d)
        return {"r1": penalty.detach()}

    def _follow(self) -> None:
        """Adjust the augmentations' probability by the share of real images that the discriminator recognises."""
        s = self.settings.adversarial
        if (self.counters.step + 1) % s.augment.every:
            return
        total, count = self.team.mean(self.tensors["signs"]).tolist()
        self.tensors["signs"].zero_()
        self.counters.mean_sign = total / max(count, 1)
        self.counters.probability = adjust(
            self.counters.probability, self.counters.mean_sign, s.batch * s.augment.every, s.augment
        )

    def _apply(self, name: str, loss: Tensor, net: nn.Module, *others: tuple[str, nn.Module]) -> None:
        """One optimiser step; a step whose gradient is not finite counts as skipped."""
        adams, nets = zip((self.adams[name], net), *((self.adams[other], net) for other, net in others))
        self.tensors["skipped"] += (~descend(loss, adams, nets, self.team)).float()

    @torch.no_grad()
    def _average(self) -> None:
        """Update the exponential average of the weights (arXiv 1710.10196). Its half-life grows as a phase begins."""
        train, phase = self.settings.train, self.counters.phase
        seen = getattr(self.counters, phase)
        half = min(train.ema_kimg * 1000, seen * train.ema_rampup)
        keep = 0.5 ** (getattr(self.settings, phase).batch / max(half, 1e-8))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.g.parameters()), 1 - keep)  # pyright: ignore[reportPrivateImportUsage]
        self.ema.mapping.w_avg.copy_(self.g.mapping.w_avg)

    @torch.no_grad()
    def _track(self, w: Tensor) -> None:
        self.g.mapping.w_avg.lerp_(self.team.mean(w.detach().mean(0)), 1 - W_AVERAGE)

    def _synthesize(self, ws: Tensor) -> Tensor:
        return self._fast_g(
            ws, self.settings.adversarial.noise, self.random.on_device(randomness.NOISE), None, self.dtype
        )

    def _judge(self, images: Tensor, purpose: int) -> Tensor:
        s = self.settings.adversarial
        seen = augment(images, self.random.augmentation(purpose), self.counters.probability, s.augment)
        return self._fast_d(seen, self.dtype)

    def _to_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Images [n, 3, H, W], codes [n, C], and bool [n], which rows have a code."""
        arrays = batch.images, batch.codes, np.flatnonzero(batch.coded)
        parts = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        if self.device.type == "cuda":
            parts = [part.pin_memory() for part in parts]
        images, codes, coded = (part.to(self.device, non_blocking=True) for part in parts)
        return to_tensor(images), codes, coded


def mean_of(rows: Iterable[dict[str, Tensor]]) -> dict[str, float]:
    """Mean of each loss over the steps that had it."""
    found: dict[str, list[Tensor]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: float(torch.stack(values).float().mean()) for name, values in found.items()}
