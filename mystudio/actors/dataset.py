"""Training images of actors with their codes. Any number can be drawn, in parallel; a stopped run can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mystudio.actors.actor import Actor
from mystudio.actors.basis import Basis, basis_path, load_basis
from mystudio.actors.factors import MOTION, MOTION_NAMES, N_FACTORS, SIDE_NAMES, SIDES, join, look_of
from mystudio.actors.film import save_npz
from mystudio.actors.motion import frame_from_factors
from mystudio.actors.render import render
from mystudio.errors import BadArtifact, OutputFailed
from mystudio.storage import npz
from mystudio.types import Progress, silent
from selfscan.io.text import read_text

SETTINGS = "dataset.json"
EARLIER = {"vivid": 0.0, "people": 1, "sides": False, "still": False}  # of data sets before there were these settings
#: motion factors that ``DatasetSettings.vivid`` redraws, and the range that they are drawn from evenly
VIVID = {
    "browInnerUp": (0.2, 2.0),
    "browDown": (0.2, 2.0),
    "browOuterUp": (0.5, 2.3),
    "eyeBlink": (0.4, 2.3),
    "eyeSquint": (0.5, 2.3),
    "eyeWide": (0.5, 2.3),
    "gaze_y": (-2.5, 2.5),
}
VIVID_CHANCE = 0.35  # of each of these factors in a vivid image
VIVID_SIDE = 2.3  # the side factors are drawn evenly from minus to plus this, likewise
POSE = slice(MOTION_NAMES.index("yaw"), None)  # of motion factors: turn and place of the head


@dataclass(frozen=True)
class DatasetSettings:
    """The images of a dataset. Equal settings give equal images for any number of workers."""

    count: int  # images
    size: int = 256  # px
    seed: int = 0
    takes: int = 4  # images of each person, in a row; in a grid the motions of a group
    crop: str | None = "ffhq"  # or None: the camera's whole view
    shard: int = 256  # images a file
    vivid: float = 0.0  # share of images in which lids and brows often move far (``VIVID``), which they rarely do else
    people: int = 1  # in a group; more than one = a grid: all people of a group have the same motions
    sides: bool = False  # winks, one raised brow, crooked smiles; codes have their three numbers, too
    still: bool = False  # the head is held still in pairs of images, 2k and 2k + 1 of a person

    @property
    def group(self) -> int:
        """Images of a group."""
        return self.people * self.takes

    @property
    def shards(self) -> int:
        """How many files."""
        return -(-self.count // self.shard)


def code_of(
    seed: int,
    index: int,
    takes: int,
    vivid: float = 0.0,
    people: int = 1,
    sides: bool = False,
    still: bool = False,
) -> np.ndarray:
    """Code [64] float16 of an image of a dataset; each run of ``takes`` consecutive images shares one look.

    With ``people`` the images are in groups of people x takes, person by person. Image k of every person of a group
    has the same motion, so the true cross-reenactment of each source and driver is in the group.

    ``vivid`` is the share of motions with far movements of lids and brows; the other ones do not depend on it. With
    ``sides`` the code is [67]: behind the same numbers follow the side factors. With ``still`` an image of odd number
    has the head's pose of the one before.
    """
    look = look_of(np.random.default_rng((seed, 0, index // takes)).normal(size=N_FACTORS))
    moved = index // (people * takes) * takes + index % takes  # number of the motion; the index itself without a grid
    motion = np.random.default_rng((seed, 1, moved)).normal(size=N_FACTORS)[MOTION]
    rng = np.random.default_rng((seed, 2, moved))
    if rng.random() < vivid:
        chosen, where = rng.random(len(VIVID)) < VIVID_CHANCE, rng.random(len(VIVID))
        for name, here, share in zip(VIVID, chosen, where):
            low, high = VIVID[name]
            if here:
                motion[MOTION_NAMES.index(name)] = low + (high - low) * share
    if still and moved % 2:
        motion[POSE] = np.random.default_rng((seed, 1, moved - 1)).normal(size=N_FACTORS)[MOTION][POSE]
    code = join(look, motion)
    return (np.concatenate([code, _sides_of(seed, moved, vivid)]) if sides else code).astype(np.float16)


def _sides_of(seed: int, moved: int, vivid: float) -> np.ndarray:
    """Side factors [3] of a motion."""
    rng = np.random.default_rng((seed, 3, moved))
    sides, far = rng.normal(size=len(SIDE_NAMES)), rng.random(len(SIDE_NAMES)) < vivid * VIVID_CHANCE
    return np.where(far, rng.uniform(-VIVID_SIDE, VIVID_SIDE, len(SIDE_NAMES)), sides)


def draw(settings: DatasetSettings, index: int, basis: Basis | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image [H, W, 3] uint8 of a dataset and return its code [64 or 67] float16; no file is written."""
    s = settings
    code = code_of(s.seed, index, s.takes, s.vivid, s.people, s.sides, s.still)
    actor = _actor(look_of(code).tobytes(), basis or load_basis())
    expression, pose = frame_from_factors(code[MOTION].astype(np.float64), code[SIDES].astype(np.float64))
    return render(actor, expression, pose, settings.size, settings.crop, seed=index).image, code


