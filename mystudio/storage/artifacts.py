"""Scan, Performance, Avatar and Take as files: arrays in safetensors, images as PNG, the rest as JSON; no pickles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from mystudio import engines
from mystudio.errors import BadArtifact, reason
from mystudio.storage.manifest import Folder, open_folder, written
from mystudio.storage.upgrade import upgraded
from mystudio.storage.workspace import DRAFT, StageRun
from mystudio.types import Avatar, Performance, Take
from selfscan.face.notes import left_out
from selfscan.io.picture import PNG, png_fits
from selfscan.scan.without import without
from selfscan.types import Scan

KINDS = {Scan: "scan", Performance: "performance", Avatar: "avatar", Take: "take"}
VALUES, ARRAYS, GENERATOR_SUFFIX = "values.json", "arrays.safetensors", ".safetensors"
GENERATOR = f"generator{GENERATOR_SUFFIX}"  # of an avatar; those in the engine's state: state.NAME.safetensors
LEFT_OUT = "without"  # in an avatar's settings: numbers of images of its scan that training does not see
MAX_IMAGE_SIDE = 4096
MAX_IMAGES_BYTES = 2 << 30  # memory for all images of a scan; 250 images of 1024 px take 0.8 GB
Artifact = TypeVar("Artifact", Scan, Performance, Avatar, Take)


def save(artifact: Artifact, run: StageRun, extras: Mapping[str, bytes] | None = None, draft: bool = False) -> None:
    """Write an artifact in one atomic step.

    Args:
        artifact: what a stage returned.
        run: the run of the stage (workspace.stage).
        extras: additional files for people to look at, name -> content ("coverage.png").
        draft: the stage goes on and replaces it.
    Raises: OutputFailed: disk full or no permission; nothing was changed.
    """
    with run.writing(draft) as folder:
        write(artifact, folder)
        for name, content in (extras or {}).items():
            (folder / name).write_bytes(content)


def write(artifact: Artifact, folder: Path) -> None:
    """Write an artifact's files (no manifest) into an empty folder."""
    from safetensors.torch import save as to_bytes

    arrays: dict[str, Tensor] = {}
    values = _pack(artifact, "", arrays, folder)
    (folder / VALUES).write_text(json.dumps(values, indent=1) + "\n")
    (folder / ARRAYS).write_bytes(to_bytes(arrays))


def load(path: Path, cls: type[Artifact]) -> Artifact:
    """Read an artifact and verify every file.

    Raises: BadArtifact: the artifact is missing, damaged, hostile, or of another type or version.
    """
    for _ in range(20):
        before = written(path)
        folder = open_folder(path, KINDS[cls])
        try:
            found = read(folder, cls)
        except BadArtifact:
            if written(path) == before:
                raise  # otherwise a writer replaced the artifact during the read: read the new one
            continue
        if cls is not Performance or written(path) == before:  # mapped files may have been replaced since
            return found
    return read(open_folder(path, KINDS[cls]), cls)


def read(folder: Folder, cls: type[Artifact]) -> Artifact:
    """Read an opened artifact."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes
    from safetensors.torch import load_file

    try:  # a performance grows with its clip: the system can reclaim the memory of mapped arrays
        arrays = load_file(folder.verified(ARRAYS)) if cls is Performance else from_bytes(folder.read(ARRAYS))
        values = upgraded(json.loads(folder.read(VALUES)), KINDS[cls], folder.manifest.schema)
        return _unpack(cls, values, arrays, folder)
    except BadArtifact:
        raise
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise BadArtifact(
            f"{folder.path} does not hold a valid {KINDS[cls]} ({reason(error)}); make it again"
        ) from error


def load_performance(path: Path) -> Performance:
    """Read a performance and find its clip again, also after both were moved together."""
    performance, clip = load(path, Performance), open_folder(path).source("video")
    seen = dataclasses.replace(performance.observation, video=str(clip))
    return dataclasses.replace(performance, observation=seen)


def driver_warnings(take: Path) -> tuple[str, ...]:
    """Return the warnings about a take's driving clip; no array is read. Raises BadArtifact: as ``load``."""
    folder = open_folder(open_folder(take, "take").source("performance"), "performance")
    try:
        said = tuple(map(str, json.loads(folder.read(VALUES))["observation"].get("warnings", ())))
        return left_out(said) if others_of(take) != "drive" else said
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadArtifact(
            f"{folder.path} does not hold a valid performance ({reason(error)}); make it again"
        ) from error


