"""Reads the identity encoder of an e4e checkpoint that a user brings; no code in the file is executed.

The decoder in the same file is the generator: `mystudio base import` makes a base of it. The encoder's deformation
part is then trained anew, from true frames, with ``recipes/hybrid-paper.toml``.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mystudio.engines.hybrid.network import Hybrid, ModelSettings
from mystudio.engines.hybrid.pyramid import E4E, PyramidShape
from mystudio.errors import BadCheckpoint
from mystudio.stylegan2.arrays import TensorRef
from mystudio.stylegan2.generator import Generator
from mystudio.stylegan2.torchfile import open_torch

SIDE = 256  # px that e4e's encoder reads
_PREFIXES = ("encoder.", "module.encoder.")
_MAX_TENSORS = 4096
_COUNTER = ".num_batches_tracked"  # of a batch normalisation; unused when it is frozen


def load_e4e(path: Path, generator: Generator, settings: ModelSettings, shape: PyramidShape = E4E) -> Hybrid:
    """A network whose identity encoder is e4e's, and whose deformation is new.

    Args: generator: the base that was imported from the same file. settings: the encoder's part is replaced.
    Raises: UnsafeCheckpoint: the file requests more than data. BadCheckpoint: it holds no e4e encoder, or one for
        another generator.
    """
    content = open_torch(path)
    refs, average = _encoder_of(content, path), _average(content, path)
    net = Hybrid(generator, replace(settings, resolution=SIDE, encoder=shape))
    wanted = {name: tuple(v.shape) for name, v in net.encoder.state_dict().items() if not name.endswith(_COUNTER)}
    found = {name: ref for name, ref in refs.items() if not name.endswith(_COUNTER)}
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or extra:
        raise BadCheckpoint(
            f"expected e4e's encoder for a generator with {generator.num_ws} layers in {path.name}, {len(missing)} "
            f"tensors are missing {missing[:2]}, {len(extra)} unknown {[ascii(name[:60]) for name in extra[:2]]}; "
            "import the base from the same file"
        )
    wrong = next((name for name, ref in found.items() if tuple(ref.size) != wanted[name]), None)
    if wrong:
        raise BadCheckpoint(f"expected {wrong} of shape {wanted[wrong]} in {path.name}, got {found[wrong].size}")
    tensors = {name: ref.load() for name, ref in found.items()}
    if not all(value.isfinite().all() for value in tensors.values()):
        raise BadCheckpoint(f"expected finite weights, got NaN or infinity: {path.name}; copy the file again")
    net.encoder.load_state_dict(tensors, strict=False)
    net.measure(generator)
    net.mean.copy_(average.expand_as(net.mean))
    net.spread.fill_(1.0)  # e4e's codes are offsets from the mean w as they are
    return net


def _encoder_of(content: object, path: Path) -> dict[str, TensorRef]:
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    for prefix in _PREFIXES if isinstance(state, dict) and len(state) <= _MAX_TENSORS else ():
        found = {
            name[len(prefix) :]: value
            for name, value in state.items()
            if type(name) is str and name.startswith(prefix) and isinstance(value, TensorRef)
        }
        if found:
            return found
    raise BadCheckpoint(f"expected e4e's weights 'encoder.*' in {path.name}, got none; give e4e's own checkpoint")


def _average(content: object, path: Path) -> Tensor:
    """The mean w [1 or L, D] of the file."""
    state = content.get("state_dict") if isinstance(content, dict) else None
    for holder in (content, state):
        stored = holder.get("latent_avg") if isinstance(holder, dict) else None
        if isinstance(stored, TensorRef) and 0 < len(stored.size) <= 3:
            rows = stored.load()
            return rows.reshape(-1, rows.shape[-1]).to(torch.float32)
    raise BadCheckpoint(f"expected the mean w 'latent_avg' in {path.name}, got none; give e4e's own checkpoint")
