"""Generator files: safetensors with the generator's shape and a checksum in the header; never pickles."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mystudio.errors import BadCheckpoint, OutputFailed, reason
from mystudio.stylegan2.foreign import ForeignGenerator, read_foreign
from mystudio.stylegan2.generator import Generator
from mystudio.stylegan2.layers import fir_kernel
from selfscan.io.digest import file_digest
from selfscan.io.naming import derived

KIND = "stylegan2-generator"
_CHECKSUM = "content_sha256"
_CONFIG = ("resolution", "z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max")
_LIMITS = {
    "resolution": (4, 2048),
    "z_dim": (1, 8192),
    "w_dim": (1, 8192),
    "mapping_layers": (1, 64),
    "channel_base": (4, 1 << 22),
    "channel_max": (1, 8192),
}
_MAX_NUMBERS = 1 << 28  # 1 GB in float32; the 1024 px generator has 3e7
_FLOATS = {"F16": torch.float16, "F32": torch.float32, "BF16": torch.bfloat16, "F64": torch.float64}
_HALF_FROM = 128  # smaller tensors stay float32, because float16 would save almost nothing
_AVERAGE_OF = 10_000  # samples of w averaged to replace a missing w_avg, as many as in the official projector


def save_generator(
    g: Generator, path: str | Path, info: Mapping[str, object] | None = None, half: bool = False
) -> None:
    """Write a generator as safetensors, atomically.

    Args:
        g: the generator; its config goes into the header.
        path: target file; an existing one is replaced.
        info: further header fields, stored as text.
        half: store tensors of 128 numbers or more as float16, if their values fit its range.

    Raises:
        BadCheckpoint: a weight is not finite.
        OutputFailed: the file cannot be written; an existing file is unchanged.
    """
    tensors = {name: _stored(name, value, half) for name, value in g.state_dict().items()}
    facts = {str(key): str(value) for key, value in (info or {}).items()}
    facts |= {"kind": KIND, "noise": "const"} | {key: str(g.config[key]) for key in _CONFIG}
    facts[_CHECKSUM] = _checksum(tensors, facts)
    data = memoryview(to_safetensors(tensors, facts))
    length = int.from_bytes(data[:8], "little")
    # sorted, so that equal generators give equal files: the library writes metadata in random order
    header = json.dumps(json.loads(bytes(data[8 : 8 + length])), sort_keys=True, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    _write(Path(path), (len(header).to_bytes(8, "little"), header, data[8 + length :]))


def load_generator(path: str | Path) -> Generator:
    """Read a generator that ``save_generator`` wrote: float32, evaluation mode, channels_last.

    Raises:
        BadCheckpoint: the file is missing, damaged, truncated, of another kind, or holds numbers that are not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            config = _config_from(facts, path)
            _check_shapes(config, shapes, path)
            if unknown := {part.get_dtype() for part in slices.values()} - set(_FLOATS):
                raise BadCheckpoint(f"expected floating-point weights, got {sorted(map(ascii, unknown))}: {path}")
            tensors = {name: file.get_tensor(name) for name in slices}
            if _CHECKSUM in facts and facts[_CHECKSUM] != _checksum(tensors, facts):
                raise BadCheckpoint(f"expected the content that was saved, got changed bytes; fetch it again: {path}")
            return _assemble(config, {n: t.to(torch.float32, copy=True) for n, t in tensors.items()}, path)
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise BadCheckpoint(
            f"expected a generator as safetensors, got a missing, damaged or truncated file: {path} ({reason(error)})"
        ) from error


