"""A small studio of real stages: their commands, their results, and functions that compare results.

All stages are real but tiny: 16 frames of the demo's scan, 8 frames of its driver, a random generator of 32 px, 12
tuning steps with a checkpoint every two, a take of two windows, and a clip of two segments. Other passes over a clip
store chunks of four frames. The folder's name has a space, quotes and letters of other alphabets.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from base_runs import make_data
from children import ROOT, Studio

from mystudio.base import checkpoint
from mystudio.storage.manifest import digest, open_folder
from mystudio.stylegan2.checkpoint import save_generator
from mystudio.stylegan2.generator import Generator
from selfscan.io import video

CHUNK = 4  # frames in one chunk: selfscan.checkpoints.CHUNK
NAME = 'Ada\'s "work" é 日本'
DEMO = ROOT / "mystudio" / "data" / "demo"
RECIPE = """
[scan]
frames = 12
size = 64
embed_size = 64
[invert]
blind_steps = 3
[personalize]
steps = 12
check_every = 2
patience = 0
batch = 2
resolution = 0
width = 0
[regress]
samples = 16
rank = 8
steps = 20
[reenact]
window = 4
steps = 1
batch = 4
[render]
batch = 4
keep_seconds = 0.48
"""
BASE_RECIPE = """
[model]
resolution = 16
z_dim = 8
w_dim = 8
mapping_layers = 2
channel_base = 64
channel_max = 8
[supervised]
kimg = 0.064
batch = 8
levels = 2
perceptual = 0.0
[adversarial]
kimg = 0.064
batch = 8
wait_kimg = 0.016
[adversarial.augment]
start = 0.3
[train]
tick_kimg = 0.016
sheet_every = 2
save_every = 2
"""
CONSENT = ("--i-am-the-person-or-have-consent", "Ada")


@dataclass(frozen=True)
class Stage:
    """One command and its result."""

    name: str
    words: tuple  # words of the command line; {} is the folder
    makes: str  # name of the result in the folder
    state: Callable[[Path], object]  # state of the result: equal for equal results; raises if the result is incomplete
    before: tuple | None = None  # more words, with which the command makes a different, earlier result
    also: str = ""  # pattern of intermediate results
    journal: tuple[str, ...] = ()  # names of the progress that its checkpoints cover
    chunks: dict[str, int] = field(default_factory=dict)  # name of the progress over a clip -> frames in one chunk
    unit: int = 1  # progress per step
    every: int = 1  # steps between two checkpoints

    def command(self, place: Path, earlier: bool = False) -> list[str]:
        words = [*self.words, *((self.before or ()) if earlier else ())]
        return [str(word).replace("{}", str(place)) for word in words]


def artifact(path: Path) -> dict:
    """Return inputs, settings and the digest of every file, after verifying the files."""
    folder = open_folder(path)
    for name in folder.manifest.files:
        folder.read(name)
    inputs = {name: source.digest for name, source in folder.manifest.inputs.items()}
    return {
        "files": {n: e.sha256 for n, e in folder.manifest.files.items()},
        "inputs": inputs,
        "settings": folder.manifest.settings,
    }


def scanned(path: Path) -> dict:
    """Return the state of a scan without the time in its consent record."""
    found, values = artifact(path), json.loads(open_folder(path).read("values.json"))
    del values["consent"]["when"], found["files"]["values.json"]
    return found | {"values": values}


def reported(path: Path) -> dict:
    """Return the state of a report without the ids of clip paths, which depend on rounding in the layout."""
    found, page = artifact(path), open_folder(path).read("report.html").decode()
    del found["files"]["report.html"]
    return found | {"page": re.sub(r"\bp[0-9a-f]{10}\b", "p", page)}


def clip(path: Path) -> tuple:
    """Return the pictures and times of a clip, because its signature differs each time."""
    times, frames = zip(*video.read(path))
    return times, np.stack(frames).tobytes()


def trained(path: Path) -> tuple:
    """Return the tensors of the checkpoint and the rows of the metrics, without times."""
    tensors, facts = checkpoint.load(path)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s", "time")} for row in rows]
    return {k: v.numpy().tobytes() for k, v in tensors.items()}, facts, timeless


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "scan",
            ("scan", "{}/me.mp4", "-o", "{}/me.scan", *CONSENT, "--recipe", "{}/tiny.toml"),
            "me.scan",
            scanned,
            ("--option", "scan.frames=13"),
            chunks=dict.fromkeys(("track", "measure", "quality", "images"), CHUNK),
        ),
        Stage(
            "personalize",
            (
                "personalize",
                "{}/me.scan",
                "-o",
                "{}/me.avatar",
                "--base",
                "{}/tiny.safetensors",
                "--recipe",
                "{}/tiny.toml",
            ),
            "me.avatar",
            artifact,
            ("--option", "personalize.steps=2"),
            journal=("tune",),
            every=2,
            chunks={"invert": 3},
        ),
        Stage(
            "reenact",
            ("reenact", "{}/me.avatar", "{}/driver.mp4", "-o", "{}/hello.take", "--recipe", "{}/tiny.toml"),
            "hello.take",
            artifact,
            ("--option", "reenact.steps=0"),
            "driver-*.performance",
            chunks=dict.fromkeys(("track", "measure", "patches"), CHUNK),
        ),
        Stage(
            "edit",
            ("edit", "{}/hello.take", "-o", "{}/turned.take", "--set", "yaw=1"),
            "turned.take",
            artifact,
            ("--set", "pitch=1"),
        ),
        Stage(
            "render",
            ("render", "{}/hello.take", "-o", "{}/hello.mp4", "--recipe", "{}/tiny.toml"),
            "hello.mp4",
            clip,
            ("--view", "side-by-side"),
            chunks={"render": 4},
        ),
        Stage(
            "evaluate",
            ("evaluate", "{}/hello.take", "-o", "{}/report"),
            "report",
            reported,
            ("--truth", "same"),
            chunks={"evaluate": CHUNK},
        ),
        Stage(
            "live",
            ("live", "{}/me.avatar", "--driver", "{}/driver.mp4", "-o", "{}/live.mp4", "--no-window"),
            "live.mp4",
            clip,
            ("--seconds", "0.3"),
        ),
        Stage("pack", ("avatar", "pack", "{}/me.avatar", "-o", "{}/me.zip"), "me.zip", digest, ()),
        Stage("unpack", ("avatar", "unpack", "{}/me.zip", "-o", "{}/again.avatar"), "again.avatar", artifact),
        Stage(
            "base train",
            (
                "base",
                "train",
                "-o",
                "{}/base.run",
                "--recipe",
                "{}/base.toml",
                "--data",
                "{}/faces",
                "--data",
                "{}/actors.npz",
                "--device",
                "cpu",
            ),
            "base.run",
            trained,
            journal=("supervised", "adversarial"),
            unit=8,
            every=4,
        ),
    )
}
INPUTS = ("me.mp4", "driver.mp4", "tiny.toml", "base.toml", "tiny.safetensors", "faces", "actors.npz")


def prepare(place: Path) -> None:
    """Write the inputs of the first stages."""
    place.mkdir(parents=True)
    for source, name, every, count in (("scan.mp4", "me.mp4", 10, 16), ("driver.mp4", "driver.mp4", 3, 8)):
        timed = list(islice(video.read(DEMO / source), 0, every * count, every))
        video.write(place / name, [frame for _, frame in timed], [time for time, _ in timed])
    (place / "tiny.toml").write_text(RECIPE)
    (place / "base.toml").write_text(BASE_RECIPE)
    torch.manual_seed(0)
    generator = Generator(32, z_dim=16, w_dim=16, mapping_layers=2, channel_base=512, channel_max=32)
    save_generator(generator.eval(), place / "tiny.safetensors")
    make_data(place)


def make_all(studio: Studio, place: Path) -> dict[str, float]:
    """Run every stage without faults; returns their processor seconds."""
    used = {}
    for stage in STAGES.values():
        ended = studio.run(*stage.command(place))
        assert ended.code == 0, (stage.name, ended.stderr)
        used[stage.name] = ended.seconds
    return used


def without(template: Path, place: Path, stage: Stage) -> Path:
    """Copy the studio without the result of one stage."""
    shutil.copytree(template, place)
    for path in (place / stage.makes, place / f".{stage.makes}.made", *(place.glob(stage.also) if stage.also else ())):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return place
