"""Read .npz files of unknown origin: pickles are rejected, and sizes are checked before memory is allocated."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from mystudio.errors import reason
from selfscan.types import Array

MAX_BYTES = 1 << 30  # default limit for all arrays of a file together
MAX_ARRAYS = 1000
MAX_DIRECTORY = 16 << 20  # bytes of a zip's list of members
#: errors that zipfile, zlib and numpy raise on damaged archives and arrays
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    SyntaxError,
    RecursionError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def load(path: str | Path, names: Sequence[str] | None = None, most: int = MAX_BYTES) -> dict[str, Array]:
    """Read the arrays of a .npz file.

    Args:
        path: .npz file, compressed or not. names: arrays to read; None = all.
        most: limit in bytes for all arrays together.
    Returns: name -> array.
    Raises: ValueError: an array is missing, damaged, too large, or holds Python objects.
    """
    try:
        with Zip(path) as archive:
            members = {
                info.filename.removesuffix(".npy"): info
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
            wanted = list(members) if names is None else list(names)
            if missing := [name for name in wanted if name not in members]:
                raise ValueError(f"there is no array {missing[0]!r}")
            if len(wanted) > MAX_ARRAYS or sum(members[name].file_size for name in wanted) > most:
                raise ValueError(f"more than {MAX_ARRAYS} arrays or {most} bytes")
            return {name: _array(archive, members[name]) for name in wanted}
    except DAMAGE as error:
        raise ValueError(reason(error)) from None


def load_array(path: str | Path, most: int = MAX_BYTES) -> Array:
    """Read a .npy file of at most ``most`` bytes.

    Raises: ValueError: it is damaged, too large, or holds Python objects.
    """
    try:
        with open(path, "rb") as stream:
            shape, fortran, dtype = header(stream)
            size = math.prod(shape) * dtype.itemsize
            data = stream.read(min(size, most) + 1)
    except DAMAGE as error:
        raise ValueError(reason(error)) from None
    if len(data) != size:
        raise ValueError(f"expected {size} bytes of numbers and at most {most}, got {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


class Zip(zipfile.ZipFile):
    """A zip opened for reading, with a limit on the size of its directory. Raises the errors in ``DAMAGE``."""

    _limited: _Limited | None = None  # until the file is open

    def __init__(self, path: str | Path):
        self._limited = _Limited(path)
        try:
            super().__init__(self._limited)
        except BaseException:
            self._limited.close()
            raise
        self._limited.most = None

    def close(self) -> None:
        """Close the file too."""
        if self._limited:
            super().close()
            self._limited.close()


def header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of a .npy: shape, whether in Fortran order, and dtype. The stream is left at the first number.

    Raises: ValueError: the header is damaged or describes Python objects.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about headers written by Python 2 and about damaged ones
            shape, fortran, dtype = read(stream)
    except DAMAGE as error:
        raise ValueError(f"no array ({reason(error)})") from None
    if dtype.hasobject or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape) or len(shape) > 32:
        raise ValueError("an array of Python objects or of an impossible shape")
    return shape, fortran, dtype


class _Limited(io.FileIO):
    """A file with a limit of ``most`` bytes for each read."""

    most: int | None = MAX_DIRECTORY

    def read(self, size: int = -1) -> bytes:
        if self.most is None:
            return super().read(size)
        data = super().read(self.most + 1 if size < 0 else min(size, self.most + 1))
        if len(data) > self.most:
            raise zipfile.BadZipFile("its list of members is absurdly long")
        return data


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as stream:
        shape, fortran, dtype = header(stream)
        size = math.prod(shape) * dtype.itemsize
        if size > info.file_size:
            raise ValueError(f"{info.filename[:80]!r} holds fewer numbers than it says")
        data = bytearray(stream.read(size))
        stream.read(1)  # reading to the end makes zipfile compare the checksum
    if len(data) != size:
        raise ValueError(f"{info.filename[:80]!r} holds fewer numbers than it says")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
