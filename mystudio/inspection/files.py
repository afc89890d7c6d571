"""Weights and text files: bases, checkpoints of other programs, encoders, directions, training data, recipes, keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mystudio.base import checkpoint as training
from mystudio.base.encoder import load_encoder
from mystudio.base.sources import Shards
from mystudio.errors import BadArtifact, BadRecipe, StudioError, UnsafeCheckpoint
from mystudio.inspection.description import Description, size_in_words
from mystudio.recipe import resolve, resolve_base, tomllib
from mystudio.storage.directions import shapes_of
from mystudio.storage.keyframes import read_keys
from mystudio.stylegan2.checkpoint import describe_checkpoint, load_generator, read_info
from selfscan.io.text import decoded, read_text

MAX_TEXT = 1 << 20  # bytes; larger files are no text that mystudio reads
WEIGHTS = (".safetensors", ".pt", ".pth", ".pkl", ".npy", ".npz", ".bin", ".ckpt")


def describe_weights(path: Path) -> Description:
    """Describe a file of weights or arrays, told by its content; no code in it is executed.

    Raises: BadCheckpoint, UnsafeCheckpoint, BadEdit: it is damaged, or holds none of what mystudio reads.
    """
    with open(path, "rb") as file:
        head = file.read(2)
    if head == b"\x93N" or path.suffix.lower() == ".npz":
        ways = (_directions,) if head == b"\x93N" else (_shard, _directions)
    elif head == b"PK" or head[:1] == b"\x80":
        ways = (_foreign, _directions)
    else:
        ways = (_base, _encoder, _directions)
    refused = list[StudioError]()
    for way in ways:
        try:
            return way(path)
        except UnsafeCheckpoint:
            raise
        except StudioError as error:
            refused.append(error)
    raise refused[0]


def describe_text(path: Path) -> Description | None:
    """Describe a recipe, a file of keyframes, or a key; None if it is no text. Raises BadArtifact: another text."""
    if path.stat().st_size > MAX_TEXT:
        return None
    try:
        text = decoded(path.read_bytes())
    except ValueError:
        return None
    if "\0" in text:
        return None
    if "-----BEGIN" in text:
        return _key(path, text)
    try:
        found = tomllib.loads(text)
    except ValueError:
        found = None
    if path.suffix.lower() == ".toml" or found:
        return _recipe(path) if not found or any(isinstance(v, dict) for v in found.values()) else _keyframes(path)
    if words := _words(path, text):
        return words
    raise BadArtifact(
        f"{path}: expected a recipe, keyframes, a key in PEM or the words of a recording, got another text; mystudio "
        "has no use for it"
    )


def describe_training(path: Path) -> Description:
    """Describe the folder of a base's training run. Raises BadCheckpoint."""
    facts = training.load_facts(path)
    counters, model = facts["counters"], facts["settings"]["model"]
    images = {phase: counters[phase] for phase in ("supervised", "adversarial")}
    lines = {
        "what": f"{path.name}: a training run of a base",
        "content": f"{model['resolution']} px, z of {model['z_dim']} and w of {model['w_dim']} numbers",
        "progress": f"{counters['step']} steps; " + ", ".join(f"{n} images {phase}" for phase, n in images.items()),
        "data": ", ".join(f"{name} ({count})" for name, count, _ in facts["data"]),
        "state": f"in the phase {counters['phase'] or 'before the first one'}",
        "use": f"`mystudio base train -o {path}` continues it, `mystudio base export {path}` makes a base of it.",
    }
    return Description("training run", lines, {"images": images, "model": model, "step": counters["step"]})


def _shape(info: dict[str, str]) -> str:
    return (
        f"{info['resolution']} px, z of {info['z_dim']} and w of {info['w_dim']} numbers, "
        f"{info['mapping_layers']} mapping layers, at most {info['channel_max']} channels"
    )


def _base(path: Path) -> Description:
    info = read_info(path)
    load_generator(path)
    lines = {
        "what": f"{path.name}: a base generator",
        "content": _shape(info),
        "made": info.get("training") or f"from {info.get('source_file', 'an unknown file')}",
        "part": info.get("source_part", "the whole file"),
        "state": f"whole, {size_in_words(path.stat().st_size)}",
        "use": f"`mystudio personalize me.scan --base {path} -o me.avatar`",
    }
    return Description("generator", lines, info)


def _foreign(path: Path) -> Description:
    info = describe_checkpoint(path)
    lines = {
        "what": f"{path.name}: a checkpoint of another program with a StyleGAN2 generator",
        "content": _shape(info),
        "part": info["source_part"],
        "form": info["source_form"],
        "state": f"readable without running code, {size_in_words(path.stat().st_size)}",
        "use": f"`mystudio base import {path}` makes a base of it.",
    }
    return Description("checkpoint", lines, info)


