"""Groups of people drawn by the packaged base, whose codes it understands, as `actors dataset --grid` writes them."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from mystudio.actors.dataset import SETTINGS, DatasetSettings, code_of
from mystudio.actors.factors import EXTRA, MOTION
from mystudio.bases import find_base
from mystudio.oneshot.data import Pool, open_pool
from selfscan.io.pixels import to_uint8

GROUPS, PEOPLE, MOTIONS, PORTRAITS = 2, 2, 2, 3


@torch.no_grad()
def drawn(codes: np.ndarray) -> np.ndarray:
    """Pictures [N, 128, 128, 3] of codes [N, 64]."""
    generator = find_base("people128").generator
    z = torch.zeros(len(codes), generator.z_dim)
    z[:, : codes.shape[1]] = torch.from_numpy(codes.astype(np.float32))
    return to_uint8(generator(generator.broadcast(generator.mapping(z))).clamp(-1, 1))


def rest(code: np.ndarray, size: int) -> np.ndarray:
    """The base's picture of a person with a neutral face."""
    neutral = code.copy()
    neutral[MOTION] = 0
    return drawn(neutral[None])[0]


def write_groups(folder: Path, groups: int = GROUPS) -> Path:
    """Groups of 2 people x 2 motions."""
    folder.mkdir(parents=True)
    count = groups * PEOPLE * MOTIONS
    codes = np.stack([code_of(3, k, MOTIONS, people=PEOPLE) for k in range(count)])
    codes[:, EXTRA] = codes[:, EXTRA].clip(-1, 1)
    np.savez(folder / "shard-00000.npz", images=drawn(codes), codes=codes)
    settings = vars(DatasetSettings(count, 128, seed=3, takes=MOTIONS, people=PEOPLE))
    (folder / SETTINGS).write_text(json.dumps(settings))
    return folder


def write_portraits(folder: Path) -> Path:
    """A few pictures of other people, as files."""
    folder.mkdir(parents=True)
    for k, image in enumerate(drawn(np.stack([code_of(9, 4 * k, 4) for k in range(PORTRAITS)]))):
        cv2.imwrite(str(folder / f"{k}.png"), image[..., ::-1])
    return folder


def pool_of(place: Path, share: float = 0.25) -> Pool:
    """The pool of both."""
    return open_pool([place / "groups", place / "portraits"], find_base("people128"), share, rest=rest)