def read_info(path: str | Path) -> dict[str, str]:
    """Header fields of a generator file; the weights are not read.

    Raises:
        BadCheckpoint: the file is missing, damaged or of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(
            f"expected a generator as safetensors, got a missing, damaged or truncated file: {path} ({reason(error)})"
        ) from error
    _config_from(facts, path)
    return dict(facts)


def import_checkpoint(src: str | Path, dst: str | Path, half: bool = False) -> dict[str, str]:
    """Convert a StyleGAN2 checkpoint of another code base to a safetensors file; no code in it is executed.

    Args:
        src: official ``.pkl`` (stylegan2-ada-pytorch, stylegan3), a ``.pt`` of rosinality, pSp, e4e, ReStyle or PTI, or
            mystudio's ``.safetensors``.
        dst: safetensors file to write.
        half: store float16.

    Returns:
        The header fields: shape, source form, source file and its digest, and the part of the file that was read.

    Raises:
        UnsafeCheckpoint: the file requests the execution of code.
        BadCheckpoint: the file is damaged or holds no supported generator.
        OutputFailed: ``dst`` cannot be written.
    """
    src = Path(src)
    if src.suffix.lower() == ".safetensors":
        g, info = load_generator(src), read_info(src)
    else:
        g, info = _convert(read_foreign(src), src)
        info |= {"source_file": src.name, "source_sha256": digest(src)}
    save_generator(g, dst, info, half)
    return read_info(dst)


def describe_checkpoint(src: str | Path) -> dict[str, str]:
    """The shape of the generator in a checkpoint of another code base, and the part of the file that holds it.

    The weights are not read. Raises: as ``import_checkpoint``.
    """
    foreign = read_foreign(Path(src))
    config = _infer_config({name: ref.size for name, ref in foreign.tensors.items()}, Path(src))
    return foreign.info | {key: str(value) for key, value in config.items()}


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text.

    Raises:
        BadCheckpoint: the file cannot be read.
    """
    try:
        return file_digest(path)
    except OSError as error:
        raise BadCheckpoint(f"expected a readable file at {path}: {error.strerror}") from error


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach().to("cpu", torch.float32).contiguous()
    if not value.isfinite().all():
        raise BadCheckpoint(f"expected finite weights, got NaN or infinity in {name}; go back to the last good state")
    small = value.half()
    return small if half and value.numel() >= _HALF_FROM and small.isfinite().all() else value.clone()


