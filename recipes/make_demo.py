"""Render the packaged demo with synthetic people: a self-scan, a driving clip and the true cross-reenactment.

    mystudio actors import-basis ICT_FACEKIT
    python recipes/make_demo.py mystudio/data/demo

The seeds were chosen by eye, so that the two people differ clearly in skin, hair, face shape and clothes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mystudio.actors.actor import Actor
from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS
from mystudio.actors.film import film
from mystudio.actors.motion import Score, perform
from selfscan.io import video

SELF, DRIVER = 33, 13  # seeds of the two people
TALK = 9  # seed of the driver's performance: smiles, opens the mouth wide, looks to both sides, blinks
SCAN_SECONDS, DRIVER_SECONDS = 24, 4
#: further expressions of a good self-scan, after the head turns: (shape, weight, centre s, width s)
EXTRAS = (
    ("mouthSmile", 1.0, 12.9, 0.5),
    ("mouthSmile", 0.7, 16.2, 0.5),
    ("mouthSmile", 0.9, 19.0, 0.5),
    ("browInnerUp", 0.9, 14.0, 0.4),
    ("browOuterUp", 0.9, 14.0, 0.4),
    ("eyeWide", 0.9, 14.0, 0.4),
    ("look left", 0.8, 15.1, 0.35),
    ("look right", 0.8, 17.1, 0.35),
    ("eyeLookDown", 0.8, 18.0, 0.3),
    ("eyeLookUp", 0.6, 20.2, 0.3),
    ("mouthSmile", 0.9, 22.6, 0.6),
    ("jawOpen", 0.5, 22.6, 0.6),
)
SIDES = {"look left": ("eyeLookOut_L", "eyeLookIn_R"), "look right": ("eyeLookIn_L", "eyeLookOut_R")}
FPS, SIZE, CRF = 25, 512, 21


def with_extras(score: Score) -> Score:
    """Add EXTRAS to a self-scan."""
    expressions = score.expressions.copy()
    for name, weight, centre, width in EXTRAS:
        for shape in SIDES.get(name) or ([name] if name in EXPRESSION_ID else [f"{name}_L", f"{name}_R"]):
            bump = weight * np.exp(-(((score.times - centre) / width) ** 2))
            expressions[:, EXPRESSION_ID[shape]] += bump
    return replace(score, expressions=expressions.clip(0, 1))


def main() -> None:
    """Write scan.mp4, driver.mp4, true_cross.mp4 and truth.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    talk = perform("talk", DRIVER_SECONDS, FPS, TALK)
    scan = with_extras(perform("selfscan", SCAN_SECONDS, FPS, SELF + 1))
    truth = {"expression_names": np.array(EXPRESSIONS), "fps": np.array(FPS)}
    for name, seed, score in (("scan", SELF, scan), ("driver", DRIVER, talk), ("true_cross", SELF, talk)):
        marks: list = []

        def images(seed=seed, score=score, marks=marks) -> Iterator[np.ndarray]:
            for frame in film(Actor.from_seed(seed), score, SIZE, seed=seed):
                marks.append(frame.landmarks)
                yield frame.image

        video.write(out / f"{name}.mp4", images(), score.times, crf=CRF)
        truth |= {
            f"{name}.expression": score.expressions.astype(np.float16),
            f"{name}.pose": score.poses,
            f"{name}.landmarks68": np.stack(marks),
        }
    np.savez_compressed(out / "truth.npz", **truth)


if __name__ == "__main__":
    main()
