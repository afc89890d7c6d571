"""The checkpoint of a tuning: networks, optimiser and progress as one block of bytes."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as encode
from torch import Tensor

from mystudio.engines.personal.tune_nets import Nets
from selfscan.checkpoints import Checkpoints

NAME = "tune"  # of the checkpoint among all checkpoints


@dataclass
class TuneState:
    """How far a tuning has come."""

    step: int = 0
    rate_scale: float = 1.0  # halved at every roll-back
    rollbacks: int = 0
    best: float = math.inf  # least distance of the held-out images so far
    stale: int = 0  # checks since the best one
    history: list[list[float]] = field(default_factory=list[list[float]])  # step, loss, held-out distance


def save(checkpoints: Checkpoints, nets: Nets, state: TuneState) -> None:
    """Store a checkpoint of the tuning, which replaces the last one. Raises OSError."""
    checkpoints.put(NAME, {"content": np.frombuffer(to_bytes(nets, state), np.uint8)})


def resume(checkpoints: Checkpoints, nets: Nets, state: TuneState) -> None:
    """Load the last checkpoint. If it is missing, damaged or of another tuning, nothing changes."""
    found = checkpoints.get(NAME)
    if found and "content" in found:
        from_bytes(found["content"].tobytes(), nets, state)


def to_bytes(nets: Nets, state: TuneState) -> bytes:
    """The tuning as safetensors."""
    tensors = {
        f"{name}.{key}": value.contiguous()
        for name, net in nets.generators.items()
        for key, value in net.state_dict().items()
    }
    for i, slot in nets.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{key}": value.contiguous() for key, value in slot.items()}
    return encode(tensors | {"state": _as_tensor(vars(state))})


def from_bytes(content: bytes, nets: Nets, state: TuneState) -> None:
    """Load what ``to_bytes`` wrote, completely or not at all; content of another kind or network changes nothing."""
    before = nets.snapshot()
    try:
        tensors = parse(content)
        stored = TuneState(**json.loads(tensors.pop("state").numpy().tobytes()))
        _load_networks(tensors, nets)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
        nets.restore(before)
        return
    vars(state).update(vars(stored))


def _load_networks(tensors: dict[str, Tensor], nets: Nets) -> None:
    for name, net in nets.generators.items():
        net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
    slots: dict[int, dict[str, Tensor]] = {}
    for name in tensors:
        if name.startswith("adam."):
            _, i, part = name.split(".")
            slots.setdefault(int(i), {})[part] = tensors[name]
    if slots:
        nets.optimizer.load_state_dict({**nets.optimizer.state_dict(), "state": slots})


def _as_tensor(values: dict[str, Any]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
