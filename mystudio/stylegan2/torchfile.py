"""Read the tensors in torch files (zip and legacy) and in pickles of torch modules as plain data.

Neither torch nor Python unpickles anything: ``unpickle.read_pickle`` interprets the pickles with the allow-list below.
Tensors and numpy arrays are references into the file until ``TensorRef.load`` copies their numbers.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

from mystudio.errors import BadCheckpoint
from mystudio.storage import npz
from mystudio.stylegan2.arrays import ArrayRef, DType, Latin1, Storage, TensorRef, array_from_bytes, scalar
from mystudio.stylegan2.stand_ins import Fields, Marker, Record, quoted
from mystudio.stylegan2.unpickle import Budget, read_pickle

MAX_FILE = 4 << 30  # bytes; the largest public StyleGAN2 checkpoint, with optimiser states, has less than 1 GB
_MAX_ZIP_PICKLE = 64 << 20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGE = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "b2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?1",
}


def open_torch(path: Path) -> Any:
    """Read the object in a checkpoint file: tensors become ``TensorRef``, foreign objects ``Record``.

    Args:
        path: a pickle that contains torch modules, or a file by ``torch.save`` (zip or legacy).

    Raises:
        UnsafeCheckpoint: the file requests more than data.
        BadCheckpoint: the file is missing, damaged, truncated or too large.
    """
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_FILE:
            raise BadCheckpoint(f"expected a checkpoint of 1 byte to {MAX_FILE >> 30} GB, got {size} bytes: {path}")
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise BadCheckpoint(f"expected a checkpoint at {path}, which cannot be read: {error.strerror}") from error
    budget = Budget()
    if data[:4] == b"PK\x03\x04":
        return _read_zip(path, budget)
    stream = cast(IO[bytes], data)  # the pickle reader calls only read, readline and tell
    first = read_pickle(stream, _allowed(budget), budget)
    return _read_legacy(stream, memoryview(data), _allowed(budget), budget) if first == _LEGACY_MAGIC else first


def _read_zip(path: Path, budget: Budget) -> Any:
    try:
        archive = npz.Zip(path)
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1 or archive.getinfo(pickles[0]).file_size > _MAX_ZIP_PICKLE:
            raise BadCheckpoint(
                f"expected one data.pkl in the zip file {path.name}, got {len(pickles)} or a huge one; "
                "give a file written by torch.save"
            )
        root = pickles[0][: -len("data.pkl")]
        order = _entry(archive, f"{root}byteorder") if f"{root}byteorder" in archive.namelist() else b"little"
        content = _entry(archive, pickles[0])
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError, NotImplementedError, EOFError) as error:
        raise BadCheckpoint(
            f"expected a whole zip file by torch.save, got a damaged one: {path.name}; fetch it again"
        ) from error
    if order != b"little":
        raise BadCheckpoint(f"expected little-endian numbers in {path.name}, got another byte order")

    def storage(identity: Any) -> Storage:
        code, key, numel = _storage_id(identity, 5)
        return Storage(code, numel, lambda: _sized(_entry(archive, f"{root}data/{key}"), code, numel))

    return read_pickle(io.BytesIO(content), _allowed(budget), budget, storage)


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise BadCheckpoint("expected uncompressed entries as torch.save writes them, got a compressed one")
        return archive.read(entry)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        raise BadCheckpoint(
            f"expected the entry {quoted(name)} in the checkpoint, which is missing or damaged; fetch the file again"
        ) from error


def _read_legacy(stream: IO[bytes], data: memoryview, allowed: dict, budget: Budget) -> Any:
    """Read a legacy file after its magic number: protocol, system, object, keys, then the raw storages."""
    sources: dict[str, tuple[int, memoryview]] = {}

    def storage(identity: Any) -> Storage:
        code, key, numel = _storage_id(identity, 6)

        def read() -> memoryview:
            if key not in sources:
                raise BadCheckpoint(
                    "expected the numbers of every tensor in the checkpoint, some are missing; fetch the file again"
                )
            stored, raw = sources[key]
            return _sized(raw[: numel * int(code[1])] if stored == numel else raw[:0], code, numel)

        return Storage(code, numel, read)

    read_pickle(stream, {}, budget)
    system = read_pickle(stream, {}, budget)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BadCheckpoint("expected a little-endian torch file, got another one")
    widths: dict[str, int] = {}

    def noted(identity: Any) -> Storage:
        found = storage(identity)
        widths[identity[2]] = int(found.code[1])
        return found

    value = read_pickle(stream, allowed, budget, noted)
    keys = read_pickle(stream, {}, budget)
    if not isinstance(keys, list) or any(type(key) is not str or key not in widths for key in keys):
        raise BadCheckpoint("expected the list of storages in the checkpoint, got a damaged one; fetch it again")
    position = stream.tell()
    for key in keys:
        head = bytes(data[position : position + 8])
        numel = struct.unpack("<q", head)[0] if len(head) == 8 else -1
        end = position + 8 + numel * widths[key]
        if numel < 0 or end > len(data):
            raise BadCheckpoint("expected all numbers of the checkpoint, the file ends before; fetch it again")
        sources[key] = (numel, data[position + 8 : end])
        position = end
    return value


def _storage_id(identity: Any, length: int) -> tuple[str, str, int]:
    """Check the persistent id ("storage", type, key, location, numel[, view]) that torch writes for a storage."""
    if not isinstance(identity, tuple) or len(identity) != length or identity[0] != "storage":
        raise BadCheckpoint("expected only tensors as outside objects of the checkpoint, got something else")
    code = _STORAGE.get(identity[1].name.removeprefix("torch ")) if isinstance(identity[1], Marker) else ""
    key, numel = identity[2], identity[4]
    fits = type(key) is str and len(key) < 64 and type(numel) is int and 0 <= numel <= MAX_FILE
    if not code or not fits or identity[5:] not in ((), (None,)):
        raise BadCheckpoint("expected a tensor's storage in the checkpoint, got one of an unknown type or form")
    return code, key, numel


def _sized(raw: Any, code: str, numel: int) -> Any:
    if len(raw) != numel * int(code[1]):
        raise BadCheckpoint(
            f"expected {numel} numbers in a storage of the checkpoint, got another count; fetch the file again"
        )
    return raw


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> TensorRef:
    numbers = (offset, *size, *stride)
    if (
        not isinstance(storage, Storage)
        or len(size) != len(stride)
        or len(size) > 8
        or any(type(n) is not int or not 0 <= n <= MAX_FILE for n in numbers)
    ):
        raise BadCheckpoint("expected a tensor's storage, offset, size and stride in the checkpoint, got a damaged one")
    numel, last = 1, offset
    for n, step in zip(size, stride):
        numel, last = numel * n, last + max(n - 1, 0) * step
    if numel > storage.numel or (numel and last >= storage.numel):
        raise BadCheckpoint("expected tensors inside their storage in the checkpoint, got one that reaches outside")
    return TensorRef(storage, offset, tuple(size), tuple(stride))


def _parameter(data: TensorRef, *_: Any) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise BadCheckpoint("expected a tensor inside a parameter of the checkpoint, got something else")
    return data


def _value(*_: Any) -> Record:
    return Record("value")  # of an option, which no weight depends on


def _persistent_object(meta: dict) -> Record:
    name, state = (meta.get("class_name"), meta.get("state")) if isinstance(meta, dict) else (None, None)
    if type(name) is not str or not isinstance(state, dict):
        raise BadCheckpoint("expected class name and state of a network in the checkpoint, got a damaged object")
    return Record(name, state)


def _allowed(budget: Budget) -> dict[str, Callable | None]:
    """The allow-list: "module name" -> stand-in; None = the pickle may name it but not call it."""

    def ordered(items: Sequence = ()) -> Fields:
        budget.spend(len(items))
        return Fields((key, value) for key, value in items if isinstance(key, str))

    def members(items: Sequence = ()) -> set:
        budget.spend(len(items))
        return {item for item in items if isinstance(item, str | int)}

    def storage_from_bytes(raw: bytes) -> Storage:
        stream = io.BytesIO(raw)
        if read_pickle(stream, {}, budget) != _LEGACY_MAGIC:
            raise BadCheckpoint("expected a torch storage inside the checkpoint, got something else")
        value = _read_legacy(stream, memoryview(raw), dict.fromkeys(mentioned), budget)
        if not isinstance(value, Storage):
            raise BadCheckpoint("expected a torch storage inside the checkpoint, got something else")
        return value

    mentioned = [f"torch {name}" for name in (*_STORAGE, "float16", "float32", "float64", "bfloat16", "int64", "uint8")]
    return {
        **dict.fromkeys(mentioned),
        "collections OrderedDict": ordered,
        "dnnlib.util EasyDict": ordered,
        "dnnlib EasyDict": ordered,
        "builtins set": members,
        "__builtin__ set": members,
        "_codecs encode": Latin1(),
        "easydict EasyDict": ordered,
        "argparse Namespace": lambda: Record("Namespace"),
        **dict.fromkeys(("pathlib PosixPath", "pathlib WindowsPath", "torch device", "torch Size"), _value),
        "numpy dtype": DType,
        "numpy ndarray": None,
        **{f"numpy.{core}.multiarray scalar": scalar for core in ("core", "_core")},
        **{f"numpy.{core}.multiarray _reconstruct": ArrayRef for core in ("core", "_core")},
        **{f"numpy.{core}.numeric _frombuffer": array_from_bytes for core in ("core", "_core")},
        "torch._utils _rebuild_tensor": _tensor,
        "torch._utils _rebuild_tensor_v2": _tensor,
        "torch._utils _rebuild_parameter": _parameter,
        "torch._utils _rebuild_parameter_with_state": _parameter,
        "torch.storage _load_from_bytes": storage_from_bytes,
        "torch_utils.persistence _reconstruct_persistent_obj": _persistent_object,
    }
