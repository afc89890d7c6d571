"""What is trained, step by step (``mystudio.oneshot.loop.Trainee``): three stages of one network."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from mystudio.base.objectives import discriminator_loss
from mystudio.base.sheets import tile
from mystudio.bases import Base
from mystudio.engines.hybrid import losses, samples, stages
from mystudio.engines.hybrid.losses import Critic
from mystudio.engines.hybrid.network import Hybrid
from mystudio.engines.hybrid.settings import TrainSettings
from mystudio.engines.hybrid.signals import signal, without_pixels
from mystudio.errors import BadData
from mystudio.motion.retarget import frontal, relative_motion
from mystudio.oneshot.data import Faces, Kind, Pool
from mystudio.oneshot.loop import Phase
from mystudio.oneshot.trainee import Networks
from selfscan.face import patches
from selfscan.face.facemesh import load_facemesh
from selfscan.io.pixels import to_uint8
from selfscan.types import Array

NAME = "hybrid"
LATENTS, FRAMES, PORTRAITS = "latents", "frames", "portraits"
COLUMNS = 6  # of a sheet
#: how rows of a stage are drawn, in turn
KINDS: Mapping[str, tuple[Kind, ...]] = {FRAMES: ("cross", "self"), PORTRAITS: ("cross", "same", "self")}


class HybridTraining:
    """The network, the critic of W, and their optimisers.

    Args:
        base: whose generator is driven; it stays frozen. pool: the data; None if the first stage alone is trained.
        settings: of the recipe. start: a network to begin with, such as one with e4e's encoder; None = a new one.
    Raises: BadData: a stage needs data, or a layout of z, that is not there.
    """

    def __init__(
        self,
        base: Base,
        pool: Pool | None,
        settings: TrainSettings,
        device: torch.device = torch.device("cpu"),
        start: Hybrid | None = None,
    ):
        self._base, self._of, self._device = base, settings, device
        self.generator = copy.deepcopy(base.generator).requires_grad_(False).to(device)
        self.phases = _phases(settings)
        self._factors = samples.factors_of(base.info)
        self._check(pool)
        actors = copy.copy(pool)
        if actors is not None:
            actors.share = 0.0
        self._pools = {PORTRAITS: pool, FRAMES: actors}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.stages.seed)
            net = start or Hybrid(base.generator, settings.model)
            critic = Critic(base.generator.w_dim)
        if start is None:
            net.measure(base.generator)
        critic.mean.copy_(net.mean[0])
        critic.spread.copy_(net.spread[0])
        self.net, self.critic = net.to(device), critic.to(device)
        self._nets, self._critics = Networks({NAME: self.net}), Networks({"critic": self.critic})
        self._mesh = load_facemesh(device=device)
        self._judges: stages.Judges | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``Trainee``."""
        model = json.loads(json.dumps(asdict(self.net.settings)))  # as a checkpoint stores it
        return {"engine": NAME, "base": self._base.digest, "model": model, "seed": self._of.stages.seed}

    @property
    def settings(self) -> Mapping[str, Any]:
        """See ``Trainee``."""
        return asdict(self._of)

    def enter(self, phase: str) -> None:
        """See ``Trainee``."""
        s = self._of
        self._nets.train({NAME: s.stages.rate if phase == LATENTS else s.stages.later_rate})
        self._critics.train({"critic": s.losses.critic_rate}, (0.0, 0.99))
        if phase != LATENTS and self._judges is None:
            self._judges = stages.Judges(s.losses, self._mesh, self._device)

    def step(self, phase: str, number: int, rate: float) -> dict[str, Tensor]:
        """See ``Trainee``."""
        self.net.train()
        if phase == LATENTS:
            terms, codes = self._latents(number), None
        else:
            terms, codes = self._frames(phase, number)
        self._nets.descend(stages.weighted(terms, self._of.losses), rate)
        told = {name: value.detach().mean() for name, value in terms.items()}
        if codes is not None and self._of.losses.critic:
            told["critic_own"] = self._criticise(codes.detach().flatten(0, 1), number, rate)
        return told

    def state(self) -> dict[str, Tensor]:
        """See ``Trainee``."""
        return self._nets.state() | self._critics.state()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See ``Trainee``."""
        self._nets.restore(tensors)
        self._critics.restore(tensors)

    def finite(self) -> bool:
        """See ``Trainee``."""
        return self._nets.finite() and self._critics.finite()

    @torch.no_grad()
    def sheet(self) -> Array | None:
        """Held-out people: sources, drivers, what is drawn, and the neutral faces that the identity codes draw alone.

        Without data the base's own samples are shown, with the true frame in place of the driver.
        """
        self.net.eval()
        pool = self._pools[PORTRAITS]
        if pool is None:
            assert self._factors
            rows = samples.draw(self.generator, self._mesh, self._factors, COLUMNS, self._of.stages.seed)
            images, drive = rows.images, rows.signals
            second = self.generator(self.generator.broadcast(rows.driven))
        else:
            batch = pool.batch("cross", 0, COLUMNS, self._device, held_out=True)
            images, second = batch.source.images, batch.driver.images
            drive = _signals(batch.driver, ~batch.played)
        source = self.net.identify(images)
        made = self.generator.synthesize(self.net.styles(self.generator, source, self.net.deformation.read(drive)))
        still = self.generator.synthesize(self.generator.styles(source.codes))
        return tile([to_uint8(x.clamp(-1, 1)) for x in (images, second, made, still)])

    def _check(self, pool: Pool | None) -> None:
        if pool is None and any(self.phases[name].images for name in (FRAMES, PORTRAITS)):
            raise BadData(
                "expected data for the stages frames and portraits, got none; draw groups with `mystudio actors "
                "dataset DIR --grid 4x4`, or set stages.frames and stages.portraits to 0"
            )
        if self._factors is None and self.phases[LATENTS].images:
            raise BadData(
                f"expected a base that says which numbers of z are motion, {self._base.name} does not; set "
                "stages.latents to 0, so that training starts with true frames"
            )

    def _seed(self, number: int) -> int:
        return self._of.stages.seed * 10_000_019 + number

    def _latents(self, number: int) -> stages.Terms:
        assert self._factors
        count = self.phases[LATENTS].batch
        rows = samples.draw(self.generator, self._mesh, self._factors, count, self._seed(number) + 1)
        self._remember(rows.signals, number)
        return stages.latent_terms(self.net, self.generator, rows, self._blinded(rows.signals, number))

    def _frames(self, phase: str, number: int) -> tuple[stages.Terms, Tensor]:
        pool, kinds = self._pools[phase], KINDS[phase]
        assert pool is not None and self._judges is not None
        batch = pool.batch(kinds[number % len(kinds)], number, self.phases[phase].batch, self._device)
        own, drive = _signals(batch.source, ~batch.exact | ~batch.played), _signals(batch.driver, ~batch.played)
        rows = stages.Rows(
            batch.source.images,
            own,
            self._blinded(drive, number),
            batch.truth.images,
            batch.truth.landmarks,
            batch.exact,
        )
        self._remember(drive, number)
        active = None if phase == PORTRAITS else 1 + self._since(number) // max(1, self._of.stages.grow)
        terms, source = stages.frame_terms(self.net, self.generator, self.critic, self._judges, rows, active)
        return terms, source.codes

    def _since(self, number: int) -> int:
        """Steps since the second stage began."""
        first = self.phases[LATENTS]
        return max(0, number - -(-first.images // first.batch))

    def _criticise(self, codes: Tensor, number: int, rate: float) -> Tensor:
        """One step of the critic, after the network's; returns its loss []."""
        s, draw = self._of.losses, torch.Generator().manual_seed(self._seed(number) + 2)
        with torch.no_grad():
            z = torch.randn(len(codes), self.generator.z_dim, generator=draw).to(codes)
            true = self.generator.mapping(z)
        loss = total = discriminator_loss(self.critic(true), self.critic(codes)).mean()
        if s.r1 and number % s.r1_every == 0:
            total = total + s.r1 / 2 * s.r1_every * losses.slope_penalty(self.critic, true).mean()
        self._critics.descend(total, rate)
        return loss.detach()

    @torch.no_grad()
    def _remember(self, signals: Tensor, number: int) -> None:
        self.net.deformation.remember(self.net.deformation.read(signals), number)

    def _blinded(self, signals: Tensor, number: int) -> Tensor:
        """Signals of which some have no pixels."""
        draw = torch.Generator().manual_seed(self._seed(number) + 3)
        hidden = torch.rand(len(signals), generator=draw) < self._of.stages.blind
        return without_pixels(signals, hidden.to(signals.device))


def _signals(faces: Faces, portrait: Tensor) -> Tensor:
    """Signals [N, SIZE]; rows ``portrait`` [N] are photos, whose own face turned to the camera counts as neutral.

    That is what an avatar from one photo takes for the neutral face, too.
    """
    motion = faces.motion.clone()
    for k in portrait.nonzero()[:, 0].tolist():
        marks = faces.landmarks[k]
        motion[k] = relative_motion(marks, frontal(marks.cpu()).to(marks))
    return signal(motion, *patches.mouth_and_irises(faces.images, faces.landmarks))


def _phases(settings: TrainSettings) -> dict[str, Phase]:
    s = settings.stages
    return {name: Phase(getattr(s, name), s.batch) for name in (LATENTS, FRAMES, PORTRAITS)}
