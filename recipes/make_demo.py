"""Render the embedded demo: a self-scan, a driving clip and the true cross-reenactment, by people who do not exist.

    python recipes/make_demo.py PATH/actors.py mystudio/data/demo

``actors.py`` is the synthetic-actor renderer (it needs numba and matplotlib). Seeds were chosen by eye: the two people
differ clearly in skin, hair, shape of the face and clothes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from selfscan import video

SELF, DRIVER = 36, 30  # seeds of the two people
TALK = 9  # seed of what the driver does: smiles, opens the mouth wide, looks to both sides, blinks
SCAN_SECONDS, DRIVER_SECONDS = 24, 4
#: what a good self-scan also holds, once the head has turned everywhere: (shape, weight, centre s, width s)
EXTRAS = (
    ("mouthSmile", 1.0, 12.9, 0.5), ("mouthSmile", 0.7, 16.2, 0.5), ("mouthSmile", 0.9, 19.0, 0.5),
    ("browInnerUp", 0.9, 14.0, 0.4), ("browOuterUp", 0.9, 14.0, 0.4), ("eyeWide", 0.9, 14.0, 0.4),
    ("look left", 0.8, 15.1, 0.35), ("look right", 0.8, 17.1, 0.35), ("eyeLookDown", 0.8, 18.0, 0.3),
    ("eyeLookUp", 0.6, 20.2, 0.3), ("mouthSmile", 0.9, 22.6, 0.6), ("jawOpen", 0.5, 22.6, 0.6),
)
SIDES = {"look left": ("eyeLookOut_L", "eyeLookIn_R"), "look right": ("eyeLookIn_L", "eyeLookOut_R")}
FPS, SIZE, CRF = 25, 512, 18


def load_actors(path: Path):
    """Import the renderer from a file."""
    spec = importlib.util.spec_from_file_location("actors", path)
    module = sys.modules["actors"] = importlib.util.module_from_spec(spec)  # numba's cache looks it up by name
    spec.loader.exec_module(module)
    return module


def person(actors, seed: int):
    """One person by seed."""
    return actors.Actor(np.random.default_rng(seed).normal(size=actors.Actor.N_FACTORS))


def film(actors, actor, expressions: np.ndarray, poses: np.ndarray, marks: list) -> Iterator[np.ndarray]:
    """Render a performance frame by frame; the true landmarks are appended to ``marks``."""
    for expression, pose in zip(expressions, poses):
        image, landmarks = actors.render(actor, expression, pose, SIZE)
        marks.append(landmarks)
        yield image


def add_extras(actors, expressions: np.ndarray) -> np.ndarray:
    """Expressions [T, 53] with EXTRAS."""
    times = np.arange(len(expressions)) / FPS
    for name, weight, centre, width in EXTRAS:
        shapes = SIDES.get(name) or ([name] if name in actors.SHAPE_ID else [f"{name}_L", f"{name}_R"])
        for shape in shapes:
            expressions[:, actors.SHAPE_ID[shape]] += weight * np.exp(-(((times - centre) / width) ** 2))
    return expressions.clip(0, 1)


def main() -> None:
    """Write scan.mp4, driver.mp4, true_cross.mp4 and truth.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("actors", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    actors, out = load_actors(arguments.actors), arguments.out
    out.mkdir(parents=True, exist_ok=True)
    self_, driver = person(actors, SELF), person(actors, DRIVER)
    expressions, poses = actors.perform("selfscan", SCAN_SECONDS, FPS, SELF + 1)
    scan = add_extras(actors, expressions), poses
    talk = actors.perform("talk", DRIVER_SECONDS, FPS, TALK)
    truth = {"expression_names": np.array(actors.SHAPES), "fps": np.array(FPS)}
    for name, actor, (expressions, poses) in (("scan", self_, scan), ("driver", driver, talk),
                                              ("true_cross", self_, talk)):
        marks: list = []
        times = np.arange(len(poses)) / FPS
        video.write(out / f"{name}.mp4", film(actors, actor, expressions, poses, marks), times, crf=CRF)
        truth |= {f"{name}.expression": expressions.astype(np.float16), f"{name}.pose": poses,
                  f"{name}.landmarks68": np.stack(marks)}
    np.savez_compressed(out / "truth.npz", **truth)


if __name__ == "__main__":
    main()
