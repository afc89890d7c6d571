"""The training of ``hyper``: appearance and pose networks, then inversion, self- and cross-reenactment."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mystudio.base.encoder import encoder_of
from mystudio.base.sheets import tile
from mystudio.bases import Base
from mystudio.engines.hyper import losses
from mystudio.engines.hyper.arcface import load_arcface
from mystudio.engines.hyper.nuisance import nuisance
from mystudio.engines.hyper.settings import TrainSettings
from mystudio.engines.hyper.weights import new_networks
from mystudio.motion.losses import landmarks as shape
from mystudio.oneshot.data import Batch, Faces, Kind, Pool
from mystudio.oneshot.loop import Phase
from mystudio.oneshot.trainee import Networks
from mystudio.stylegan2.generator import Generator
from mystudio.types import Styles
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.pixels import to_uint8
from selfscan.perceptual.metric import load_perceptual
from selfscan.types import Array

KINDS: dict[str, Kind] = {"inversion": "same", "self": "self", "cross": "cross"}  # phase -> what its batches are
COLUMNS = 6  # of a sheet
MOTION_GAIN = 20.0  # of relative motion in the pose network's lesson, about unit variance


class Training:
    """A ``oneshot.loop.Trainee``.

    Args: base: with an encoder; it stays as it is. pool: of the base's resolution. device: of all networks.
    """

    def __init__(self, base: Base, pool: Pool, settings: TrainSettings, device: torch.device):
        self.base, self.pool, self._settings, self.device = base, pool, settings, device
        self.generator = _copy(base, device)
        encoder, _ = encoder_of(base)
        self.encoder = encoder.to(device)
        model, seed = settings.model, settings.run.seed
        self.hyper = new_networks(model, base.generator, seed)
        if model.appearance == "arcface":
            self.hyper.appearance = load_arcface(Path(settings.faces.arcface))
        self.hyper.to(device)
        people = torch.randn(pool.people, model.identity, generator=torch.Generator().manual_seed(seed))
        self._people = _Rows(people).to(device)
        named = {"appearance": self.hyper.appearance, "pose": self.hyper.pose, "reenactor": self.hyper.reenactor}
        self.nets = Networks({**named, "people": self._people})
        self._mesh, self._perceptual = load_facemesh(device=device), load_perceptual().to(device)
        self.phase = ""

    @property
    def phases(self) -> Mapping[str, Phase]:
        """See ``Trainee``."""
        f, c = self._settings.faces, self._settings.curriculum
        return {
            "appearance": Phase(f.appearance_kimg if self._settings.model.appearance == "own" else 0.0, f.batch),
            "pose": Phase(f.pose_kimg, f.batch),
            "inversion": Phase(c.inversion_kimg, c.batch),
            "self": Phase(c.self_kimg, c.batch),
            "cross": Phase(c.cross_kimg, c.batch),
        }

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``Trainee``."""
        return {
            "engine": "hyper",
            "base": self.base.digest,
            "model": asdict(self._settings.model),
            "seed": self._settings.run.seed,
            "people": self.pool.people,
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        """See ``Trainee``."""
        return asdict(self._settings)

    def enter(self, phase: str) -> None:
        """See ``Trainee``."""
        self.phase, f, c = phase, self._settings.faces, self._settings.curriculum
        rates = {"appearance": {"appearance": f.rate, "people": 10 * f.rate}, "pose": {"pose": f.rate}}
        self.nets.train(rates.get(phase, {"reenactor": c.rate}), (0.9, 0.999))

    def step(self, phase: str, number: int, rate: float) -> dict[str, Tensor]:
        """See ``Trainee``."""
        lesson = {"appearance": self._appearance, "pose": self._pose}.get(phase, self._reenact)
        terms = lesson(phase, number)
        self.nets.descend(torch.stack([weight * value for weight, value in terms.values()]).sum(), rate)
        return {name: value.detach() for name, (_, value) in terms.items()}

    def state(self) -> dict[str, Tensor]:
        """See ``Trainee``."""
        return self.nets.state()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See ``Trainee``."""
        self.nets.restore(tensors)

    def finite(self) -> bool:
        """See ``Trainee``."""
        return self.nets.finite()

    def _appearance(self, phase: str, number: int) -> dict[str, tuple[float, Tensor]]:
        """People are told apart in pictures with changed light, camera, clothes and background."""
        s = self._settings.faces
        batch = self.pool.batch("same", number, s.batch, self.device)
        draw = torch.Generator().manual_seed(_seed(self._settings.run.seed, number))
        images = nuisance(batch.source.images, batch.source.landmarks, draw)
        embedded = self.hyper.appearance.embed(images)
        return {"margin": (1.0, losses.margin(embedded, self._people.rows, batch.person, s.scale, s.angle).mean())}

    def _pose(self, phase: str, number: int) -> dict[str, tuple[float, Tensor]]:
        """Expression and pose of actors, and everybody's keypoints, are read off the map."""
        s = self._settings.faces
        batch = self.pool.batch("same", number, s.batch, self.device)
        motion, played = batch.driver.motion, batch.played.float()
        found, share = self.hyper.pose.read(motion), played / played.sum().clamp_min(1)
        return {
            "expression": (1.0, ((found.expression - batch.expression).square().sum(1) * share).sum()),
            "pose": (1.0, ((found.pose - batch.pose).square().sum(1) * share).sum()),
            "points": (s.points, (found.points - MOTION_GAIN * motion).square().mean()),
        }

    def _reenact(self, phase: str, number: int) -> dict[str, tuple[float, Tensor]]:
        """The paper's losses, also for cross pairs, against the true frame; without one, identity and gaze alone."""
        s = self._settings.curriculum
        batch = self.pool.batch(KINDS[phase], number, s.batch, self.device)
        made = self.draw(batch)
        exact = batch.exact.float()
        marks, _ = crop_landmarks(self._mesh, made)
        looking = torch.where(batch.exact[:, None, None], batch.truth.landmarks, batch.driver.landmarks)
        embed = self.hyper.appearance.embed
        with torch.no_grad():
            wanted = embed(batch.truth.images)
        terms = {
            "pixels": (s.pixels, (losses.pixels(made, batch.truth.images) * exact).mean()),
            "lpips": (s.lpips, (self._perceptual.distance(made, batch.truth.images) * exact).mean()),
            "identity": (s.identity, losses.identity(embed(made), wanted).mean()),
            "shape": (s.shape, (shape(marks, batch.truth.landmarks) * exact).mean()),
            "gaze": (s.gaze, losses.gaze(marks, looking).mean()),
        }
        return {name: term for name, term in terms.items() if term[0]}

    def draw(self, batch: Batch) -> Tensor:
        """The sources in the drivers' motions, [n, 3, R, R]."""
        nets = self.hyper
        with torch.no_grad():
            look, pose = nets.appearance(batch.source.images), nets.pose(batch.driver.motion)
        deltas = nets.reenactor.deltas(nets.reenactor.features(look, pose))
        vectors = self._start(batch.source, batch.driver).vectors
        return self.generator.synthesize(Styles(vectors, deltas))

    @torch.no_grad()
    def baseline(self, batch: Batch) -> Tensor:
        """Baseline 0 of a batch, [n, 3, R, R]: the base at the encoder's w, drawn one by one."""
        styles = self._start(batch.source, batch.driver)
        rows = [Styles(tuple(v[k : k + 1] for v in styles.vectors)) for k in range(len(batch.exact))]
        return torch.cat([self.generator.synthesize(row) for row in rows])

    def _start(self, source: Faces, driver: Faces) -> Styles:
        moved = driver if self._settings.model.start == "driver" else source
        with torch.no_grad():
            return self.generator.styles(self.generator.broadcast(self.encoder(source.appearance, moved.motion)))

    @torch.no_grad()
    def sheet(self) -> Array | None:
        """Held-out people: sources, drivers, baseline 0, what is drawn now, true frames."""
        if self.phase not in KINDS:
            return None
        batch = self.pool.batch("cross", 0, COLUMNS, self.device, held_out=True)
        rows = batch.source.images, batch.driver.images, self.baseline(batch), self.draw(batch), batch.truth.images
        return tile([to_uint8(images.clamp(-1, 1)) for images in rows])


class _Rows(nn.Module):
    """A table of vectors [P, E]: a direction for each person."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = nn.Parameter(rows)


def _copy(base: Base, device: torch.device) -> Generator:
    return copy.deepcopy(base.generator).requires_grad_(False).to(device)


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])
