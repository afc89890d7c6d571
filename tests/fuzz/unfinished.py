"""Checkpoints of tuning and of base training, as inputs of the fuzzed readers."""

import json
import re
from pathlib import Path

import torch
from foreign_files import random_generator

from mystudio.base import checkpoint as training
from mystudio.engines.personal import tune_checkpoint
from mystudio.engines.personal.tune_checkpoint import TuneState
from mystudio.engines.personal.tune_nets import Nets


def tuned() -> Nets:
    g = random_generator(8, z_dim=4, w_dim=4, mapping_layers=1, channel_base=32, channel_max=4)
    return Nets(g, torch.optim.Adam, average=0.1)


def tuning_states() -> list[bytes]:
    nets = tuned()
    sum(p.sum() for p in nets.tuned.synthesis.parameters()).backward()
    nets.optimizer.step()
    return [tune_checkpoint.to_bytes(nets, TuneState(3, history=[1.0]))]


def tuning_state(path: Path) -> None:
    """A damaged checkpoint of tuning is ignored without an error, and tuning starts again."""
    nets, state = tuned(), TuneState()
    before, _ = nets.snapshot()
    tune_checkpoint.from_bytes(path.read_bytes(), nets, state)
    same = all(
        torch.equal(v, before[name][k]) for name, net in nets.generators.items() for k, v in net.state_dict().items()
    )
    assert not same or state == TuneState()


def checkpoint_parts() -> list[bytes]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        training.save(Path(place), {"ema.w": torch.ones(3)}, {"settings": {"steps": 1}, "step": 5})
        index = json.loads((Path(place) / training.INDEX).read_bytes())
        del index["sha256"]  # mutations change the names of its parts
        return [json.dumps(index, indent=1).encode()]


def checkpoint_index(data: bytes, folder: Path) -> None:
    for old in folder.glob("checkpoint*"):
        old.unlink()
    training.save(folder, {"ema.w": torch.ones(3)}, {"settings": {"steps": 1}, "step": 5})
    stem = next(folder.glob("*.part")).name
    (folder / training.INDEX).write_bytes(data.replace(b"checkpoint-00000000-000.part", stem.encode()))
    training.load(folder)


def checkpoint_index_seeds() -> list[bytes]:
    return [re.sub(rb"checkpoint-[0-9a-f]{8}", b"checkpoint-00000000", data) for data in checkpoint_parts()]
