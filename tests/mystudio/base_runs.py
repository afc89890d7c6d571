"""Tiny training runs: 16 px faces of two colours, and a program that trains them."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from mystudio.base.augment import AugmentSettings
from mystudio.base.settings import AdversarialSettings, BaseSettings, ModelSettings, SupervisedSettings, TrainSettings
from mystudio.base.sources import open_source
from mystudio.base.train import TrainingSession, train

CODE = 4


def tiny(supervised=0.064, adversarial=0.064, **adversarially) -> BaseSettings:
    """Settings of a run of seconds."""
    return BaseSettings(
        ModelSettings(16, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8),
        TrainSettings(tick_kimg=0.016, sheet_every=0, save_every=2, ema_kimg=0.05, precision="float32"),
        SupervisedSettings(kimg=supervised, batch=8, levels=2, perceptual=0.0),
        replace(
            AdversarialSettings(
                kimg=adversarial,
                batch=8,
                wait_kimg=0.016,
                r1_every=4,
                path_every=2,
                mixing=0.5,
                augment=AugmentSettings(start=0.3, speed_kimg=1.0, every=2),
            ),
            **adversarially,
        ),
    )


def make_data(place: Path, size: int = 16) -> list[Path]:
    """A folder of images, and a shard of images with codes that say their colour."""
    rng = np.random.default_rng(0)
    (place / "faces").mkdir(parents=True)
    for k in range(12):
        cv2.imwrite(str(place / "faces" / f"{k}.png"), rng.integers(0, 256, (size, size, 3), np.uint8))
    codes = rng.normal(size=(32, CODE)).astype(np.float16)
    shade = 127 + 60 * np.tanh(codes[:, :3].astype(np.float32))
    images = np.broadcast_to(shade[:, None, None], (32, size, size, 3)).astype(np.uint8)
    np.savez(place / "actors.npz", images=images, codes=codes)
    return [place / "faces", place / "actors.npz"]


def session(data: list[Path], **rest) -> TrainingSession:
    """Train on everything."""
    return TrainingSession([open_source(path, 16) for path in data], **rest)


def run(path: Path, data: list[Path], settings: BaseSettings, **rest) -> dict:
    """Train on the CPU."""
    return train(path, settings, session(data, **rest), torch.device("cpu"))


if __name__ == "__main__":  # run.py RUN FACES SHARD MODE
    torch.set_num_threads(1)
    out, faces, shard, mode = sys.argv[1:]
    chosen = tiny() if mode == "whole" else tiny(noise="const", mixing=0.0)
    print(run(Path(out), [Path(faces), Path(shard)], chosen), flush=True)
