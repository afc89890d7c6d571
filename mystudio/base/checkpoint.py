"""A training run's checkpoint on disk: one or several files of safetensors bytes, and a small index that lists them.

The index is replaced last, in one step, so a killed writer leaves the previous checkpoint valid. The previous
checkpoint is kept until the next save. If the newest one is damaged, the run resumes from the previous one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mystudio.errors import BadCheckpoint, OutputFailed
from mystudio.storage.journal import write_bytes
from mystudio.storage.manifest import digest_of

INDEX, BEFORE = "checkpoint.json", "checkpoint.before.json"  # index of the newest checkpoint, and of the previous one
BASE = "base-training"  # kind of a run of `mystudio base train`
MAX_INDEX = 8 << 20  # bytes
MAX_PARTS = 10_000
Read = TypeVar("Read")
log = logging.getLogger(__name__)
MAX_BYTES = 16 << 30  # limit for all parts together; a generator of 1024 px with Adam's moments takes 0.7 GB


def save(
    folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any], max_part_mb: float = 0, kind: str = BASE
) -> None:
    """Write a checkpoint atomically.

    Args:
        folder: of the run. tensors: by name. facts: JSON values. max_part_mb: largest file, MiB; 0 = one file.
        kind: of the run; only the same kind reads it.
    Raises: OutputFailed: it cannot be written; the previous checkpoint stays valid.
    """
    data = memoryview(to_safetensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))
    size = int(max_part_mb * (1 << 20)) or len(data)
    stem = f"checkpoint-{secrets.token_hex(4)}"
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    parts = [
        {"file": f"{stem}-{k:03d}.part", "bytes": len(p), "sha256": hashlib.sha256(p).hexdigest()}
        for k, p in enumerate(pieces)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, piece in zip(parts, pieces):
            write_bytes(folder / part["file"], piece)
        index = {"kind": kind, "version": 1, "facts": facts, "parts": parts}
        with suppress(BadCheckpoint):  # if there is none yet, or it is damaged, the previous one is kept
            _index(folder, INDEX, kind)
            write_bytes(folder / BEFORE, (folder / INDEX).read_bytes())
        write_bytes(folder / INDEX, json.dumps(index | {"sha256": digest_of(index)}, indent=1).encode())
    except OSError as error:
        _remove(folder, keep=_named(folder, kind))
        raise OutputFailed(
            f"could not write a checkpoint to {folder}: {error.strerror}; free space and run the same "
            "command again, it resumes from the previous checkpoint"
        ) from error
    _remove(folder, keep=_named(folder, kind))


def load(folder: Path, kind: str = BASE) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the newest checkpoint. If it is damaged, log a warning and read the previous one.

    Returns: tensors by name, and the facts.
    Raises: BadCheckpoint: both are missing, damaged or not checkpoints; the message describes the newest one.
    """
    return _newest(folder, lambda place, name: _load(place, name, kind))


def _newest(folder: Path, read: Callable[[Path, str], Read]) -> Read:
    try:
        return read(folder, INDEX)
    except BadCheckpoint as error:
        try:
            found = read(folder, BEFORE)
        except BadCheckpoint:
            raise error from None
        log.warning("%s; resuming from the previous checkpoint", error)
        return found


def _load(folder: Path, name: str, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    index, pieces = _index(folder, name, kind), []
    for part in index["parts"]:
        path = folder / Path(part["file"]).name
        try:
            with open(path, "rb") as file:
                piece = file.read(part["bytes"] + 1)
        except OSError as error:
            raise BadCheckpoint(f"expected a part of the checkpoint at {path}: {error.strerror}; copy it") from error
        if len(piece) != part["bytes"] or hashlib.sha256(piece).hexdigest() != part["sha256"]:
            raise BadCheckpoint(
                f"expected the part of the checkpoint that was written, got changed bytes: {path}; copy it again"
            )
        pieces.append(piece)
    try:
        return from_safetensors(b"".join(pieces)), index["facts"]
    except (SafetensorError, ValueError) as error:
        raise BadCheckpoint(f"expected a whole checkpoint in {folder}, got a damaged one; copy it again") from error


def is_begun(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return (folder / INDEX).exists() or (folder / BEFORE).exists()


def is_free(folder: Path) -> bool:
    """Whether a new run may use the folder: it is empty, or holds only the parts of an unfinished first checkpoint."""
    return not folder.exists() or folder.is_dir() and set(folder.iterdir()) == set(_parts(folder))


def load_facts(folder: Path, kind: str = BASE) -> dict[str, Any]:
    """The facts of a checkpoint, without its tensors. Raises BadCheckpoint."""
    return _newest(folder, lambda place, name: _index(place, name, kind))["facts"]


def lightened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a smaller checkpoint: averaged generator and discriminator as float16, without Adam's moments."""
    return {
        name: value.to(torch.float16) if value.numel() >= 128 and value.dtype == torch.float32 else value
        for name, value in tensors.items()
        if name.startswith(("ema.", "d.", "state."))
    }


def _index(folder: Path, name: str, kind: str) -> dict[str, Any]:
    try:
        with open(folder / name, "rb") as file:
            index = json.loads(file.read(MAX_INDEX))
        said = index.pop("sha256", None)  # older runs have no checksum
        if said is not None and said != digest_of(index):
            raise ValueError
        if index["kind"] != kind or len(index["parts"]) > MAX_PARTS:
            raise ValueError
        sizes = [part["bytes"] for part in index["parts"] if isinstance(part["file"] + part["sha256"], str)]
        if not all(type(size) is int and size >= 0 for size in sizes) or sum(sizes) > MAX_BYTES:
            raise ValueError
        index["facts"]["settings"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadCheckpoint(
            f"expected a training run in {folder}, got no readable {INDEX} of one ({kind}); give the folder that the "
            f"training command's -o named"
        ) from error
    return index


def _named(folder: Path, kind: str) -> set[str]:
    """Names of the parts that an index lists."""
    named = set()
    for name in (INDEX, BEFORE):
        with suppress(BadCheckpoint):
            named |= {part["file"] for part in _index(folder, name, kind)["parts"]}
    return named


def _remove(folder: Path, keep: set[str]) -> None:
    for path in _parts(folder):
        if path.name not in keep:
            path.unlink(missing_ok=True)


def _parts(folder: Path) -> list[Path]:
    return [*folder.glob("checkpoint-*.part"), *folder.glob(".checkpoint*.new")]
