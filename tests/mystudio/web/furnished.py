"""A studio folder with one person who has everything, as the stages write it: scan, avatar, take, clip."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from mystudio import pipeline, recipe
from mystudio.storage import artifacts, workspace
from mystudio.types import Avatar, Performance, Take
from mystudio.web.library.people import People, Person
from selfscan.face.measures import measures
from selfscan.scan.coverage import BINS
from selfscan.types import Consent, Coverage, Scan

IMAGES = 12


def scan_of(consent: Consent, landmarks: np.ndarray) -> Scan:
    """A scan of smooth pictures that shows half of what it should."""
    y, x = np.mgrid[0:64, 0:64]
    images = np.stack([np.stack([90 + x, 120 + 2 * k + 0 * x, 60 + 2 * y], -1) for k in range(IMAGES)]).astype(np.uint8)
    marks = np.repeat(landmarks[None], IMAGES, 0).astype(np.float32)
    share = {name: 0.1 * (k % 2) for k, name in enumerate(BINS)}
    missing = tuple(row[4] for name, row in BINS.items() if row[4] and not share[name])
    quality = np.linspace(0.5, 0.9, IMAGES).astype(np.float32)
    coverage = Coverage(measures(marks), share, missing)
    rejects = {"blurred": 7, "too dark": 2, "no face": 0}
    return Scan(images, marks, np.arange(IMAGES), quality, rejects, coverage, consent, "lpips-face")


def furnish(studio: Path, avatar: Avatar, performance: Performance, take: Take, name: str = "Ada Example") -> Person:
    """Add a person with a recording, a scan, an avatar, a driving clip, a take and its clip."""
    person = People(studio / "people").add(name, True, fictional=True)
    for folder in (person.recordings, person.drivers, person.takes, person.renders):
        folder.mkdir()
    recording, driver = person.recordings / "me.mp4", person.drivers / "driver.mp4"
    for clip in (recording, driver):
        shutil.copyfile(performance.observation.video, clip)
    scan = scan_of(avatar.consent, np.asarray(avatar.neutral))
    hello, measured = person.takes / "hello.take", person.takes / "driver.performance"
    for path, artifact, inputs in (
        (person.scan, scan, {"video": recording}),
        (person.avatar, avatar, {"scan": person.scan}),
        (measured, performance, {"video": driver}),
        (hello, take, {"avatar": person.avatar, "performance": measured}),
    ):
        with workspace.stage(path, artifacts.KINDS[type(artifact)], inputs, {}) as run:
            artifacts.save(artifact, run)
    beside = recipe.resolve("default", ['render.view="side-by-side"'])
    pipeline.run_render(hello, person.renders / "hello.side-by-side.mp4", beside)
    return person
