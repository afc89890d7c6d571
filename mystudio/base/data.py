"""Training images: folders, shards of images with codes, and images rendered by number.

Every sample of every step follows from (seed, step), so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

import math
import os
import re
import threading
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from mystudio.base.probe import image_size
from mystudio.errors import BadData
from mystudio.storage import npz

MAX_COMPRESSED = 4 << 30  # bytes of an array that is not memory-mapped
_SUFFIXES = (".jpg", ".jpeg", ".png")


class Source(Protocol):
    """Where training images come from."""

    @property
    def name(self) -> str: ...

    @property
    def code_size(self) -> int:
        """Numbers of a code; 0 = the images have none."""
        ...

    def __len__(self) -> int: ...

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Image [R, R, 3] uint8 RGB and its code [Z] float32, None where there is none. May run in any thread."""
        ...


class Folder:
    """JPEG and PNG images in a folder and the folders in it; square, decoded when they are needed.

    Args:
        path: the folder. resolution: px that images are reduced to.
    Raises:
        BadData: there is no image, or one is damaged, not square or smaller than ``resolution``.
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
        """Decode an image. Raises BadData where it cannot be decoded."""
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

    Files written without compression (np.savez) are memory-mapped; compressed ones are read whole.

    Args:
        path: a file, or a folder of them. resolution: px that images are reduced to.
    Raises:
        BadData: a file is missing or damaged, or does not hold what it should.
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

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """An image and its code."""
        part = int(np.searchsorted(self._ends, index, "right"))
        images, codes = self._parts[part]
        row = index - (int(self._ends[part - 1]) if part else 0)
        return reduced(np.asarray(images[row]), self.resolution), np.asarray(codes[row], np.float32)


@dataclass(frozen=True)
class Rendered:
    """Images drawn when they are needed, by number: as many as there are numbers.

    ``draw(number)`` gives an image [R, R, 3] uint8 and its code [Z], the same each time; it runs in several threads.
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


@dataclass(frozen=True)
class Batch:
    """A step's share of one process."""

    images: np.ndarray  # [n, R, R, 3] uint8 RGB
    codes: np.ndarray  # [n, Z] float32, zero where the image has none
    coded: np.ndarray  # [n] bool
    coded_in_all: int  # images with a code in the whole batch, over all processes


