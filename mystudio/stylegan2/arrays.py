"""References to the numbers in a foreign checkpoint, and stand-ins for numpy's numbers and arrays in it.

Nothing of numpy's own unpickling runs: the stand-ins check types, byte order and sizes before a number is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mystudio.errors import BadCheckpoint
from mystudio.stylegan2.stand_ins import Buildable

_MAX_TEXT = 64 << 20  # characters that a file may turn into bytes altogether: every call copies
_SCALAR = {
    "f8": "<d", "f4": "<f", "f2": "<e", "b1": "<?",
    "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b",
    "u8": "<Q", "u4": "<I", "u2": "<H", "u1": "<B",
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """A contiguous block of numbers in a file, not read yet."""

    code: str  # kind and bytes of a number: f4, i8, b2 (bfloat16), ...
    numel: int
    read: Callable[[], bytes | memoryview]


@dataclass(frozen=True)
class TensorRef:
    """A tensor's position in a storage; ``load`` copies its numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def drop(self, *axes: int) -> TensorRef:
        """Remove axes of length one; axes that are longer or absent are ignored."""
        kept = [i for i, n in enumerate(self.size) if not (i in axes and n == 1)]
        return TensorRef(
            self.storage, self.offset, tuple(self.size[i] for i in kept), tuple(self.stride[i] for i in kept)
        )

    def load(self) -> Tensor:
        """The numbers as a new contiguous float32 tensor."""
        code, raw = self.storage.code, self.storage.read()
        if code == "b2":
            flat = torch.from_numpy(np.frombuffer(raw, "<i2").copy()).view(torch.bfloat16)
        elif code[0] == "f":
            flat = torch.from_numpy(np.frombuffer(raw, f"<{code}").copy())
        else:
            raise BadCheckpoint(f"expected weights as floating-point numbers in the checkpoint, got type {code}")
        return flat.as_strided(self.size, self.stride, self.offset).to(torch.float32).clone().contiguous()


class DType(Buildable):
    """Stand-in for numpy.dtype: type and byte order of a scalar."""

    __slots__ = ("code",)

    def __init__(self, code: str, *_: Any):
        self.code = code

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise BadCheckpoint("expected little-endian numpy numbers in the checkpoint, got another kind")


class ArrayRef(TensorRef, Buildable):
    """Stand-in for numpy.ndarray: without numbers until the pickle sets its state."""

    def __init__(self, *_: Any):
        super().__init__(Storage("f4", 0, bytes), 0, (0,), (1,))

    def build(self, state: Any) -> None:
        _, size, dtype, fortran, raw = state
        code = dtype.code if isinstance(dtype, DType) else None
        whole = isinstance(size, tuple) and len(size) <= 8 and all(type(n) is int and n >= 0 for n in size)
        if code not in _SCALAR or not whole or not isinstance(raw, bytes | bytearray):
            raise BadCheckpoint("expected arrays of plain numpy numbers in the checkpoint, got another kind")
        if len(raw) != math.prod(size) * int(code[1]):
            raise BadCheckpoint("expected the numbers of an array in the checkpoint, got another count")
        sides = size if fortran else size[::-1]
        steps = tuple(math.prod(sides[:axis]) for axis in range(len(sides)))
        found = TensorRef(
            Storage(code, math.prod(size), lambda: memoryview(raw)), 0, size, steps if fortran else steps[::-1]
        )
        self.__dict__.update(vars(found))


def array_from_bytes(raw: bytes, dtype: DType, size: tuple, order: str) -> ArrayRef:
    """The stand-in for an array that protocol 5 of pickle stores as its bytes; order is "C" or "F"."""
    array = ArrayRef()
    array.build((1, size, dtype, order == "F", raw))
    return array


def scalar(dtype: DType, raw: bytes) -> float | int | bool:
    """The number that a pickled scalar of numpy holds."""
    if not isinstance(dtype, DType) or dtype.code not in _SCALAR:
        raise BadCheckpoint("expected plain numpy numbers in the checkpoint, got another kind")
    return struct.unpack(_SCALAR[dtype.code], raw)[0]


class Latin1:
    """Stand-in for ``_codecs.encode``, by which old pickles store bytes; it counts what a file turns into bytes."""

    def __init__(self, most: int = _MAX_TEXT):
        self.left = most

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if type(text) is str and encoding == "latin1":
            self.left -= len(text)
        else:
            self.left = -1
        if self.left < 0:
            raise BadCheckpoint("expected short latin-1 bytes in the checkpoint, got something else")
        return text.encode("latin1")