def others_of(take: Path) -> str:
    """What another person of the driving clip does in a take, edited or not: "drive" or "leave-out"."""
    folder = open_folder(take, "take")
    while "others" not in folder.manifest.settings and (before := folder.source_if_there("take")):
        folder = open_folder(before, "take")
    return str(folder.manifest.settings.get("others", "drive"))


def driver_of(take: Path) -> Performance:
    """Read the performance of a take's driving clip. Raises BadArtifact: as ``load``."""
    return load(open_folder(take, "take").source("performance"), Performance)


def images_left_out(images: Collection[int]) -> dict[str, list[int]]:
    """What an avatar's manifest says about images of its scan that training does not see; nothing if it sees all."""
    return {LEFT_OUT: sorted({*images})} if images else {}


def load_scan_of(avatar: Path, scan: Path) -> Scan:
    """Read the scan that an avatar was made from, without the images that were left out. Raises BadArtifact."""
    return without(load(scan, Scan), images_left_out_of(open_folder(avatar, "avatar")))


def images_left_out_of(avatar: Folder) -> tuple[int, ...]:
    """Numbers of the images of its scan that an avatar was made without."""
    found = avatar.manifest.settings.get(LEFT_OUT, ())
    return tuple(number for number in found if isinstance(number, int)) if isinstance(found, (list, tuple)) else ()


def is_draft(path: Path) -> bool:
    """Whether an artifact was stored before its stage was finished. Raises BadArtifact: as ``load``."""
    return bool(open_folder(path).manifest.settings.get(DRAFT))


