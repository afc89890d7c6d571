"""The trained networks of ``hyper`` as one file beside the base: BASE.hyper.safetensors."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mystudio.bases import Base
from mystudio.engines.hyper.arcface import ArcFace
from mystudio.engines.hyper.face_nets import AppearanceNet, PoseNet
from mystudio.engines.hyper.reenactor import Reenactor, shapes_of
from mystudio.engines.hyper.settings import ModelSettings
from mystudio.errors import BadArtifact, BadCheckpoint, reason
from mystudio.stylegan2.generator import Generator
from selfscan.io.naming import derived

KIND = "hyper"  # of the companion file
_FILE = "hyper-weights"
MOST = 4096  # of any size in a file's header


class Networks(nn.Module):
    """Appearance network, pose network, reenactor.

    Args: model: sizes. generator: whose weights are changed.
    """

    def __init__(self, model: ModelSettings, generator: Generator):
        super().__init__()
        self.model = model
        own = model.appearance == "own"
        self.appearance = AppearanceNet(model.width, model.identity) if own else ArcFace()
        self.pose = PoseNet(model.width)
        sizes = self.appearance.channels, self.pose.channels, model.width, model.features, model.rank
        self.reenactor = Reenactor(shapes_of(generator), *sizes)


def new_networks(model: ModelSettings, generator: Generator, seed: int = 0) -> Networks:
    """Untrained networks, which the seed alone determines; with them the engine equals baseline 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Networks(model, generator)


def restored(model: ModelSettings, generator: Generator, state: Mapping[str, Tensor]) -> Networks:
    """Networks with stored weights, frozen. Raises RuntimeError: the weights are of other sizes."""
    with torch.device("meta"):  # shapes are compared before memory is allocated
        nets = Networks(model, generator)
    whole = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    nets.load_state_dict(whole, assign=True)
    return nets.eval().requires_grad_(False)


def half(nets: nn.Module) -> dict[str, Tensor]:
    """Weights on the CPU as float16."""
    found = {name: value.detach().cpu().contiguous() for name, value in nets.state_dict().items()}
    return {name: value.half() if value.is_floating_point() else value for name, value in found.items()}


def write_weights(nets: Networks, path: Path, base_digest: str) -> None:
    """Write a file of weights; an older one is replaced when the new one is whole. Raises OSError."""
    facts = {"kind": _FILE, "base": base_digest, "model": json.dumps(asdict(nets.model))}
    part = derived(path, after=".part", stem=path.stem)
    try:
        part.write_bytes(save(half(nets), facts))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_weights(path: Path, base: Base) -> Networks:
    """Read a file of weights.

    Raises: BadCheckpoint: it is missing, damaged, something else, of other sizes, or not finite. BadArtifact: it was
        trained for another base.
    """
    try:
        with safe_open(path, "pt") as file:
            facts: dict[str, str] = file.metadata() or {}
        if facts.get("kind") != _FILE:
            raise ValueError("another kind of file")
        if facts["base"] == base.digest:
            return _finite(restored(model_of(json.loads(facts["model"])), base.generator, load_file(path)))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise BadCheckpoint(
            f"expected weights of the engine hyper as safetensors, got a missing, damaged or other file: {path} "
            f"({reason(error)}); export them again with `mystudio engines install hyper`"
        ) from error
    raise BadArtifact(
        f"expected weights of the engine hyper for the base {base.name}, {path.name} was trained for another base; "
        "train them for this one, or give --base"
    )


def model_of(values: Mapping[str, Any]) -> ModelSettings:
    """Sizes from JSON values. Raises ValueError: they are not sizes."""
    model = ModelSettings(**{f.name: values[f.name] for f in fields(ModelSettings) if f.name in values})
    sizes = model.width, model.features, model.rank, model.identity
    if not all(type(size) is int and 0 < size <= MOST for size in sizes) or model.width % 32:
        raise ValueError(f"sizes of networks: {sizes}")
    if model.start not in ("driver", "source") or model.appearance not in ("own", "arcface"):
        raise ValueError(f"start, appearance: {model.start!r}, {model.appearance!r}")
    return model


def weights_of(base: Base) -> Networks:
    """The networks installed for a base. Raises BadArtifact: there are none; BadCheckpoint: as ``read_weights``."""
    path = base.companion(KIND)
    if path is None:
        raise BadArtifact(
            f"the engine hyper needs weights that were trained for the base {base.name}, and none are installed; train "
            "them (`mystudio engines train hyper -o RUN --data GRID`) and install them (`mystudio engines install "
            f"hyper RUN --base {base.name}`), or use the engine personal"
        )
    return read_weights(path, base)


def _finite(nets: Networks) -> Networks:
    if not all(bool(value.isfinite().all()) for value in nets.state_dict().values()):
        raise ValueError("NaN or infinity")
    return nets
