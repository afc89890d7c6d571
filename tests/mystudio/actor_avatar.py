"""An avatar of one person drawn by the packaged base, and drivers of the same person, whose true result is known.

z of the base holds 32 look factors, then 26 motion factors, as the base's metadata states. No video is decoded.
"""

import pickle
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from once import once
from torch import Tensor

from mystudio.bases import find_base
from mystudio.engines import personal
from mystudio.engines.personal.anchors import InvertSettings
from mystudio.engines.personal.problem import SolveSettings
from mystudio.engines.personal.regress import RegressSettings
from mystudio.engines.personal.tune import TuneSettings
from mystudio.motion.retarget import RetargetSettings
from mystudio.types import Avatar, Performance
from selfscan.face import patches
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.headpose import head_pose
from selfscan.face.measures import measures
from selfscan.io.pixels import dequantize, quantize, to_uint8
from selfscan.types import Alignment, Consent, Coverage, FaceTrack, Observation, Scan

LOOK, MOTION = slice(0, 32), slice(32, 58)
CONSENT = Consent("Ada Nobody", "does not exist", "2024-01-01T00:00:00Z", "0" * 64, fictional=True)
FOLDER: Path | None = None  # where the processes of a run of the tests share the avatar
MISSING = (5,)  # frames of a driving clip without a face
SETTINGS = SimpleNamespace(
    invert=InvertSettings(blind_steps=12, rate=0.1),
    personalize=TuneSettings(steps=24, batch=4, check_every=12, resolution=0, width=0),
    regress=RegressSettings(samples=160, rank=12, steps=250),
    retarget=RetargetSettings(smooth=0.0),
    reenact=SolveSettings(steps=3, window=8),
)  # fmt: skip


@torch.no_grad()
def person(motion: Tensor, look: int = 5) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 128, 128] and landmarks [N, 478, 3] of one person with motion factors [N, 26]."""
    generator = find_base("people128").generator
    z = torch.zeros(len(motion), generator.z_dim)
    z[:, LOOK] = torch.randn(32, generator=torch.Generator().manual_seed(look))
    z[:, MOTION] = motion
    images = generator(generator.broadcast(generator.mapping(z))).clamp(-1, 1)
    images = dequantize(quantize(images))  # quantised as in a video
    return images, crop_landmarks(load_facemesh(), images)[0]


def motions(count: int, seed: int) -> Tensor:
    """Independent motion factors [count, 26]; the first is the neutral face."""
    motion = torch.randn(count, 26, generator=torch.Generator().manual_seed(seed))
    motion[0] = 0
    return motion


def path(count: int, seed: int, every: int = 4) -> Tensor:
    """Return motion factors that change smoothly, [count, 26]."""
    keys = motions(-(-count // every) + 1, seed)
    at = torch.arange(count) / every
    low, share = at.long(), (at % 1)[:, None]
    return keys[low] * (1 - share) + keys[low + 1] * share


@cache
def scan(count: int = 24) -> Scan:
    """A scan of one person with many motions."""
    images, marks = person(motions(count, seed=0))
    marks = marks.numpy()
    covered, quality = Coverage(measures(marks), {}), np.ones(count, np.float32)
    return Scan(to_uint8(images), marks, 10 * np.arange(count), quality, {}, covered, CONSENT, "all")


def performance(motion: Tensor, missing: tuple[int, ...] = (), look: int = 5) -> Performance:
    """Return a clip of a person whose frames equal their crops; the frames ``missing`` have no face."""
    images, marks = person(motion, look)
    mouth, irises = patches.mouth_and_irises(images, marks)
    valid = np.ones(len(motion), bool)
    valid[list(missing)] = False
    pixels = 128 * marks.numpy()
    times = np.arange(len(motion)) / 25
    track = FaceTrack(pixels, head_pose(pixels), valid.astype(np.float32), valid, times, (128, 128), ~valid & False)
    same = Alignment(np.repeat(np.eye(2, 3)[None], len(motion), 0), 128)
    seen = Observation(track, same, marks.numpy(), valid.astype(np.float32), "actor.mp4", "0" * 64)
    return Performance(seen, to_uint8(mouth), to_uint8(irises))


@cache
def avatar() -> Avatar:
    """Return the scanned person's avatar, made once in a run of the tests by the personal engine with few steps."""

    def make(path: Path) -> None:
        path.write_bytes(pickle.dumps(personal.personalize(scan(), find_base("people128"), SETTINGS)))

    assert FOLDER is not None
    return pickle.loads(once(FOLDER / "actor avatar", make).read_bytes())
