"""A training run of a one-shot engine: phases in order, checkpoints, metrics, sheets, resuming, going back after NaN.

A run is a folder like one of ``base train``: ``checkpoint.json`` with its parts, ``metrics.jsonl``, ``sheets/``. The
same command resumes a stopped run, on a CPU to the same weights as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mystudio.base import checkpoint, rows
from mystudio.base.sheets import write_png
from mystudio.base.trainer import mean_of
from mystudio.errors import BadArtifact, OutputFailed, TrainingDiverged
from mystudio.storage.locks import lock
from mystudio.types import Progress, silent

KIND = "oneshot-training"
MAX_ROLLBACKS = 5
_SPARE = 2.0  # s reserved for stopping
LAST_RATE = 0.05  # learning rate at a phase's end, as a share of its first one; cosine between


@dataclass(frozen=True)
class Phase:
    """A phase's length and steps."""

    kimg: float  # thousand images; 0 = the phase is skipped
    batch: int  # images a step

    @property
    def images(self) -> int:
        """Its length in images."""
        return int(1000 * self.kimg)


@dataclass(frozen=True)
class LoopSettings:
    """How often a run looks up from its steps."""

    tick_kimg: float = 1.0  # thousand images between two rows of metrics.jsonl and two checks for finite weights
    sheet_every: int = 5  # ticks between two sheets of held-out people; 0 = none
    save_every: int = 5  # ticks between two checkpoints


@dataclass(frozen=True)
class Limits:
    """How long one call trains."""

    minutes: float = 0.0  # of wall time since ``began``; 0 = no limit
    began: float | None = None  # time.monotonic() at the start of the limit; None = when ``train`` is called


class Trainee(Protocol):
    """What is trained: networks with optimisers."""

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The phases in their order."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that a resumed run must share: engine, base, sizes of networks, seed."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings as JSON values."""
        ...

    def enter(self, phase: str) -> None:
        """Begin a phase with new optimisers."""
        ...

    def step(self, phase: str, number: int, rate: float) -> dict[str, Tensor]:
        """One step; returns losses by name. Args: number: of the step in the run. rate: factor on learning rates."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Weights and optimisers by name."""
        ...

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Load a state, after ``enter`` of its phase."""
        ...

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        ...

    def sheet(self) -> np.ndarray | None:
        """Held-out people as they are drawn now [H, W, 3] uint8 RGB; None if there is nothing to see in the phase."""
        ...


@dataclass
class Counters:
    """Progress of a run."""

    step: int = 0  # of all phases together
    phase: str = ""
    seen: int = 0  # images of the phase
    finished: tuple[str, ...] = ()  # phases
    rate_scale: float = 1.0
    rollbacks: int = 0


def train(
    run: Path, trainee: Trainee, settings: LoopSettings, limits: Limits = Limits(), progress: Progress = silent
) -> dict[str, Any]:
    """Start or resume a run, and train until its phases are done or the time limit is reached.

    Args: progress: called with (phase, images so far, images of the phase).
    Returns: {"done": bool, "phase": str, "steps": int, "rollbacks": int}.
    Raises: BadArtifact: the folder holds something else, or a run of other data or sizes. BadCheckpoint, OutputFailed,
        ArtifactBusy; TrainingDiverged after five roll-backs.
    """
    began = time.monotonic() if limits.began is None else limits.began
    ends = began + 60 * limits.minutes if limits.minutes else math.inf
    with lock(run):
        return _Run(Path(run), trainee, settings, ends, progress).go()


def stored(run: Path) -> dict[str, Any]:
    """The facts of a run: identity, settings, counters. Raises BadCheckpoint."""
    return checkpoint.load_facts(run, KIND)


def weights(run: Path) -> dict[str, Tensor]:
    """The weights of a run, by the trainee's names. Raises BadCheckpoint."""
    return checkpoint.load(run, KIND)[0]


