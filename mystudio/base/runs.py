"""Operations on a training run other than training: read its settings, export its generator, pack it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from mystudio.base import checkpoint
from mystudio.base.settings import BaseSettings
from mystudio.errors import BadArtifact
from mystudio.storage.journal import write_bytes
from mystudio.stylegan2.generator import Generator


def settings_of(run: Path) -> BaseSettings:
    """The settings that a run was last trained with. Raises BadCheckpoint."""
    from pydantic import TypeAdapter

    stored = checkpoint.load_facts(run)["settings"]
    return TypeAdapter(BaseSettings).validate_json(json.dumps(stored))


def with_budget(settings: BaseSettings, phase: str | None, kimg: float | None, batch: int | None) -> BaseSettings:
    """Settings changed by a phase to run alone, its length, and a batch size for both phases; None = unchanged."""
    changes = {name: {} for name in ("supervised", "adversarial")}
    for name in changes:
        if phase and name != phase:
            changes[name]["kimg"] = 0.0
        elif kimg is not None:
            changes[name]["kimg"] = float(kimg)
        if batch:
            changes[name]["batch"] = batch
    return dataclasses.replace(
        settings, **{n: dataclasses.replace(getattr(settings, n), **c) for n, c in changes.items()}
    )


def export_generator(run: Path) -> tuple[Generator, dict]:
    """The averaged generator of a run, and metadata for its header. Raises BadCheckpoint."""
    tensors, facts = checkpoint.load(run)
    generator = Generator(**facts["settings"]["model"])
    generator.load_state_dict({k[4:]: v.float() for k, v in tensors.items() if k.startswith("ema.")})
    counters, data = facts["counters"], ", ".join(f"{name} ({count})" for name, count, _ in facts["data"])
    words = f"{counters['supervised']} images supervised, {counters['adversarial']} adversarial; data: {data}"
    return generator.eval().requires_grad_(False), {"training": words, "code_size": facts["code_size"]}


def pack(run: Path, out: Path, max_part_mb: float = 15.0) -> None:
    """Write a smaller copy of a run that can be sent and resumed: float16 weights, without Adam's moments.

    Raises: BadCheckpoint, BadArtifact, OutputFailed.
    """
    if not checkpoint.is_free(out):
        raise BadArtifact(f"{out} holds files, expected a free name; choose another")
    tensors, facts = checkpoint.load(run)
    checkpoint.save(out, checkpoint.lightened(tensors), facts, max_part_mb)
    if (run / "metrics.jsonl").is_file():
        write_bytes(out / "metrics.jsonl", (run / "metrics.jsonl").read_bytes())
