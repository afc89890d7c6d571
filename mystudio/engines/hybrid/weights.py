"""Trained weights of the engine: ``BASE.hybrid.safetensors`` beside the base that they drive."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mystudio.bases import Base
from mystudio.engines.hybrid.network import Hybrid, ModelSettings
from mystudio.engines.hybrid.pyramid import PyramidShape
from mystudio.errors import BadArtifact, BadCheckpoint, reason
from mystudio.stylegan2.generator import Generator

KIND = "hybrid"  # of the companion file


def model_from(stored: dict[str, Any]) -> ModelSettings:
    """Sizes from JSON values. Raises: TypeError, KeyError: they are not sizes."""
    shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["encoder"].items()}
    sizes: dict[str, Any] = {**stored, "encoder": PyramidShape(**shape)}
    return ModelSettings(**sizes)


def to_bytes(net: Hybrid, base_digest: str) -> bytes:
    """The weights as safetensors, large ones in fp16, with the sizes and the base in the header."""
    tensors = {name: _stored(value) for name, value in net.state_dict().items()}
    return save(tensors, {"kind": KIND, "model": json.dumps(asdict(net.settings)), "base": base_digest})


def _stored(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if value.dtype == torch.float32 and value.numel() >= 4096 else value


def load_weights(path: Path, generator: Generator, base_digest: str = "") -> Hybrid:
    """Read weights for a base's generator; evaluation mode, frozen.

    Raises: BadCheckpoint: the file is missing, damaged, of another base, or holds numbers that are not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if facts.get("kind") != KIND:
            raise ValueError(f"kind {str(facts.get('kind'))[:40]!r}")
        net = Hybrid(generator, model_from(json.loads(facts["model"])))
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise BadCheckpoint(
            f"expected trained weights of the engine hybrid at {path}, got a missing, damaged or other file "
            f"({reason(error)}); export them again"
        ) from error
    if base_digest and facts["base"] != base_digest:
        raise BadCheckpoint(
            f"expected weights that were trained for this base, got another base's: {path}; train them for this one"
        )
    if not all(value.isfinite().all() for value in net.state_dict().values()):
        raise BadCheckpoint(f"expected finite weights, got NaN or infinity: {path}; export an earlier checkpoint")
    return net.eval().requires_grad_(False)


def weights_of(base: Base) -> Hybrid:
    """The trained weights beside a base.

    Raises: BadArtifact: there are none; the message says how to make them. BadCheckpoint: they cannot be used.
    """
    path = base.companion(KIND)
    if path is None:
        raise BadArtifact(
            f"expected trained weights of the engine hybrid for the base {base.name} at {base.companion_path(KIND)}, "
            "found none; train them with `mystudio engines train hybrid`, or use --engine personal"
        )
    return load_weights(path, base.generator, base.digest)
