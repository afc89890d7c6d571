"""Training runs of the engine, and their weights beside the base."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mystudio.base import checkpoint
from mystudio.bases import Base
from mystudio.engines.hybrid.e4e import load_e4e
from mystudio.engines.hybrid.network import Hybrid
from mystudio.engines.hybrid.settings import TrainSettings
from mystudio.engines.hybrid.training import NAME, HybridTraining
from mystudio.engines.hybrid.weights import KIND, load_weights, model_from, to_bytes
from mystudio.errors import BadArtifact, BadCheckpoint, OutputFailed
from mystudio.oneshot import loop
from mystudio.oneshot.data import open_pool
from mystudio.oneshot.loop import Limits
from mystudio.oneshot.trainee import part_of
from mystudio.types import Progress, silent
from selfscan.io.naming import derived


def train(
    run: Path,
    base: Base,
    data: Sequence[Path],
    settings: TrainSettings,
    limits: Limits = Limits(),
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Start a training run, or resume a stopped one; on a CPU it ends in the same weights.

    Args:
        run: its folder. base: the generator that is driven; it is not changed. data: folders of groups of actors, and
            of portraits; the first stage needs none.
    Returns: as ``oneshot.loop.train``. Raises: as it, and BadData.
    """
    device, s = torch.device(device), settings.stages
    start = load_e4e(Path(s.e4e), base.generator, settings.model) if s.e4e else None
    pool = open_pool(data, base, s.share, s.seed, device, progress) if data else None
    trainee = HybridTraining(base, pool, settings, device, start)
    return loop.train(run, trainee, settings.run, limits, progress)


def install(source: Path, base: Base) -> Path:
    """Put the weights of a run, or of a file, beside the base; returns their file. Older weights are replaced.

    Raises: BadCheckpoint: it is neither, or for another base. OutputFailed.
    """
    net = _of_run(source, base) if source.is_dir() else load_weights(source, base.generator, base.digest)
    path = base.companion_path(KIND)
    part = derived(path, after=".part", stem=path.stem)
    try:
        part.write_bytes(to_bytes(net, base.digest))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputFailed(
            f"could not write the weights to {path}: {error.strerror}; copy the base to a folder that can be written"
        ) from error
    return path


def _of_run(run: Path, base: Base) -> Hybrid:
    tensors, facts = checkpoint.load(run, loop.KIND)
    identity = facts["identity"]
    if identity.get("engine") != NAME:
        raise BadCheckpoint(
            f"expected a run of the engine {NAME}, got one of {str(identity.get('engine'))[:40]!r}: {run}"
        )
    if identity["base"] != base.digest:
        raise BadArtifact(
            f"expected a run for the base {base.name}, got one for another base: {run}; name its base with --base"
        )
    net = Hybrid(base.generator, model_from(identity["model"]))
    net.load_state_dict(part_of(tensors, NAME))
    return net.eval().requires_grad_(False)
