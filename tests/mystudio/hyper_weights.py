"""Tiny networks of the engine hyper, trained for some steps on people drawn by the packaged base."""

import shutil
from pathlib import Path

import oneshot_data
import torch

from mystudio.bases import Base, find_base
from mystudio.engines.hyper import teach
from mystudio.engines.hyper.settings import CurriculumSettings, FacesSettings, ModelSettings, RunSettings, TrainSettings
from mystudio.engines.hyper.training import Training
from mystudio.oneshot import loop
from mystudio.oneshot.data import Pool
from mystudio.oneshot.loop import Limits, LoopSettings

MODEL = ModelSettings(width=32, features=8, rank=4, identity=16)
TINY = TrainSettings(
    MODEL,
    FacesSettings(appearance_kimg=0.008, pose_kimg=0.008, batch=4),
    CurriculumSettings(inversion_kimg=0.002, self_kimg=0.002, cross_kimg=0.004, batch=2),
    RunSettings(portraits=0.3, tick_kimg=0.004, sheet_every=0, save_every=1),
)
OFTEN = LoopSettings(TINY.run.tick_kimg, TINY.run.sheet_every, TINY.run.save_every)


def copied_base(folder: Path) -> Base:
    """The packaged base with its encoder alone, in a folder of the tests."""
    base = find_base("people128")
    path = folder / "people128.safetensors"
    shutil.copy(base.path, path)
    shutil.copy(base.companion_path("encoder"), folder / "people128.encoder.safetensors")
    return Base("people128", path)


def training(pool: Pool, settings: TrainSettings = TINY) -> Training:
    """A training on the CPU."""
    return Training(find_base("people128"), pool, settings, torch.device("cpu"))


def base_with(folder: Path) -> Base:
    """A base with tiny trained networks, and their run."""
    oneshot_data.write_groups(folder / "groups")
    oneshot_data.write_portraits(folder / "portraits")
    made = loop.train(folder / "run", training(oneshot_data.pool_of(folder)), OFTEN, Limits())
    assert made["done"]
    base = copied_base(folder)
    teach.install(folder / "run", base)
    return base
