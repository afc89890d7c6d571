"""``mystudio engines train hyper`` and ``install``: a run of the training, and its weights beside the base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mystudio.bases import Base
from mystudio.engines.hyper.settings import TrainSettings
from mystudio.engines.hyper.training import Training
from mystudio.engines.hyper.weights import KIND, Networks, model_of, read_weights, restored, write_weights
from mystudio.errors import BadArtifact, BadCheckpoint, OutputFailed
from mystudio.oneshot import loop
from mystudio.oneshot.data import open_pool
from mystudio.oneshot.loop import Limits, LoopSettings
from mystudio.oneshot.trainee import part_of
from mystudio.types import Progress, silent


def train(
    run: Path,
    base: Base,
    data: Sequence[Path],
    settings: TrainSettings,
    limits: Limits = Limits(),
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Start or resume a run; see ``engines.protocol.Trains``."""
    device, s = torch.device(device), settings.run
    pool = open_pool(data, base, s.portraits, s.seed, device, progress)
    training = Training(base, pool, settings, device)
    return loop.train(run, training, LoopSettings(s.tick_kimg, s.sheet_every, s.save_every), limits, progress)


def install(source: Path, base: Base) -> Path:
    """Put the weights of a run, or of a file of weights, beside the base; older ones are replaced.

    Returns: the file. Raises: BadCheckpoint, BadArtifact: it is neither, or of another base. OutputFailed.
    """
    nets = _of_run(source, base) if source.is_dir() else read_weights(source, base)
    path = base.companion_path(KIND)
    try:
        write_weights(nets, path, base.digest)
    except OSError as error:
        raise OutputFailed(
            f"could not write {path}: {error.strerror}; copy the base to a folder of your own and name its file"
        ) from error
    return path


def _of_run(run: Path, base: Base) -> Networks:
    identity = loop.stored(run)["identity"]
    if identity.get("engine") != KIND or identity.get("base") != base.digest:
        raise BadArtifact(
            f"expected a run of the engine {KIND} for the base {base.name}, {run} is one of "
            f"{identity.get('engine')!r} or for another base; give --base"
        )
    tensors = loop.weights(run)
    state = {
        f"{name}.{key}": value
        for name in ("appearance", "pose", "reenactor")
        for key, value in part_of(tensors, name).items()
    }
    try:
        return restored(model_of(identity["model"]), base.generator, state)
    except (ValueError, RuntimeError) as error:
        raise BadCheckpoint(f"expected a whole run of the engine {KIND} in {run}; copy it again") from error
