"""Train a base: supervised on codes first, then adversarially (StyleGAN2, arXiv 1912.04958; ADA, 2006.06676).

A run is a folder: ``checkpoint.json`` with its parts, the previous checkpoint, ``metrics.jsonl`` (an object a tick) and
``sheets/``. The same command resumes a stopped run, on a CPU to the same weights as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mystudio.base import checkpoint, rows
from mystudio.base.data import Mixture, Prefetcher
from mystudio.base.parallel import Team, joined
from mystudio.base.settings import BaseSettings
from mystudio.base.sheets import COLUMNS, latents_of, sheet_of_training, write_png
from mystudio.base.sources import ImageSource
from mystudio.base.trainer import PHASES, Trainer, mean_of
from mystudio.errors import BadArtifact, BadData, OutputFailed, TrainingDiverged
from mystudio.storage.locks import lock
from mystudio.storage.workspace import plain
from mystudio.stylegan2.growth import start_from
from mystudio.types import Progress, silent
from selfscan.face.facemesh import load_facemesh

MAX_ROLLBACKS = 5
SKIPS = 0.1  # a tick counts as diverged if more than this share of its updates was skipped
_ASK_EVERY = 8  # steps between two checks of the time limit in a run of several processes, which must agree
_SPARE = 3.0  # s reserved for stopping


@dataclass(frozen=True)
class TrainingSession:
    """Arguments of one call of ``train`` that are not settings of the run."""

    sources: Sequence[ImageSource]
    weights: Sequence[float] = ()
    start: Path | None = None  # base whose weights a new run starts from
    minutes: float = 0.0  # limit of wall time since ``began``, stopping included; 0 = no limit
    began: float | None = None  # time.monotonic() at the start of the limit; None = when train is called
    max_part_mb: float = 0.0  # largest file of a checkpoint, MiB; 0 = one file


def train(
    run: Path, settings: BaseSettings, session: TrainingSession, device: torch.device, progress: Progress = silent
) -> dict:
    """Start or resume a run, and train until its phases are done or the time limit is reached.

    Args:
        run: folder of the run. settings: of the run; an existing run keeps its model and seed.
        session: data, start, limits. progress: called with (phase, images so far, images of the phase).
    Returns: {"done": bool, "phase": str, "images": {...}, "rollbacks": int, "warnings": [...]}.
    Raises: BadData, BadArtifact, BadCheckpoint, OutputFailed, ArtifactBusy; TrainingDiverged after five roll-backs.
    """
    began = time.monotonic() if session.began is None else session.began
    with joined(device) as (team, device), lock(run) if _leads() else contextlib.nullcontext():
        _prepare(device)
        return _Run(run, settings, session, team, device, progress, began).go()


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _prepare(device: torch.device) -> None:
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")


class _Run:
    def __init__(
        self,
        run,
        settings: BaseSettings,
        session: TrainingSession,
        team: Team,
        device,
        progress: Progress,
        began: float,
    ):
        self.path, self.settings, self.session, self.team, self.progress = Path(run), settings, session, team, progress
        order = settings.train.mirror, settings.train.seed, settings.supervised.pairs > 0
        self.mixture = Mixture(session.sources, session.weights, *order)
        _check(settings, self.mixture, team)
        perceptual = None
        if settings.supervised.perceptual and self.mixture.code_size:
            from selfscan.perceptual.metric import load_perceptual

            perceptual = load_perceptual().to(device)
        mesh = load_facemesh(device=device) if settings.measures_faces and self.mixture.code_size else None
        self.trainer = Trainer(
            settings, device, team, self.mixture.code_size, self.mixture.coded_share, perceptual, mesh
        )
        self.device, self.ends = device, began + session.minutes * 60 if session.minutes else float("inf")
        self.save_seconds, self.step_seconds = 0.0, 0.0
        self._open()

    def go(self) -> dict:
        for phase in PHASES:
            total = int(getattr(self.settings, phase).kimg * 1000)
            if getattr(self.trainer.counters, phase) < total and not self._phase(phase, total):
                return self._report(done=False)
        self._save()
        return self._report(done=True)

    def _phase(self, phase: str, total: int) -> bool:
        """Train until the phase is done (True) or the time limit is reached (False)."""
        t = self.trainer
        if t.counters.phase != phase:
            t.enter(phase)
            self._save()  # a roll-back never returns to the phase before
        size = getattr(self.settings, phase).batch
        alone = phase == "supervised" and not self.settings.supervised.read
        mixture = self.mixture.coded_only() if alone else self.mixture
        prefetcher = Prefetcher(mixture, size, self.team.rank, self.team.size)
        tick = _Tick(t)
        try:
            while getattr(t.counters, phase) < total:
                if self._time_is_over():
                    self._save()
                    return False
                started = time.monotonic()
                tick.losses.append(t.step(prefetcher.batch(t.counters.step)))
                seen = getattr(t.counters, phase)
                self.progress(phase, seen, total)
                if seen // self._tick_images == (seen - size) // self._tick_images and seen < total:
                    self.step_seconds = max(self.step_seconds * 0.9, time.monotonic() - started)
                    continue
                tick = self._end_tick(tick, phase)
            return True
        finally:
            prefetcher.close()

    @property
    def _tick_images(self) -> int:
        return max(1, int(self.settings.train.tick_kimg * 1000))

    def _end_tick(self, tick: _Tick, phase: str) -> _Tick:
        t, train = self.trainer, self.settings.train
        skipped = float(t.tensors["skipped"])
        t.tensors["skipped"].zero_()
        if skipped > SKIPS * len(tick.losses) or not t.finite():
            self._roll_back()
            return _Tick(t)
        seen = getattr(t.counters, phase)
        number = seen // self._tick_images
        try:
            if self.team.rank == 0:
                rows.append(self.path, tick.row(phase, seen, skipped))
            if train.sheet_every and number % train.sheet_every == 0:
                self._sheet(phase, seen)
        except OSError as error:
            raise OutputFailed(
                f"could not write to {self.path}: {error.strerror}; free space and run the same command "
                "again, it resumes from its last checkpoint"
            ) from error
        if number % train.save_every == 0:
            self._save()
        return _Tick(t)

    def _time_is_over(self) -> bool:
        t = self.trainer
        if self.ends == float("inf") or (self.team.size > 1 and t.counters.step % _ASK_EVERY):
            return False
        steps = 2 * (_ASK_EVERY if self.team.size > 1 else 1)
        left = self.ends - time.monotonic()
        return self.team.any(left < steps * self.step_seconds + 1.5 * self.save_seconds + _SPARE, self.device)

    def _open(self) -> None:
        if checkpoint.is_begun(self.path):
            self._resume()
            return
        if not checkpoint.is_free(self.path):
            raise BadArtifact(f"{self.path} holds other files, expected a free name or a training run; choose another")
        if self.session.start:
            from mystudio.stylegan2.checkpoint import load_generator

            start_from(self.trainer.g, load_generator(self.session.start))
            self.trainer.ema.load_state_dict(self.trainer.g.state_dict())
        self.team.wait()  # no process may write a checkpoint before all have looked for one
        self._save()

    def _resume(self) -> None:
        started = time.monotonic()
        tensors, facts = checkpoint.load(self.path)
        self.save_seconds = 2 * (time.monotonic() - started)  # an estimate until the first checkpoint is written
        for key, mine in (("model", plain(self.settings.model)), ("seed", self.settings.train.seed)):
            theirs = facts["settings"]["model"] if key == "model" else facts["settings"]["train"]["seed"]
            if mine != theirs:
                raise BadArtifact(
                    f"{self.path} was begun with {key} {theirs}, got {mine}; give the same, or another "
                    "name for a new run"
                )
        self.trainer.restore(tensors, facts["counters"])
        self.team.wait()
        if self.team.rank == 0:
            rows.forget_after(self.path, facts["counters"]["step"])

    def _roll_back(self) -> None:
        """Return to the checkpoint and halve the learning rates."""
        counters = self.trainer.counters
        if counters.rollbacks >= MAX_ROLLBACKS:
            raise TrainingDiverged(
                f"training gave non-finite values after {MAX_ROLLBACKS} roll-backs, even at "
                f"1/{2**MAX_ROLLBACKS} of the step sizes; lower the rates of the recipe"
            )
        scale, rollbacks = counters.rate_scale / 2, counters.rollbacks + 1
        self.team.wait()
        tensors, facts = checkpoint.load(self.path)
        self.trainer.restore(tensors, facts["counters"] | {"rate_scale": scale, "rollbacks": rollbacks})
        self.trainer.tensors["skipped"].zero_()
        if not facts["counters"]["phase"]:
            self.trainer.enter(counters.phase)
        self.team.wait()
        if self.team.rank == 0:
            rows.forget_after(self.path, facts["counters"]["step"])

    def _save(self) -> None:
        started = time.monotonic()
        if self.team.rank == 0:
            tensors, counters = self.trainer.state()
            facts = {
                "settings": plain(self.settings),
                "counters": counters,
                "code_size": self.mixture.code_size,
                "data": [
                    [s.name, len(s), round(float(share), 6)]
                    for s, share in zip(self.mixture.sources, self.mixture.shares)
                ],
            }
            checkpoint.save(self.path, tensors, facts, self.session.max_part_mb)
        self.team.wait()
        self.save_seconds = max(self.save_seconds, time.monotonic() - started)

    def _sheet(self, phase: str, seen: int) -> None:
        if self.team.rank:
            return
        truth = codes = None
        if self.mixture.code_size:
            batch = self.mixture.coded_only().batch(0, COLUMNS)
            truth, codes = batch.images, latents_of(torch.from_numpy(batch.codes), self.settings.model.z_dim)
        sheet = sheet_of_training(self.trainer.ema, truth, codes, self.settings.train.seed)
        write_png(self.path / "sheets" / f"{phase}-{seen // 1000:06d}k.png", sheet)

    def _report(self, done: bool) -> dict:
        counters = self.trainer.counters
        return {
            "done": done,
            "phase": counters.phase,
            "rollbacks": counters.rollbacks,
            "steps": counters.step,
            "images": {p: getattr(counters, p) for p in PHASES},
            "warnings": self.trainer.warnings,
        }


class _Tick:
    """Values collected between two rows of metrics."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.losses, self.started = trainer, [], time.monotonic()

    def row(self, phase: str, seen: int, skipped: float) -> dict:
        losses = mean_of(self.losses)  # waits for the device
        seconds = time.monotonic() - self.started
        counters, batch = self.trainer.counters, getattr(self.trainer.settings, phase).batch
        row = {
            "phase": phase,
            "step": counters.step,
            "images": seen,
            "seconds": round(seconds, 3),
            "images_per_s": round(len(self.losses) * batch / max(seconds, 1e-9), 2),
            "losses": losses,
        }
        if phase == "adversarial":
            row |= {"r_t": counters.mean_sign, "p": counters.probability}
        return row | {
            "skipped": int(skipped),
            "rollbacks": counters.rollbacks,
            "rate_scale": counters.rate_scale,
            "time": round(time.time(), 3),
        }


def _check(settings: BaseSettings, mixture: Mixture, team: Team) -> None:
    if mixture.code_size > settings.model.z_dim:
        raise BadData(
            f"expected codes of at most {settings.model.z_dim} numbers, got {mixture.code_size}; set model.z_dim higher"
        )
    if settings.supervised.kimg:
        mixture.coded_only()
    for phase in PHASES:
        if getattr(settings, phase).batch % team.size:
            raise BadData(
                f"expected a batch that {team.size} processes can share evenly, got "
                f"{getattr(settings, phase).batch}; set {phase}.batch to a multiple"
            )
