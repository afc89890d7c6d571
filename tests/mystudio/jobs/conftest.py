"""A small studio: a random avatar of 32 px and a take of a 12 s clip, whose render has some seconds of work."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mystudio.engines.personal.state import AXES
from mystudio.jobs import Queue, Work
from mystudio.storage import artifacts, workspace
from selfscan.face.align import align, apply
from selfscan.io import video
from selfscan.io.digest import file_digest
from selfscan.types import FaceTrack, Observation

FRAMES = 300
QUICK = ["render.size=64", "render.keep_seconds=0.48", "render.batch=4", "provenance.watermark=false"]


def long_performance(performance, clip: Path):
    """The clip of the tests' performance as a longer one, written to ``clip``."""
    y, x = np.mgrid[0:60, 0:80]
    pictures = (np.stack([x + t % 100, y + t % 90, x + y], -1).astype(np.uint8) for t in range(FRAMES))
    video.write(clip, pictures, times := np.arange(FRAMES) / 25)
    seen = performance.observation
    pick = np.arange(FRAMES) % 4  # frames with a face
    marks, valid = seen.track.landmarks[pick], np.ones(FRAMES, bool)
    track = FaceTrack(
        marks, seen.track.pose[pick], valid.astype(np.float32), valid, times, (80, 60), np.zeros(FRAMES, bool)
    )
    alignment = align(track, 256)
    crops = (apply(alignment.crop_from_frame, marks) / 256).astype(np.float32)
    found = Observation(track, alignment, crops, valid.astype(np.float32), clip.name, file_digest(clip))
    return replace(performance, observation=found, mouth=performance.mouth[pick], irises=performance.irises[pick])


@pytest.fixture(scope="session")
def template(tmp_path_factory, tiny_avatar, performance, take) -> Path:
    place = tmp_path_factory.mktemp("template") / "studio"
    place.mkdir()
    driver = long_performance(performance, place / "driver.mp4")
    yaw = torch.randn(8, generator=torch.Generator().manual_seed(3)) @ tiny_avatar.state.space.axes
    avatar = replace(tiny_avatar, state=replace(tiny_avatar.state, directions={"yaw": yaw}))
    pick = np.arange(FRAMES) % len(take)
    longer = replace(
        take,
        codes={AXES: take.codes[AXES][pick]},
        outcome=np.zeros(FRAMES, np.uint8),
        times=driver.observation.track.times,
        losses={},
    )
    for name, made, inputs in (
        ("me.avatar", avatar, {}),
        ("driver.performance", driver, {"video": "driver.mp4"}),
        ("hello.take", longer, {"avatar": "me.avatar", "performance": "driver.performance"}),
    ):
        found = {role: place / file for role, file in inputs.items()}
        with workspace.stage(place / name, artifacts.KINDS[type(made)], found, {}) as run:
            artifacts.save(made, run)
    return place


@pytest.fixture
def studio(tmp_path, template) -> Path:
    """A studio folder of its own, with nothing in the queue."""
    return Path(shutil.copytree(template, tmp_path / "studio"))


@pytest.fixture
def queue(studio):
    with Queue(studio) as opened:
        yield opened


SLOW = """
import time
from mystudio.jobs.estimate import Speed

def slowly(self, *given, left=Speed.left):  # called at every report
    time.sleep(0.03)
    return left(self, *given)

Speed.left = slowly
"""


@pytest.fixture
def slow_jobs(tmp_path_factory, monkeypatch):
    """Jobs that take some seconds on any machine, so that there is time to stop them."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "sitecustomize.py").write_text(SLOW)  # Python imports it at its start
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def render(out: str = "hello.mp4", *options: str) -> Work:
    settings = {"options": [*QUICK, *options], "view": "side-by-side", "device": "cpu"}
    return Work("render", {"take": "hello.take"}, out, settings)


def wait_for(what, seconds: float = 120.0):
    """Wait until ``what()`` is true, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
