"""Sources of training images: folders, shards of images with codes, and images rendered on demand."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mystudio.base.probe import image_size
from mystudio.errors import BadData
from mystudio.storage import npz

MAX_COMPRESSED = 4 << 30  # bytes of an array that is not memory-mapped
_SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageSource(Protocol):
    """A source of training images, each with a code or without."""

    @property
    def name(self) -> str: ...

    @property
    def code_size(self) -> int:
        """Numbers in a code; 0 = the images have no codes."""
        ...

    def __len__(self) -> int: ...

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Image [R, R, 3] uint8 RGB, and its code [Z] float32 or None. Safe to call from any thread."""
        ...


class ImageFolder:
    """Square JPEG and PNG images in a folder and its subfolders, decoded on demand.

    Args:
        path: the folder. resolution: px that images are reduced to.
    Raises:
        BadData: there is no image, or an image is damaged, not square or smaller than ``resolution``.
    """

    code_size = 0

    def __init__(self, path: str | Path, resolution: int):
        root = Path(path)
        self.name, self.resolution = root.name, resolution
        self.files = sorted(
            (
                p
                for p in root.rglob("*")
                if p.suffix.lower() in _SUFFIXES and p.is_file() and not p.name.startswith(".")
            ),
            key=lambda p: p.relative_to(root).as_posix(),
        )
        if not self.files:
            raise BadData(f"{root}: expected JPEG or PNG images, found none; give the folder that holds them")
        for file in self.files:
            width, height = image_size(file)
            if width != height or width < resolution:
                raise BadData(
                    f"{file}: expected a square image of at least {resolution} px, got {width} x {height}; "
                    "crop it, remove it, or train at a lower resolution"
                )

    def __len__(self) -> int:
        return len(self.files)

    def get(self, index: int) -> tuple[np.ndarray, None]:
        """Decode an image. Raises BadData if that fails."""
        import cv2

        path = self.files[index]
        try:
            image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        except (OSError, cv2.error):
            image = None
        if image is None:
            raise BadData(f"{path}: expected an image that can be decoded, got a damaged one; remove it")
        return reduced(np.ascontiguousarray(image[..., ::-1]), self.resolution), None


class Shards:
    """Images with codes in .npz files: ``images`` uint8 [N, H, H, 3] RGB and ``codes`` [N, Z], standard normal.

    Uncompressed files (np.savez) are memory-mapped; compressed ones are read into memory.

    Args:
        path: a file, or a folder of such files. resolution: px that images are reduced to.
    Raises:
        BadData: a file is missing or damaged, or its arrays have other types or shapes.
    """

    def __init__(self, path: str | Path, resolution: int):
        path = Path(path)
        files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        self.name, self.resolution = path.stem, resolution
        self._parts = [_open_shard(file, resolution) for file in files]
        sizes = {codes.shape[1] for _, codes in self._parts}
        if len(sizes) != 1:
            raise BadData(f"{path}: expected shards with codes of one size, got {sorted(sizes) or 'no .npz file'}")
        self.code_size = sizes.pop()
        self._ends = np.cumsum([len(codes) for _, codes in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def codes(self) -> np.ndarray:
        """All codes [N, Z] float32."""
        return np.concatenate([np.asarray(codes, np.float32) for _, codes in self._parts])

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """An image and its code."""
        part = int(np.searchsorted(self._ends, index, "right"))
        images, codes = self._parts[part]
        row = index - (int(self._ends[part - 1]) if part else 0)
        return reduced(np.asarray(images[row]), self.resolution), np.asarray(codes[row], np.float32)


@dataclass(frozen=True)
class Rendered:
    """An endless source: image number n is drawn when it is needed.

    ``draw(number)`` returns an image [R, R, 3] uint8 and its code [Z]. It must be deterministic and thread-safe.
    """

    draw: Callable[[int], tuple[np.ndarray, np.ndarray]]
    code_size: int
    name: str = "rendered"
    count: int = 1 << 31

    def __len__(self) -> int:
        return self.count

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw an image."""
        return self.draw(index)


def open_source(path: str | Path, resolution: int) -> ImageSource:
    """Open a folder of images, an .npz file, a folder of .npz files, or ``actors[:SEED]``, which draws on demand.

    Raises: BadData; BadArtifact: the actors' 3D head has not been imported.
    """
    path = Path(path)
    if re.fullmatch(r"actors(:\d+)?", str(path)) and not path.exists():
        return _actors(int(str(path).partition(":")[2] or 0), resolution)
    if path.is_dir():
        return Shards(path, resolution) if any(path.glob("*.npz")) else ImageFolder(path, resolution)
    if path.suffix == ".npz" and path.is_file():
        return Shards(path, resolution)
    raise BadData(
        f"{path}: expected a folder of images, an .npz file, a folder of .npz files or actors[:SEED], found "
        "none; correct the path"
    )


def reduced(image: np.ndarray, resolution: int) -> np.ndarray:
    """Reduce an image [H, H, 3] to [resolution, resolution, 3] by averaging over areas."""
    if image.shape[0] == resolution:
        return image
    import cv2

    return cv2.resize(image, (resolution, resolution), interpolation=cv2.INTER_AREA)


def _actors(seed: int, resolution: int) -> Rendered:
    """An endless source of actors: every image shows a new person."""
    from mystudio.actors.basis import load_basis
    from mystudio.actors.dataset import DatasetSettings, draw
    from mystudio.actors.factors import N_FACTORS

    settings, basis = DatasetSettings(1 << 31, resolution, seed, takes=1), load_basis()
    return Rendered(lambda index: draw(settings, index, basis), N_FACTORS, f"actors:{seed}", settings.count)


def _open_shard(path: Path, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        with npz.Zip(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            images, codes = (_member(path, archive, members[f"{name}.npy"]) for name in ("images", "codes"))
    except npz.DAMAGE as error:
        raise BadData(
            f"{path}: expected an .npz file with the arrays images and codes, got a missing, damaged or "
            f"other file ({type(error).__name__}); write it again"
        ) from error
    fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[1] == images.shape[2] >= resolution
    if not fits or images.shape[3] != 3 or not len(images):
        raise BadData(
            f"{path}: expected images uint8 [N, H, H, 3] with H >= {resolution}, got {images.dtype} "
            f"{list(images.shape)}"
        )
    if codes.ndim != 2 or len(codes) != len(images) or codes.dtype.kind != "f" or not codes.shape[1]:
        raise BadData(f"{path}: expected codes as floats [{len(images)}, Z], got {codes.dtype} {list(codes.shape)}")
    if not np.isfinite(codes).all():
        raise BadData(f"{path}: expected finite codes, got NaN or infinity; write it again")
    return images, codes


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as stream:
        shape, fortran, dtype = npz.header(stream)
        header = stream.tell()
    name = info.filename.removesuffix(".npy")
    if info.compress_type != zipfile.ZIP_STORED or fortran:
        return npz.load(path, [name], MAX_COMPRESSED)[name]
    if math.prod(shape) * dtype.itemsize + header > info.file_size:
        raise ValueError("fewer numbers than the array says")
    with open(path, "rb") as file:  # the local header's extra field may be longer than the directory's
        file.seek(info.header_offset + 26)
        start = info.header_offset + 30 + sum(int.from_bytes(file.read(2), "little") for _ in range(2)) + header
    return np.memmap(path, dtype, "r", start, shape)
