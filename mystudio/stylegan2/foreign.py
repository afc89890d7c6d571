"""Generators of other StyleGAN2 code bases, read as tensors under the official names.

Two namings are supported. The official one (stylegan2-ada-pytorch, and StyleGAN2 in the stylegan3 code base) comes as a
pickle whose ``G_ema`` is a tree of torch modules, as such a module alone (PTI), or as a state dictionary. The other
(stylegan2-pytorch by rosinality) comes as a torch file with a state dictionary: ``g_ema``, the dictionary alone, or the
``decoder.`` part of an encoder's checkpoint (pSp, e4e, ReStyle, HyperStyle). Both store weights without the equalised
learning rate's factor. Both store layers that double the size as transposed convolutions. So the values need no change;
only names and axes of length one differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mystudio.errors import BadCheckpoint
from mystudio.stylegan2.arrays import TensorRef
from mystudio.stylegan2.layers import fir_kernel
from mystudio.stylegan2.stand_ins import Record, quoted
from mystudio.stylegan2.torchfile import open_torch

_MAX_TENSORS = 4096
_MAX_FILTER = 4096  # numbers: larger storages are not searched for filters
_MAX_PARTS = 256  # dictionaries of a file that are searched
_MAX_DEPTH = 3
_FIRST = {"input.input": "stylegan2-pytorch state", "synthesis.b4.const": "official state"}  # a tensor of each naming
_NETWORKS = ("G_ema", "g_ema", "generator", "decoder")  # names under which a whole network is looked for
_AVERAGES = ("latent_avg", "dlatent_avg", "mean_latent")  # names of the mean w beside a state dictionary


@dataclass
class ForeignGenerator:
    """Tensors under official names, not loaded yet, and metadata."""

    tensors: dict[str, TensorRef]
    info: dict[str, str] = field(default_factory=dict)
    average: Tensor | None = None  # the mean w [D], if it is stored beside the tensors


@dataclass(frozen=True)
class _Part:
    """A generator in a file: a whole network, or the tensors of one whose names begin with ``prefix``."""

    place: tuple[str, ...]  # keys that lead to it
    value: Record | Mapping
    prefix: str = ""
    form: str = ""

    @property
    def name(self) -> str:
        """The part in words, such as "state_dict: decoder.*"."""
        return ": ".join([*self.place, *([f"{self.prefix}*"] if self.prefix else [])]) or "the whole file"

    @property
    def averaged(self) -> bool:
        """Whether its name says that its weights are averaged over the training, as the ones to use."""
        return "ema" in f"{'.'.join(self.place)}.{self.prefix}".lower()


def read_foreign(path: Path) -> ForeignGenerator:
    """Find the generator in a checkpoint of a supported code base; no code in the file is executed.

    If there are several, the averaged one (EMA) is taken, otherwise the first. ``info["source_part"]`` names it.

    Raises:
        UnsafeCheckpoint: the file requests more than data.
        BadCheckpoint: the file is damaged or holds no StyleGAN2 generator of a supported form.
    """
    content = open_torch(path)
    parts = sorted(_parts(content), key=lambda part: not part.averaged)
    if not parts:
        keys = ", ".join(quoted(key) for key in list(content)[:6]) if isinstance(content, dict) else None
        raise BadCheckpoint(
            "expected a network 'G_ema' (official pickle), weights 'g_ema' (stylegan2-pytorch) or weights "
            f"'decoder.*' (pSp, e4e) in {path.name}, got {keys or type(content).__name__}"
        )
    part = parts[0]
    if isinstance(part.value, Record):
        found = _from_official(part.value)
    else:
        state = {key[len(part.prefix) :]: value for key, value in part.value.items() if _begins(key, part.prefix)}
        beside = [content, part.value, state] if isinstance(content, dict) else [part.value, state]
        stored = [holder[name] for holder in beside for name in _AVERAGES if name in holder]
        state = {key: value for key, value in state.items() if key not in _AVERAGES}
        found = (_from_rosinality if part.form == _FIRST["input.input"] else _from_official_state)(state, part.name)
        found.average = _average(stored[0]) if stored and isinstance(stored[0], TensorRef) else None
    found.info["source_part"] = part.name
    return found


def _parts(content: object) -> Iterator[_Part]:
    """The generators in a file, in its order: outer dictionaries before the ones inside them."""
    pending, searched = [((), content)], 0
    while pending and searched < _MAX_PARTS:
        place, value = pending.pop(0)
        searched += 1
        if isinstance(value, Record) and (not place or place[-1] in _NETWORKS):
            yield _Part(place, value)
        if not isinstance(value, dict):
            continue
        for first, form in _FIRST.items():
            found = (name for name in value if isinstance(name, str) and f".{name}".endswith(f".{first}"))
            yield from (_Part(place, value, name.removesuffix(first), form) for name in found)
        if len(place) < _MAX_DEPTH:
            inner = ((name, part) for name, part in value.items() if isinstance(name, str))
            pending += [((*place, name), part) for name, part in inner if isinstance(part, dict | Record)]


def _begins(name: object, prefix: str) -> bool:
    return type(name) is str and name.startswith(prefix) or not prefix


def _average(stored: TensorRef) -> Tensor:
    """The mean w [D] of a stored one: [D], or the same once a layer, [L, D], with or without more axes before."""
    rows = stored.load()
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim else rows.reshape(1, 1)
    return rows[0].clone() if bool((rows == rows[0]).all()) else rows.mean(0)


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


def _from_official_state(state: dict, part: str) -> ForeignGenerator:
    tensors = dict(_checked(state, part))
    _check_filters({n: t for n, t in tensors.items() if n.endswith(".resample_filter")}, gain=1)
    return ForeignGenerator(tensors, {"source_form": _FIRST["synthesis.b4.const"], "conv_clamp": "none"})


def _from_rosinality(state: dict, part: str) -> ForeignGenerator:
    tensors: dict[str, TensorRef] = {}
    filters = {}
    for name, value in _checked(state, part):
        if name.endswith(".kernel"):
            filters[name] = value
            continue
        official, axes = _official_name(name, part)
        tensors[official] = value.drop(*axes)
    _check_filters(filters, gain=4)  # this code base multiplies the filter by the gain of doubling the size
    return ForeignGenerator(tensors, {"source_form": _FIRST["input.input"], "conv_clamp": "none"})


def _checked(state: dict, part: str) -> Iterator[tuple[str, TensorRef]]:
    for number, (name, value) in enumerate(state.items()):
        if number > _MAX_TENSORS or type(name) is not str or not isinstance(value, TensorRef):
            raise BadCheckpoint(f"expected named tensors as {quoted(part)} in the checkpoint, got something else")
        yield name, value


def _official_name(name: str, part: str) -> tuple[str, tuple[int, ...]]:
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
    raise BadCheckpoint(
        f"expected the tensors of a StyleGAN2 generator in {quoted(part)}, got an unknown one: {quoted(name)}"
    )


def _layer(index: int) -> str:
    """Name of a layer. Layer -1 is the only convolution at 4 px; each resolution from 8 px up has two layers."""
    return "synthesis.b4.conv1" if index < 0 else f"synthesis.b{8 << index // 2}.conv{index % 2}"