def write_dataset(
    folder: str | Path,
    settings: DatasetSettings,
    workers: int | None = None,
    head: Path | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write ``shard-00000.npz`` ...: ``images`` [N, H, W, 3] uint8 and ``codes`` [N, 64 or 67] float16.

    Shards that are there and whole stay.

    Args:
        workers: number of processes; None = one a core. head: file of the 3D head; None = the imported one.
    Returns: the shards, in order.
    Raises:
        BadArtifact: the folder holds another dataset, or there is no head.
        OutputFailed: the folder cannot be written.
    """
    folder, head = Path(folder), Path(head or basis_path())
    load_basis(head)
    paths = [folder / f"shard-{k:05d}.npz" for k in range(settings.shards)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _claim(folder, settings)
        missing = [k for k, path in enumerate(paths) if not _is_whole(path, _length(settings, k))]
        done = sum(_length(settings, k) for k in range(len(paths)) if k not in set(missing))
        progress("actors", done, settings.count)
        for k in _draw_shards(missing, paths, settings, workers or os.cpu_count() or 1, head):
            done += _length(settings, k)
            progress("actors", done, settings.count)
    except OSError as error:
        raise OutputFailed(
            f"{folder} could not be written ({error.strerror or error}); free some space and run the same command again"
        ) from error
    return paths


def _draw_shards(
    missing: list[int], paths: list[Path], settings: DatasetSettings, workers: int, head: Path
) -> Iterator[int]:
    tasks = [(k, str(paths[k]), settings, str(head)) for k in missing]
    if workers <= 1 or len(tasks) <= 1:
        yield from map(_draw_shard, tasks)
        return
    import multiprocessing

    draw(settings, 0, load_basis(head))  # compile once here, so that no worker has to
    with multiprocessing.get_context("spawn").Pool(min(workers, len(tasks)), maxtasksperchild=64) as pool:
        yield from pool.imap_unordered(_draw_shard, tasks)


def _draw_shard(task: tuple[int, str, DatasetSettings, str]) -> int:
    k, path, settings, head = task
    basis, first = load_basis(head), k * settings.shard
    drawn = [draw(settings, first + i, basis) for i in range(_length(settings, k))]
    save_npz(Path(path), images=np.stack([image for image, _ in drawn]), codes=np.stack([code for _, code in drawn]))
    return k


def _length(settings: DatasetSettings, shard: int) -> int:
    return min(settings.shard, settings.count - shard * settings.shard)


def _claim(folder: Path, settings: DatasetSettings) -> None:
    """Make sure that the folder holds no other dataset. A larger count only adds shards if the old ones were full."""
    path, ours = folder / SETTINGS, asdict(settings)
    if path.exists():
        try:
            theirs = json.loads(read_text(path))
        except ValueError:
            theirs = None
        if not isinstance(theirs, dict) or EARLIER | theirs | {"count": 0} != ours | {"count": 0}:
            raise BadArtifact(
                f"expected a new folder or the same dataset, {folder} holds one with other settings; "
                "choose another folder"
            )
    part = path.with_name(f".{SETTINGS}.part")
    part.write_text(json.dumps(ours, indent=1) + "\n")
    os.replace(part, path)


def _is_whole(path: Path, length: int) -> bool:
    if not path.is_file():
        return False
    try:
        with npz.Zip(path) as file:
            return len(npz.load(path, ["codes"])["codes"]) == length and "images.npy" in file.namelist()
    except npz.DAMAGE:
        return False


@lru_cache(maxsize=2)
def _actor(look: bytes, basis: Basis) -> Actor:
    return Actor(np.frombuffer(look, np.float16).astype(np.float32), basis)