@dataclass
class Mixture:
    """Several sources by weight; which image comes when follows from the seed alone.

    Raises: BadData: no source, unfit weights, or codes of two sizes.
    """

    sources: Sequence[Source]
    weights: Sequence[float] = ()
    mirror: bool = True  # flip half of the images without a code; a code says left and right
    seed: int = 0
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)

    def __post_init__(self):
        self.weights = list(self.weights) or [1.0] * len(self.sources)
        if not self.sources or len(self.weights) != len(self.sources) or min(self.weights) < 0 or not sum(self.weights):
            raise BadData(f"expected a weight from 0 for each of {len(self.sources)} data sources, got {self.weights}")
        if len({s.code_size for s in self.sources} - {0}) > 1:
            raise BadData(
                "expected codes of one size in all data sources, got "
                f"{[f'{s.name}: {s.code_size}' for s in self.sources]}; train them one after the other"
            )

    @property
    def code_size(self) -> int:
        """Numbers of a code; 0 where no source has any."""
        return max(s.code_size for s in self.sources)

    @cached_property
    def shares(self) -> np.ndarray:
        """Probability of each source."""
        return np.asarray(self.weights, np.float64) / np.sum(self.weights)

    @property
    def coded_share(self) -> float:
        """Share of the images that have a code."""
        return float(sum(share for share, s in zip(self.shares, self.sources) if s.code_size))

    def coded_only(self) -> Mixture:
        """The sources with codes alone. Raises BadData where there are none."""
        kept = [(s, w) for s, w in zip(self.sources, self.weights) if s.code_size and w > 0]
        if not kept:
            raise BadData(
                "expected data with codes (.npz with images and codes) for the supervised phase, got images "
                "alone; give such data, or start with the adversarial phase"
            )
        return Mixture([s for s, _ in kept], [w for _, w in kept], self.mirror, self.seed)

    def plan(self, step: int, batch: int) -> list[tuple[int, int, bool]]:
        """Source, index and whether to flip, for every image of a step over all processes."""
        rng = np.random.default_rng((self.seed, step))
        # evenly spread over the shares: the number of images of a source changes by one at most between steps
        spread = (np.arange(batch) + rng.random()) / batch * self.shares.sum()
        chosen = rng.permutation(np.searchsorted(np.cumsum(self.shares)[:-1], spread, "right"))
        where, flips = rng.random(batch), rng.random(batch) < 0.5
        return [
            (int(s), int(u * len(self.sources[s])), bool(f) and self.mirror and not self.sources[s].code_size)
            for s, u, f in zip(chosen, where, flips)
        ]

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Images of a step for one of ``world`` processes: every world-th of the whole batch of ``size``."""
        plan = self.plan(step, size)
        self._pool = self._pool or ThreadPoolExecutor(max(1, os.cpu_count() or 1))
        found = list(self._pool.map(self._take, plan[rank::world]))
        codes = np.zeros((len(found), self.code_size), np.float32)
        for row, (_, code) in zip(codes, found):
            row[:] = 0 if code is None else code
        return Batch(
            np.stack([image for image, _ in found]),
            codes,
            np.array([c is not None for _, c in found]),
            sum(self.sources[s].code_size > 0 for s, _, _ in plan),
        )

    def _take(self, row: tuple[int, int, bool]) -> tuple[np.ndarray, np.ndarray | None]:
        source, index, flip = row
        image, code = self.sources[source].get(index)
        return (image[:, ::-1] if flip else image), code


class Ahead:
    """Prepares the next step's batch while the present one is at work."""

    def __init__(self, mixture: Mixture, size: int, rank: int, world: int):
        self._of, self._pool = (mixture, size, rank, world), ThreadPoolExecutor(1)
        self._lock, self._waiting = threading.Lock(), {}

    def batch(self, step: int) -> Batch:
        """The batch of a step; that of the following step is begun."""
        mixture, size, rank, world = self._of
        with self._lock:
            futures = {
                s: self._waiting.get(s) or self._pool.submit(mixture.batch, s, size, rank, world)
                for s in (step, step + 1)
            }
            self._waiting = futures
        return futures[step].result()

    def close(self) -> None:
        """Stop preparing."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def open_source(path: str | Path, resolution: int) -> Source:
    """Open a folder of images, an .npz file, a folder of .npz files, or ``actors[:SEED]``, drawn as they are needed.

    Raises: BadData; BadArtifact where actors have no head yet.
    """
    path = Path(path)
    if re.fullmatch(r"actors(:\d+)?", str(path)) and not path.exists():
        return _actors(int(str(path).partition(":")[2] or 0), resolution)
    if path.is_dir():
        return Shards(path, resolution) if any(path.glob("*.npz")) else Folder(path, resolution)
    if path.suffix == ".npz" and path.is_file():
        return Shards(path, resolution)
    raise BadData(
        f"{path}: expected a folder of images, an .npz file, a folder of .npz files or actors[:SEED], found "
        "none; correct the path"
    )


def reduced(image: np.ndarray, resolution: int) -> np.ndarray:
    """An image [H, H, 3] at [resolution, resolution, 3], averaged over areas."""
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
            f"other file ({type(error).__name__}); write it anew"
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
        raise BadData(f"{path}: expected finite codes, got NaN or infinity; write it anew")
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
    with open(path, "rb") as file:  # the local header's own lengths: its extra field differs from the directory's
        file.seek(info.header_offset + 26)
        start = info.header_offset + 30 + sum(int.from_bytes(file.read(2), "little") for _ in range(2)) + header
    return np.memmap(path, dtype, "r", start, shape)