def _checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    total = hashlib.sha256(json.dumps({k: v for k, v in facts.items() if k != _CHECKSUM}, sort_keys=True).encode())
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        total.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _write(path: Path, parts: tuple) -> None:
    part = derived(path, ".", f".{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            for piece in parts:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputFailed(f"could not write {path}: {error.strerror}; free space or choose another folder") from error


def _config_from(facts: Mapping[str, str], path: object) -> dict[str, int]:
    if facts.get("kind") != KIND:
        raise BadCheckpoint(f"expected a file of kind {KIND}, got {str(facts.get('kind'))[:40]!r}: {path}")
    config = {}
    for key in _CONFIG:
        text = facts.get(key, "")
        if not (text.isascii() and text.isdigit() and len(text) < 9):
            raise BadCheckpoint(f"expected a whole number as {key} in the header, got {text[:40]!r}: {path}")
        config[key] = int(text)
    _check_limits(config, path)
    return config


def _check_limits(config: Mapping[str, int], path: object) -> None:
    for key, (low, high) in _LIMITS.items():
        if not low <= config[key] <= high:
            raise BadCheckpoint(f"expected {key} from {low} to {high}, got {config[key]}: {path}")
    resolution = config["resolution"]
    if resolution & (resolution - 1) or config["channel_base"] < resolution:
        raise BadCheckpoint(
            "expected a power of two as resolution and a channel_base of at least that, got "
            f"{resolution} and {config['channel_base']}: {path}"
        )


def _check_shapes(config: dict[str, int], shapes: Mapping[str, tuple[int, ...]], path: object) -> None:
    """Compare the shapes with those that the config implies, before any weight is allocated."""
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in Generator(**config).state_dict().items()}
    if sum(torch.Size(shape).numel() for shape in expected.values()) > _MAX_NUMBERS:
        raise BadCheckpoint(f"expected a generator of at most {_MAX_NUMBERS} numbers, got a larger one: {path}")
    missing, extra = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    if missing or extra:
        raise BadCheckpoint(
            f"expected the tensors of a StyleGAN2 generator (skip architecture, with noise), "
            f"{len(missing)} missing {missing[:2]}, {len(extra)} unknown {extra[:2]}: {path}"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise BadCheckpoint(f"expected {name} of shape {shape}, got {shapes[name]}: {path}")


def _assemble(config: dict[str, int], tensors: dict[str, Tensor], path: object) -> Generator:
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise BadCheckpoint(f"expected finite weights, got NaN or infinity in {name}: {path}")
    with torch.device("meta"):
        g = Generator(**config)
    g.load_state_dict(tensors, assign=True)
    return g.to(memory_format=torch.channels_last).eval()


def _convert(foreign: ForeignGenerator, src: Path) -> tuple[Generator, dict[str, str]]:
    refs = foreign.tensors
    shapes = {name: ref.size for name, ref in refs.items()}
    config = _infer_config(shapes, src)
    blocks = [4 << i for i in range(config["resolution"].bit_length() - 2)]
    filters = [
        f"synthesis.b{r}.{part}resample_filter"
        for r in blocks
        for part in ("", "conv0.", "conv1.")
        if r > 4 or part != "conv0."
    ]
    implied = {name: (4, 4) for name in filters} | {"mapping.w_avg": (config["w_dim"],)}
    if foreign.average is not None:
        shapes["mapping.w_avg"] = tuple(foreign.average.shape)
    noise = _missing_noise(shapes, blocks)
    implied |= {name: tuple(value.shape) for name, value in noise.items()}
    _check_shapes(config, implied | shapes, src)
    g = _assemble(
        config,
        {n: fir_kernel() for n in filters}
        | {"mapping.w_avg": torch.zeros(config["w_dim"])}
        | noise
        | {name: ref.load() for name, ref in refs.items()}
        | ({} if foreign.average is None else {"mapping.w_avg": foreign.average}),
        src,
    )
    info = foreign.info | ({"noise_const": "drawn anew: the source has none"} if noise else {})
    if "mapping.w_avg" in shapes:
        return g, info | {"w_avg": "stored"}
    with torch.no_grad():
        z = torch.randn(_AVERAGE_OF, config["z_dim"], generator=torch.Generator().manual_seed(0))
        g.mapping.w_avg.copy_(g.mapping(z).mean(0))
    return g, info | {"w_avg": f"mean of {_AVERAGE_OF} samples"}


def _missing_noise(shapes: Mapping[str, tuple[int, ...]], blocks: list[int]) -> dict[str, Tensor]:
    """Constant noise for a generator whose file has none at all: some versions of stylegan2-pytorch draw it anew."""
    if any(name.endswith(".noise_const") for name in shapes):
        return {}
    source = torch.Generator().manual_seed(0)
    layers = [(f"synthesis.b{r}.{part}", r) for r in blocks for part in ("conv0", "conv1") if r > 4 or part == "conv1"]
    return {f"{layer}.noise_const": torch.randn(r, r, generator=source) for layer, r in layers}


def _infer_config(shapes: Mapping[str, tuple[int, ...]], path: object) -> dict[str, int]:
    """Infer the config from the tensors' shapes; blocks have min(channel_base // r, channel_max) channels."""
    try:
        w_dim = shapes["synthesis.b4.conv1.affine.weight"][1]
        z_dim = shapes["mapping.fc0.weight"][1]
        layers = sum(f"mapping.fc{i}.weight" in shapes for i in range(_LIMITS["mapping_layers"][1] + 1))
        widths = {
            r: shapes[f"synthesis.b{r}.conv1.weight"][0]
            for r in (4 << i for i in range(10))
            if f"synthesis.b{r}.conv1.weight" in shapes
        }
    except (KeyError, IndexError) as error:
        raise BadCheckpoint(
            f"expected the tensors of a StyleGAN2 generator, {error} is missing or misshapen: {path}"
        ) from error
    if not widths:
        raise BadCheckpoint(f"expected the tensors of a StyleGAN2 generator, got none of its blocks: {path}")
    base, most = max(r * width for r, width in widths.items()), max(widths.values())
    if any(width != min(base // r, most) for r, width in widths.items()):
        raise BadCheckpoint(
            "expected block widths of the form min(channel_base // resolution, channel_max), got "
            f"{list(widths.values())}: {path}"
        )
    config = dict(
        resolution=max(widths), z_dim=z_dim, w_dim=w_dim, mapping_layers=layers, channel_base=base, channel_max=most
    )
    _check_limits(config, path)
    return config