def engine_of(avatar: Path) -> str:
    """Return the name of the engine that made an avatar; no array is read. Raises BadArtifact: as ``load``."""
    folder = open_folder(avatar, "avatar")
    try:
        return str(json.loads(folder.read(VALUES))["engine"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BadArtifact(f"{folder.path} does not hold a valid avatar ({reason(error)}); make it again") from error


def _pack(value: Any, name: str, arrays: dict[str, Tensor], folder: Path) -> Any:
    if isinstance(value, torch.nn.Module):
        return _write_generator(value, name, folder)
    if isinstance(value, (np.ndarray, Tensor)):
        array = torch.as_tensor(value).detach().cpu().contiguous()
        own = array.untyped_storage().nbytes() == array.nbytes
        own = own and all(array.data_ptr() != other.data_ptr() for other in arrays.values())
        arrays[name] = array if own else array.clone()  # safetensors rejects tensors that share memory
        return {"$array": name}
    if isinstance(value, Scan):
        packed = {
            f.name: _pack(getattr(value, f.name), f.name, arrays, folder)
            for f in dataclasses.fields(value)
            if f.name != "images"
        }
        return packed | {"images": _write_images(value, folder)}
    if dataclasses.is_dataclass(value):
        return {
            f.name: _pack(getattr(value, f.name), _join(name, f.name), arrays, folder)
            for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(k): _pack(v, _join(name, str(k)), arrays, folder) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(v, _join(name, str(i)), arrays, folder) for i, v in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _unpack(hint: Any, value: Any, arrays: Mapping[str, Tensor], folder: Folder) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if type(None) in args:  # an optional field, such as an array that older versions did not store
        if value is None:
            return None
        hint = Union[tuple(part for part in args if part is not type(None))]  # noqa: UP007 - of parts known at run time
        origin, args = get_origin(hint), get_args(hint)
    if isinstance(value, dict) and "$generator" in value:
        return _read_generator(folder, value["$generator"])
    if isinstance(value, dict) and "$images" in value:
        return _read_images(folder, value["$images"])
    if isinstance(value, dict) and "$array" in value:
        tensor = arrays[value["$array"]]
        return tensor.numpy() if np.ndarray in (hint, origin) else tensor
    if np.ndarray in (hint, origin) or hint in (Tensor, torch.nn.Module):
        raise ValueError(f"expected an array, got {type(value).__name__}")
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        if hint is Avatar:
            hints["state"] = engines.named(value["engine"]).State
        known = {f.name for f in dataclasses.fields(hint)}
        return hint(**{k: _unpack(hints[k], v, arrays, folder) for k, v in value.items() if k in known})
    if origin in (dict, Mapping):
        return {k: _unpack(args[1], v, arrays, folder) for k, v in value.items()}
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return tuple(_unpack(args[0], v, arrays, folder) for v in value)
    if hint in (dict, Any):
        return value
    from pydantic import TypeAdapter

    return TypeAdapter(hint).validate_python(value)  # its ValidationError is a ValueError


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _write_generator(value: torch.nn.Module, name: str, folder: Path) -> dict[str, str]:
    """Write one file for each generator of an artifact, named after its field."""
    from mystudio.stylegan2.checkpoint import save_generator
    from mystudio.stylegan2.generator import Generator

    if not isinstance(value, Generator):
        raise TypeError(f"{name}: expected a stylegan2.Generator, got {type(value).__name__}; store its state_dict()")
    file = f"{name}{GENERATOR_SUFFIX}"
    save_generator(value, folder / file)
    return {"$generator": file}


def _read_generator(folder: Folder, name: Any) -> torch.nn.Module:
    from mystudio.stylegan2.checkpoint import load_generator

    if not isinstance(name, str):
        raise ValueError(f"expected the name of a generator's file, got {type(name).__name__}")
    return load_generator(folder.verified(name))


def _write_images(scan: Scan, folder: Path) -> dict[str, list[str]]:
    import cv2

    (folder / "images").mkdir()
    names = [f"images/{index:06d}.png" for index in scan.frame_index]
    for name, image in zip(names, scan.images):
        coded, data = cv2.imencode(".png", image[..., ::-1])
        if not coded:
            raise OSError(f"{name} could not be encoded")
        (folder / name).write_bytes(data.tobytes())
    return {"$images": names}


def _read_images(folder: Folder, names: list[str]) -> np.ndarray:
    """Read images of one size; the first image gives the memory that all of them need."""
    first = _read_image(folder, names[0])
    if first.nbytes * len(names) > MAX_IMAGES_BYTES:
        raise BadArtifact(
            f"{folder.path} holds {len(names)} images of {first.shape[1]} x {first.shape[0]} px, which "
            f"take more than {MAX_IMAGES_BYTES >> 30} GB together; make the scan again with fewer"
        )
    images = np.empty((len(names), *first.shape), np.uint8)
    for image, name in zip(images, names):
        image[:] = _read_image(folder, name, first.shape)
    return images


def _read_image(folder: Folder, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    import cv2

    data = folder.read(name)
    sides = (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))  # in the PNG header
    whole = data[: len(PNG)] == PNG and png_fits(BytesIO(data))
    if not whole or not all(0 < side <= MAX_IMAGE_SIDE for side in sides):
        raise BadArtifact(
            f"{folder.path / name} is not a whole PNG of at most {MAX_IMAGE_SIDE} px; make the artifact again"
        )
    if shape is not None and sides != shape[1::-1]:
        raise BadArtifact(
            f"{folder.path / name} has {sides[0]} x {sides[1]} px, the first image has {shape[1]} x "
            f"{shape[0]}; make the artifact again"
        )
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise BadArtifact(f"{folder.path / name} cannot be decoded; make the artifact again")
    return np.ascontiguousarray(image[..., ::-1])
