"""Generators of other StyleGAN2 code bases, read as tensors under the official names.

Two forms are supported. The official one (stylegan2-ada-pytorch, and StyleGAN2 in the stylegan3 code base) is a pickle
whose ``G_ema`` is a tree of torch modules. The other (stylegan2-pytorch by rosinality) is a torch file whose ``g_ema``
is a state dictionary. Both store weights without the equalised learning rate's factor. Both store layers that double
the size as transposed convolutions. So the values need no change; only names and axes of length one differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mystudio.errors import BadCheckpoint
from mystudio.stylegan2.layers import fir_kernel
from mystudio.stylegan2.stand_ins import Record, quoted
from mystudio.stylegan2.torchfile import TensorRef, open_torch

_MAX_TENSORS = 4096
_MAX_FILTER = 4096  # numbers: larger storages are not searched for filters


@dataclass
class ForeignGenerator:
    """Tensors under official names, not loaded yet, and metadata."""

    tensors: dict[str, TensorRef]
    info: dict[str, str] = field(default_factory=dict)


def read_foreign(path: Path) -> ForeignGenerator:
    """Find the averaged generator (EMA) in a checkpoint of a supported code base; no code in the file is executed.

    Raises:
        UnsafeCheckpoint: the file requests more than data.
        BadCheckpoint: the file is damaged or holds no StyleGAN2 generator of a supported form.
    """
    content = open_torch(path)
    if isinstance(content, dict) and isinstance(content.get("G_ema"), Record):
        return _from_official(content["G_ema"])
    if isinstance(content, dict) and isinstance(content.get("g_ema"), dict):
        return _from_rosinality(content["g_ema"], content.get("latent_avg"))
    found = ", ".join(quoted(key) for key in list(content)[:6]) if isinstance(content, dict) else type(content).__name__
    raise BadCheckpoint(
        "expected a network 'G_ema' (official pickle) or weights 'g_ema' (stylegan2-pytorch) in "
        f"{path.name}, got {found}"
    )


def _from_official(root: Record) -> ForeignGenerator:
    tensors: dict[str, TensorRef] = {}
    clamps = set()
    pending = [("", root)]
    visited = 0
    while pending:
        prefix, module = pending.pop()
        visited += 1
        if visited > _MAX_TENSORS or prefix.count(".") > 8:
            raise BadCheckpoint("expected a StyleGAN2 generator in the checkpoint, got a network with far more parts")
        state = module.state if isinstance(module, Record) and isinstance(module.state, dict) else {}
        _check_layer(prefix, state)
        clamps.add(str(state.get("conv_clamp")) if isinstance(state.get("conv_clamp"), int | float) else "none")
        for kind in ("_parameters", "_buffers"):
            tensors.update({prefix + str(name): value for name, value in _items(state, kind) if value is not None})
        pending += [(f"{prefix}{name}.", part) for name, part in _items(state, "_modules") if part is not None]
    if root.class_name != "Generator" or not any(name.startswith("synthesis.b4.") for name in tensors):
        raise BadCheckpoint(
            "expected a StyleGAN2 generator as 'G_ema' in the checkpoint, got "
            f"{quoted(root.class_name)} without its 4 px block (StyleGAN3 and others do not fit)"
        )
    if stray := [name for name, ref in tensors.items() if not isinstance(ref, TensorRef)]:
        raise BadCheckpoint(f"expected a tensor as {quoted(stray[0])} in the checkpoint, got something else")
    _check_filters({n: t for n, t in tensors.items() if n.endswith(".resample_filter")}, gain=1)
    clamp = max((c for c in clamps if c != "none"), key=float, default="none")
    return ForeignGenerator(tensors, {"source_form": "official pickle", "conv_clamp": clamp})


def _items(state: dict, kind: str) -> list:
    part = state.get(kind, {})
    if not isinstance(part, dict) or len(part) > _MAX_TENSORS:
        raise BadCheckpoint(f"expected a dictionary {kind!r} in each layer of the checkpoint, got something else")
    return list(part.items())


def _check_layer(prefix: str, state: dict) -> None:
    """Check what shapes do not show: the activation and, in the mapping network, the learning-rate multiplier."""
    if state.get("c_dim", 0) != 0:
        raise BadCheckpoint("expected a generator without class labels, got a conditional one (c_dim > 0)")
    mapping = prefix.startswith("mapping.fc")
    wanted = {"activation": "linear" if prefix.endswith(".affine.") else "lrelu", "bias_gain": 0.01 if mapping else 1}
    for name, value in wanted.items():
        if state.get(name, value) != value:
            raise BadCheckpoint(
                f"expected {name} = {value} in {quoted(prefix)} of the checkpoint, "
                f"got {quoted(state[name])}, which this generator does not compute"
            )


def _check_filters(filters: dict[str, object], gain: float) -> None:
    wanted = fir_kernel()
    for name, ref in filters.items():
        small = isinstance(ref, TensorRef) and ref.size == (4, 4) and ref.storage.numel <= _MAX_FILTER
        if not (isinstance(ref, TensorRef) and small) or not torch.allclose(ref.load() / gain, wanted, atol=1e-3):
            raise BadCheckpoint(
                f"expected the filter 1, 3, 3, 1 as {quoted(name)} in the checkpoint, got another one, "
                "which this generator does not compute"
            )


_STYLED = {
    "conv.weight": ("weight", (0,)),
    "conv.modulation.weight": ("affine.weight", ()),
    "conv.modulation.bias": ("affine.bias", ()),
    "noise.weight": ("noise_strength", (0,)),
    "activate.bias": ("bias", ()),
}
_TO_RGB = {
    "conv.weight": ("weight", (0,)),
    "conv.modulation.weight": ("affine.weight", ()),
    "conv.modulation.bias": ("affine.bias", ()),
    "bias": ("bias", (0, 2, 3)),
}


def _from_rosinality(state: dict, average: object) -> ForeignGenerator:
    tensors: dict[str, TensorRef] = {}
    filters = {}
    for name, value in state.items():
        if len(tensors) > _MAX_TENSORS or type(name) is not str or not isinstance(value, TensorRef):
            raise BadCheckpoint("expected named tensors as 'g_ema' in the checkpoint, got something else")
        if name.endswith(".kernel"):
            filters[name] = value
            continue
        official, axes = _official_name(name)
        tensors[official] = value.drop(*axes)
    _check_filters(filters, gain=4)  # this code base multiplies the filter by the gain of doubling the size
    info = {"source_form": "stylegan2-pytorch state", "conv_clamp": "none"}
    if isinstance(average, TensorRef):
        tensors["mapping.w_avg"] = average.drop(0)
    return ForeignGenerator(tensors, info)


def _official_name(name: str) -> tuple[str, tuple[int, ...]]:
    """rosinality's name of a tensor -> (official name, axes of length one to drop)."""
    if name == "input.input":
        return "synthesis.b4.const", (0,)
    if match := re.fullmatch(r"style\.(\d{1,3})\.(weight|bias)", name):
        return f"mapping.fc{int(match[1]) - 1}.{match[2]}", ()  # style.0 is the normalisation
    if match := re.fullmatch(r"noises\.noise_(\d{1,2})", name):
        return f"{_layer(int(match[1]) - 1)}.noise_const", (0, 1)
    if match := re.fullmatch(r"conv1\.(.+)|convs\.(\d{1,2})\.(.+)", name):
        part, index = match[1] or match[3], -1 if match[2] is None else int(match[2])
        if part in _STYLED:
            return f"{_layer(index)}.{_STYLED[part][0]}", _STYLED[part][1]
    if match := re.fullmatch(r"to_rgb1\.(.+)|to_rgbs\.(\d{1,2})\.(.+)", name):
        part, index = match[1] or match[3], -1 if match[2] is None else int(match[2])
        if part in _TO_RGB:
            return f"synthesis.b{8 << index if index >= 0 else 4}.torgb.{_TO_RGB[part][0]}", _TO_RGB[part][1]
    raise BadCheckpoint(f"expected the tensors of a StyleGAN2 generator in 'g_ema', got an unknown one: {quoted(name)}")


def _layer(index: int) -> str:
    """Name of a layer. Layer -1 is the only convolution at 4 px; each resolution from 8 px up has two layers."""
    return "synthesis.b4.conv1" if index < 0 else f"synthesis.b{8 << index // 2}.conv{index % 2}"
