"""Train the generator that tuning starts from: the base, enlarged, reproducing many people at the encoder's anchors.

    mystudio actors dataset ACTORS --count 2048 --size 256 --vivid .3 --seed 7
    mystudio actors dataset LARGE --count 512 --size 512 --vivid .3 --seed 17
    python recipes/make_start.py OUT --faces FACES --data ACTORS --large LARGE --minutes 9

FACES is a folder of portraits of 256 px, ACTORS and LARGE are actors with their codes. Each call resumes the last one.
OUT/start.safetensors is the generator of 512 px, the companion "start" of the packaged base.

Each image has its own anchor, as in a scan: the encoder's code of its appearance and of its motion relative to the
person's neutral face. Portraits come without a neutral face: the base draws one at the encoder's code for no motion.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mystudio.actors.factors import N_LOOK, N_MOTION
from mystudio.base.encoder import load_encoder
from mystudio.bases import find_base
from mystudio.engines.personal import tune_checkpoint
from mystudio.engines.personal.tune import TuneSettings, likeness_to, optimizer
from mystudio.engines.personal.tune_checkpoint import TuneState
from mystudio.engines.personal.tune_nets import Nets
from mystudio.motion import losses
from mystudio.motion.retarget import relative_motion
from mystudio.stylegan2 import growth
from mystudio.stylegan2.checkpoint import save_generator
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.metric import load_perceptual

BASE = "people128"
STEPS = 6000
BATCH, PORTRAITS = 4, 3  # images a step, and portraits among them
LARGE_EVERY = 3  # steps from one batch of large actors to the next one
SETTINGS = TuneSettings(decay=80.0, largest=512)  # the rate falls half as fast as in the tuning of one person
HELD_OUT = 20  # one of so many portraits is never trained on
SAVE_EVERY = 120  # s between checkpoints


def main() -> None:
    """Train until the time limit or the end, and write the generator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder of .npz files of images and codes")
    parser.add_argument("--large", type=Path, required=True, help="the same of 512 px")
    parser.add_argument("--minutes", type=float, default=0.0, help="time limit of this call; 0 = until all is done")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * given.minutes if given.minutes else np.inf
    actors, large = actors_of(given.data), actors_of(given.large)
    sets = (Set(portraits_of(given.faces), None), Set(*actors), Set(*large))
    kept = given.out / "anchors.pt"
    if not kept.exists():
        torch.save([anchors_of(one) for one in sets], kept)
    train(given.out, sets, torch.load(kept), ends)


@dataclass(frozen=True)
class Set:
    """Images of one size, and the codes of actors."""

    images: np.ndarray  # [N, H, H, 3] uint8 RGB
    codes: np.ndarray | None  # [N, Z]


def actors_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and codes of a folder's actors."""
    files = [np.load(file) for file in sorted(folder.glob("*.npz"))]
    return tuple(np.concatenate([file[key] for file in files]) for key in ("images", "codes"))


def portraits_of(folder: Path) -> np.ndarray:
    """The portraits, without one of ``HELD_OUT``."""
    files = [file for k, file in enumerate(sorted(folder.glob("*.jpg"))) if k % HELD_OUT != 7]
    return np.stack([cv2.imread(str(file))[..., ::-1] for file in files])


@torch.no_grad()
def anchors_of(given: Set) -> Tensor:
    """The encoder's code [N, D] of each image; nan where no face is found."""
    base = find_base(BASE)
    encoder, mesh, generator = load_encoder(base.companion("encoder")), load_facemesh(), base.generator.eval()
    found = []
    for start in range(0, len(given.images), 16):
        part = losses.whole(to_tensor(given.images[start : start + 16]), 256)
        marks, presence = crop_landmarks(mesh, part)
        look = encoder.appearance(part)
        if given.codes is None:
            calm = encoder(look, torch.zeros_like(relative_motion(marks, marks[0])))
        else:  # the same look, at rest
            known = torch.as_tensor(given.codes[start : start + 16], dtype=torch.float32)
            z = torch.zeros(len(part), generator.z_dim)
            z[:, : known.shape[1]] = known
            z[:, N_LOOK : N_LOOK + N_MOTION] = 0
            calm = generator.mapping(z)
        neutral, _ = crop_landmarks(mesh, generator(generator.broadcast(calm)).clamp(-1, 1))
        w = encoder(look, torch.cat([relative_motion(marks[[k]], neutral[k]) for k in range(len(part))]))
        found.append(w.masked_fill((presence < 0.5)[:, None], torch.nan))
    return torch.cat(found)


def batch(sets: Sequence[Set], anchors: Sequence[Tensor], step: int) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, H] of a step, and their anchors [B, D]."""
    rng = np.random.default_rng([1, step])
    counts = (0, 0, BATCH) if step % LARGE_EVERY == 0 else (PORTRAITS, BATCH - PORTRAITS, 0)
    picked = [
        rng.choice(np.flatnonzero(codes.isfinite().all(1).numpy()), count, False)
        for codes, count in zip(anchors, counts)
    ]
    images = [to_tensor(one.images[rows]) for one, rows in zip(sets, picked) if len(rows)]
    return torch.cat(images), torch.cat([codes[rows] for codes, rows in zip(anchors, picked)])


def train(out: Path, sets: Sequence[Set], anchors: Sequence[Tensor], ends: float) -> None:
    """Tune the synthesis weights on random batches of all images."""
    base, perceptual, state = find_base(BASE), load_perceptual(), TuneState()
    start = growth.grown(base.generator, SETTINGS.largest, SETTINGS.width)
    nets = Nets(start, partial(optimizer, SETTINGS, anchors[0].device), SETTINGS.average)
    kept, saved = out / "run.safetensors", time.monotonic()
    if kept.exists():
        tune_checkpoint.from_bytes(kept.read_bytes(), nets, state)
    rows = torch.arange(BATCH)
    while state.step < STEPS and time.monotonic() < ends:
        given, codes = batch(sets, anchors, state.step)
        for group in nets.optimizer.param_groups:
            group["lr"] = SETTINGS.rate / np.sqrt(1 + state.step / SETTINGS.decay)
        made = nets.tuned(nets.tuned.broadcast(codes), "const", None, given.shape[-1], torch.bfloat16).float()
        draw = torch.Generator().manual_seed(state.step)
        distance = likeness_to(given, perceptual, SETTINGS).distance(made, rows, draw)
        loss = (distance + losses.pixel(made, given)).mean()
        nets.optimizer.zero_grad()
        loss.backward()
        nets.optimizer.step()
        state.step += 1
        nets.average(state.step)
        if state.step % 50 == 0:
            print(state.step, float(loss.detach()), flush=True)
        if time.monotonic() - saved > SAVE_EVERY:
            kept.write_bytes(tune_checkpoint.to_bytes(nets, state))
            saved = time.monotonic()
    kept.write_bytes(tune_checkpoint.to_bytes(nets, state))
    facts = {"base": BASE, "steps": str(state.step), "terms": base.info.get("terms", "")}
    save_generator(nets.mean.eval(), out / "start.safetensors", facts, half=True)


if __name__ == "__main__":
    main()