def _encoder(path: Path) -> Description:
    encoder = load_encoder(path)
    count = sum(value.numel() for value in encoder.state_dict().values())
    base = path.name.removesuffix(".safetensors").removesuffix(".encoder")
    lines = {
        "what": f"{path.name}: the inversion encoder of a base",
        "content": f"{count} numbers, w of {len(encoder.mean)} numbers",
        "made": "by `mystudio base train-encoder`",
        "base": base,
        "state": f"whole, {size_in_words(path.stat().st_size)}",
        "use": f"`mystudio personalize --base {base}` finds it beside the base.",
    }
    return Description("encoder", lines, {"w_dim": len(encoder.mean), "numbers": count})


def _directions(path: Path) -> Description:
    shapes = shapes_of(path)
    first = next(iter(shapes.values()))
    lines = {
        "what": f"{path.name}: tensors by name, as directions for edits are stored",
        "content": ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:8]),
        "count": str(len(shapes)),
        "fits": f"avatars with a w of {first[-1] if first else 1} numbers",
        "state": f"whole, {size_in_words(path.stat().st_size)}",
        "use": f"`mystudio edit me.take -o TAKE2 --directions {path} --set {next(iter(shapes))}=1`",
    }
    return Description("directions", lines, {"shapes": {name: list(shape) for name, shape in shapes.items()}})


def _shard(path: Path) -> Description:
    shard = Shards(path, 1)
    image, code = shard.get(0)
    lines = {
        "what": f"{path.name}: training images of a base",
        "content": f"{len(shard)} images",
        "codes": f"{shard.code_size} numbers an image" if code is not None else "none",
        "name": shard.name,
        "state": f"whole, {size_in_words(path.stat().st_size)}",
        "use": f"`mystudio base train -o RUN --data {path}`",
    }
    return Description("training images", lines, {"images": len(shard), "code_size": shard.code_size})


def _tables(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tables of a recipe, of the stages or of a base's training. Raises BadRecipe."""
    try:
        resolve(path)
    except BadRecipe as first:
        try:
            resolve_base(path)
        except BadRecipe:
            raise first from None
    yield from ((name, table) for name, table in tomllib.loads(read_text(path)).items() if isinstance(table, dict))


def _recipe(path: Path) -> Description:
    tables = dict(_tables(path))
    keys = [f"{name}.{key}" for name, table in tables.items() for key in table]
    of_base = not all(name in resolve().tables() for name in tables)
    use = f"`mystudio base train --recipe {path} ...`" if of_base else f"`mystudio personalize --recipe {path} ...`"
    lines = {
        "what": f"{path.name}: a recipe",
        "content": f"{len(keys)} settings in {len(tables)} tables: {', '.join(tables)}",
        "settings": ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else ""),
        "stages": "training of a base" if of_base else "scan, personalize, reenact, render, live",
        "state": "every key and value is valid",
        "use": use,
    }
    return Description("recipe", lines, {"tables": tables})


def _keyframes(path: Path) -> Description:
    keys = read_keys(path)
    ends = [time for pairs in keys.values() for time, _ in pairs]
    lines = {
        "what": f"{path.name}: keyframes of edits",
        "content": ", ".join(f"{name} ({len(pairs)})" for name, pairs in keys.items()),
        "from": f"{min(ends):g} s",
        "to": f"{max(ends):g} s",
        "state": "every line is valid",
        "use": f"`mystudio edit me.take -o TAKE2 --keys {path}`",
    }
    return Description("keyframes", lines, {"keys": {name: list(pairs) for name, pairs in keys.items()}})


def _words(path: Path, text: str) -> Description | None:
    """The words that were shown while a clip was recorded; None if the text is something else."""
    try:
        found = json.loads(text)
        said, recorded = [str(item["text"]) for item in found["said"]], str(found["recorded"])
    except (ValueError, TypeError, LookupError):
        return None
    lines = {
        "what": f"{path.name}: the words that were shown while a clip was recorded",
        "content": f"{len(said)} items: {'; '.join(said)}",
        "recorded": recorded,
        "clip": f"digest {found.get('video_sha256', '?')}",
        "state": "not compared with the clip",
        "use": "`mystudio scan` puts them into the consent of the clip beside them.",
    }
    return Description("words", lines, {"said": said, "recorded": recorded})


def _key(path: Path, text: str) -> Description:
    private, certificates = "PRIVATE KEY-----" in text, text.count("-----BEGIN CERTIFICATE-----")
    option = "--sign-key" if private else "--sign-cert"
    lines = {
        "what": f"{path.name}: " + ("a private key" if private else "certificates") + " in PEM",
        "private key": "yes, keep it secret" if private else "no",
        "certificates": str(certificates),
        "password": "yes; mystudio needs a key without one" if "ENCRYPTED" in text else "no",
        "state": size_in_words(path.stat().st_size),
        "use": f"`mystudio render {option} {path} ...` signs clips with it.",
    }
    return Description("key", lines, {"private": private, "certificates": certificates})
