"""Files of directions for edits, as other programs write them: safetensors, numpy and torch files, told by content."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mystudio.errors import BadEdit, StudioError, reason
from mystudio.storage import npz
from mystudio.stylegan2.arrays import TensorRef
from mystudio.stylegan2.torchfile import open_torch

MAX_FILE = 64 << 20  # bytes, largest accepted file of directions
MAX_DEPTH = 3  # dictionaries inside dictionaries
KINDS = ".safetensors, .npz, .npy, .pt or .pth"


def load_directions(
    path: Path, size: int, layers: int | None = None, wanted: Collection[str] = ()
) -> dict[str, Tensor]:
    """Read directions in W from a file of another program or of mystudio.

    A file with one tensor without a name gives one direction, which has the file's name without its ending. Axes of
    length one are ignored. Any floating-point or whole numbers are accepted. No code in a file is executed. Tensors
    that are no directions of this generator are left out, unless they are wanted or nothing else is there.

    Args:
        size: D, numbers of a w. layers: L, layers of the generator; None = a direction is the same in all layers.
        wanted: names that must fit if the file has them.
    Returns: name -> [D]; or [L, D] if the file moves each layer in its own way.
    Raises: BadEdit: another format, a shape that does not fit, or numbers that are not finite.
    """
    path = Path(path)
    fitting, faults = {}, {}
    for name, value in _read(path).items():
        try:
            fitting[name] = _fitting(path, name, value, size, layers)
        except BadEdit as error:
            faults[name] = error
    for name, fault in faults.items():
        if name in wanted or not fitting:
            raise fault
    return fitting


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file of directions, whether they fit an avatar or not. Raises BadEdit."""
    path = Path(path)
    return {name: tuple(value.shape) for name, value in _read(path).items()}


def direction_name(text: str) -> str:
    """Return a direction's name in one spelling: NFC, without a byte order mark or spaces around it."""
    return unicodedata.normalize("NFC", text).strip("\ufeff \t\r\n")


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        raise BadEdit(f"{path} is a folder, expected a file of directions; give a file as {KINDS}")
    try:
        if path.stat().st_size > MAX_FILE:
            raise ValueError(f"more than {MAX_FILE} bytes")
        found = dict(_tensors(path))
    except Exception as error:  # readers raise different types; the user needs one message
        raise BadEdit(f"{path}: expected directions as {KINDS} ({reason(error)})") from error
    if not found:
        raise BadEdit(f"{path}: expected at least one direction, found no tensor; give a file of named tensors")
    return found


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a file by name, of any shape. Raises errors of many types."""
    with open(path, "rb") as file:
        first = file.read(8)
    if first.startswith(b"\x93NUMPY"):
        yield direction_name(path.stem), _numbers(npz.load_array(path, MAX_FILE))
    elif first.startswith(b"PK") and _is_npz(path):
        yield from ((direction_name(k), _numbers(v)) for k, v in npz.load(path, most=MAX_FILE).items())
    elif first.startswith((b"PK", b"\x80")) and path.suffix.lower() != ".safetensors":
        yield from _from_torch(open_torch(path), direction_name(path.stem))
    else:
        if not 2 <= int.from_bytes(first, "little") <= path.stat().st_size - 8:  # length of a safetensors header
            raise ValueError("its content is none of these")
        from safetensors.torch import load_file

        yield from ((direction_name(k), v) for k, v in load_file(path).items())


def _is_npz(path: Path) -> bool:
    with npz.Zip(path) as archive:
        return not any(name.endswith("data.pkl") for name in archive.namelist())


def _numbers(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"expected numbers, got {array.dtype}")
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite, which is told later
        return torch.from_numpy(np.array(array, np.float32, order="C"))


def _from_torch(content: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, TensorRef):
        yield name, content.load()
        return
    if not isinstance(content, Mapping):
        raise StudioError(f"the file holds a {type(content).__name__}; expected a tensor, or a dictionary of them")
    for key, value in content.items():  # other entries, such as a text about the file, are no directions
        if isinstance(value, TensorRef):
            yield direction_name(str(key)), value.load()
        elif isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _from_torch(value, "", depth + 1)


def _fitting(path: Path, name: str, value: Tensor, size: int, layers: int | None) -> Tensor:
    if value.is_complex() or value.dtype == torch.bool:
        raise BadEdit(f"{path}: direction {name!r}: expected floating-point numbers, got {value.dtype}")
    found = value.float().squeeze()
    found = found.reshape(-1) if found.numel() == size == 1 else found
    if found.shape == (layers, size) and layers and bool((found == found[0]).all()):
        found = found[0]
    if found.shape not in ((size,), (layers, size)):
        hint = "it belongs to a generator of another size"
        if found.ndim and found.shape[-1] == size:
            hint = "if it holds several directions, store each as a tensor of its own"
        wanted = f"[{size}]" + (f" (the same for all layers) or [{layers}, {size}] (layer by layer)" if layers else "")
        raise BadEdit(
            f"{path}: direction {name!r}: expected a shape of {wanted} for this avatar, got shape "
            f"{list(value.shape)}; {hint}"
        )
    if not bool(found.isfinite().all()):
        raise BadEdit(f"{path}: direction {name!r}: expected {size} finite numbers, got NaN or infinity")
    return found.contiguous()