class _Run:
    def __init__(self, path: Path, trainee: Trainee, settings: LoopSettings, ends: float, progress: Progress):
        self.path, self.trainee, self.settings = path, trainee, settings
        self.ends, self.progress, self.counters = ends, progress, Counters()
        self.step_seconds = self.save_seconds = 0.0
        if checkpoint.is_begun(path):
            self._return()
        elif not checkpoint.is_free(path):
            raise BadArtifact(f"{path} holds other files, expected a free name or a training run; choose another")

    def go(self) -> dict[str, Any]:
        for name, phase in self.trainee.phases.items():
            if name in self.counters.finished or not phase.images:
                continue
            if self.counters.phase != name:
                self.counters.phase, self.counters.seen = name, 0
                self.trainee.enter(name)
                self._save()  # a roll-back never returns to the phase before
            if not self._phase(name, phase):
                return self._report(done=False)
            self.counters.finished += (name,)
        self._save()
        return self._report(done=True)

    def _phase(self, name: str, phase: Phase) -> bool:
        """Train until the phase is done (True) or the time limit is reached (False)."""
        losses, started, every = [], time.monotonic(), max(1, int(1000 * self.settings.tick_kimg))
        while self.counters.seen < phase.images:
            now = time.monotonic()
            if now + 2 * self.step_seconds + 1.5 * self.save_seconds + _SPARE > self.ends:
                self._save()
                return False
            share = 0.5 * (1 + math.cos(math.pi * self.counters.seen / phase.images))
            rate = (LAST_RATE + (1 - LAST_RATE) * share) * self.counters.rate_scale
            losses.append(self.trainee.step(name, self.counters.step, rate))
            self.counters.step += 1
            before, self.counters.seen = self.counters.seen, self.counters.seen + phase.batch
            self.progress(name, min(self.counters.seen, phase.images), phase.images)
            self.step_seconds = max(0.9 * self.step_seconds, time.monotonic() - now)
            if self.counters.seen // every > before // every or self.counters.seen >= phase.images:
                self._tick(losses, time.monotonic() - started, self.counters.seen // every)
                losses, started = [], time.monotonic()
        return True

    def _tick(self, losses: list[dict[str, Tensor]], seconds: float, number: int) -> None:
        if not self.trainee.finite():
            self._roll_back()
            return
        row = asdict(self.counters) | {"losses": mean_of(losses), "seconds": round(seconds, 3)}
        try:
            rows.append(self.path, row | {"time": round(time.time(), 3)})
            sheet = None
            if self.settings.sheet_every and number % self.settings.sheet_every == 0:
                sheet = self.trainee.sheet()
            if sheet is not None:
                write_png(self.path / "sheets" / f"{self.counters.phase}-{self.counters.seen:07d}.png", sheet)
        except OSError as error:
            raise OutputFailed(
                f"could not write to {self.path}: {error.strerror}; free space and run the same command again, it "
                "resumes from its last checkpoint"
            ) from error
        if number % max(1, self.settings.save_every) == 0:
            self._save()

    def _roll_back(self) -> None:
        """Return to the checkpoint and halve the learning rates."""
        scale, rollbacks = self.counters.rate_scale / 2, self.counters.rollbacks + 1
        if rollbacks > MAX_ROLLBACKS:
            raise TrainingDiverged(
                f"training gave non-finite values after {MAX_ROLLBACKS} roll-backs, even at 1/{2**MAX_ROLLBACKS} of "
                "the step sizes; lower the rates of the recipe"
            )
        self._return()
        self.counters.rate_scale, self.counters.rollbacks = scale, rollbacks

    def _return(self) -> None:
        """Load the checkpoint."""
        tensors, facts = checkpoint.load(self.path, KIND)
        ours, theirs = dict(self.trainee.identity), facts["identity"]
        different = [name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)]
        if different:
            raise BadArtifact(
                f"{self.path} was begun with another {', '.join(sorted(different))}; give the same recipe, base and "
                "engine, or another name for a new run"
            )
        self.counters = Counters(**facts["counters"] | {"finished": tuple(facts["counters"]["finished"])})
        if self.counters.phase:
            self.trainee.enter(self.counters.phase)
        self.trainee.restore(tensors)
        rows.forget_after(self.path, self.counters.step)

    def _save(self) -> None:
        started = time.monotonic()
        facts = {"counters": asdict(self.counters)}
        facts |= {"settings": dict(self.trainee.settings), "identity": dict(self.trainee.identity)}
        checkpoint.save(self.path, self.trainee.state(), facts, kind=KIND)
        self.save_seconds = max(self.save_seconds, time.monotonic() - started)

    def _report(self, done: bool) -> dict[str, Any]:
        c = self.counters
        return {"done": done, "phase": c.phase, "images": c.seen, "steps": c.step, "rollbacks": c.rollbacks}
