"""An exercise of single motions in known seconds, and self-scans that lack one of them.

The full scan is the ``selfscan`` script, then the exercise, so it shows every motion alone. A scan that lacks a motion
is the same performance with the motion's weights held at neutral; all else, frame by frame, is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS
from mystudio.actors.motion import Score, perform
from mystudio.errors import StudioError

REST = 0.5  # s without motion at both ends of an exercise
TURN = np.radians(28.0)  # yaw of a turned head
STILL_YAW = np.radians(5.0)  # most yaw of a scan without turned heads
SWAY = np.radians((1.5, 1.2, 1.0))  # yaw, pitch and roll of the head all along
GLANCE = 0.9  # eyeLook weight of a gaze to the side


def _sides(**weights: float) -> dict[str, float]:
    """The weights of shapes that have a side, for both sides."""
    return {f"{name}_{side}": value for name, value in weights.items() for side in "LR"}


#: motion -> weights of its shapes at its height, and its yaw in radians. Left and right are the person's own
MOTIONS: Mapping[str, tuple[Mapping[str, float], float]] = {
    "smile": (_sides(mouthSmile=0.9), 0.0),
    "open mouth": ({"jawOpen": 0.8}, 0.0),
    "closed eyes": (_sides(eyeBlink=1.0), 0.0),
    "left wink": ({"eyeBlink_L": 1.0}, 0.0),
    "right wink": ({"eyeBlink_R": 1.0}, 0.0),
    "raised brows": (_sides(browInnerUp=0.9, browOuterUp=0.9), 0.0),
    "lowered brows": (_sides(browDown=0.9), 0.0),
    "left brow": ({"browInnerUp_L": 0.9, "browOuterUp_L": 0.9}, 0.0),
    "right brow": ({"browInnerUp_R": 0.9, "browOuterUp_R": 0.9}, 0.0),
    "gaze left": ({"eyeLookOut_L": GLANCE, "eyeLookIn_R": GLANCE}, 0.0),
    "gaze right": ({"eyeLookIn_L": GLANCE, "eyeLookOut_R": GLANCE}, 0.0),
    "head left": ({}, TURN),
    "head right": ({}, -TURN),
}


@dataclass(frozen=True)
class Exercise:
    """A performance of ``MOTIONS``, and when each is done."""

    score: Score
    spans: Mapping[str, slice]  # motion -> its frames, from neutral to its height and back
    level: np.ndarray  # [N] height of a motion in the frames of its span, 0..1
    rest: np.ndarray  # frames without any motion

    def heights(self) -> dict[str, np.ndarray]:
        """Motion -> the frames of its span in which it is nearly at its height."""
        return {name: np.arange(span.start, span.stop)[self.level > 0.9] for name, span in self.spans.items()}


def exercise(each: float = 1.0, fps: float = 25, seed: int = 0) -> Exercise:
    """Compose all motions, one after the other, from rest to rest.

    Args:
        each: s of a motion: rise, hold and fall. fps: frames a second. seed: of the head's sway.
    Raises: StudioError: a motion has too few frames to be seen.
    """
    count, rest = round(each * fps), round(REST * fps)
    if count < 6:
        raise StudioError(
            f"expected six frames of a motion at least, got {each:g} s at {fps:g} frames a second; give more seconds"
        )
    frames = 2 * rest + count * len(MOTIONS)
    expressions, poses = np.zeros((frames, len(EXPRESSIONS)), np.float32), np.zeros((frames, 6), np.float32)
    spans, level = dict[str, slice](), _level(count)
    for number, (name, (weights, yaw)) in enumerate(MOTIONS.items()):
        spans[name] = slice(rest + number * count, rest + (number + 1) * count)
        for shape, weight in weights.items():
            expressions[spans[name], EXPRESSION_ID[shape]] += weight * level
        poses[spans[name], 0] += yaw * level
    t, r = np.arange(frames) / fps, np.random.default_rng(seed)
    for axis, size in enumerate(SWAY):
        poses[:, axis] += size * np.sin(t * r.uniform(0.8, 1.6) + r.uniform(0, 2 * np.pi))
    still = np.concatenate([np.arange(rest), np.arange(frames - rest, frames)])
    return Exercise(Score(expressions, poses, fps), spans, level, still)


def _level(count: int) -> np.ndarray:
    """Rise, hold and fall of a motion, [count] in 0..1: three tenths, four tenths and three tenths of its frames."""
    part = np.minimum(np.arange(count) + 0.5, count - 0.5 - np.arange(count)) / (0.3 * count)
    return 0.5 - 0.5 * np.cos(np.pi * part.clip(0, 1))


def full_scan(seconds: float, each: float = 1.0, fps: float = 25, seed: int = 0) -> Score:
    """The ``selfscan`` script, then an exercise: a scan that shows every motion.

    Args: seconds: of the script. each: s of a motion of the exercise. fps, seed: of both.
    Raises: StudioError: as ``perform`` and ``exercise``.
    """
    parts = perform("selfscan", seconds, fps, seed), exercise(each, fps, seed).score
    expressions, poses = (np.concatenate([getattr(p, name) for p in parts]) for name in ("expressions", "poses"))
    return Score(expressions, poses, fps)


def _held(*shapes: str) -> Callable[[Score], Score]:
    """Hold shapes at weight 0."""

    def hold(score: Score) -> Score:
        expressions = score.expressions.copy()
        expressions[:, _columns(*shapes)] = 0
        return replace(score, expressions=expressions)

    return hold


def _both_lids(score: Score) -> Score:
    """Close both eyes whenever one of them closes."""
    lids, expressions = _columns("eyeBlink"), score.expressions.copy()
    expressions[:, lids] = expressions[:, lids].max(1, keepdims=True)
    return replace(score, expressions=expressions)


def _facing(score: Score) -> Score:
    """Limit the yaw of the head."""
    poses = score.poses.copy()
    poses[:, 0] = poses[:, 0].clip(-STILL_YAW, STILL_YAW)
    return replace(score, poses=poses)


def _tied(*names: str) -> Callable[[Score], Score]:
    """Do two motions always together: the stronger of them sets both."""
    weights = {shape: weight for name in names for shape, weight in MOTIONS[name][0].items()}
    columns, heights = [EXPRESSION_ID[shape] for shape in weights], np.array(list(weights.values()), np.float32)

    def tie(score: Score) -> Score:
        expressions = score.expressions.copy()
        level = (expressions[:, columns] / heights).max(1, keepdims=True).clip(0, 1)
        expressions[:, columns] = level * heights
        return replace(score, expressions=expressions)

    return tie


def _columns(*shapes: str) -> list[int]:
    return [EXPRESSION_ID[name] for name in EXPRESSIONS if name.removesuffix("_L").removesuffix("_R") in shapes]


@dataclass(frozen=True)
class Lack:
    """What a scan lacks."""

    title: str
    needs: tuple[str, ...]  # motions that an avatar of such a scan has not seen
    change: Callable[[Score], Score]


#: name -> a scan that lacks something
LACKS: Mapping[str, Lack] = {
    "smile": Lack("no smile", ("smile",), _held("mouthSmile")),
    "mouth": Lack("no open mouth", ("open mouth",), _held("jawOpen", "mouthFunnel", "mouthLowerDown", "mouthUpperUp")),
    "lids": Lack("no closed eyes", ("closed eyes",), _held("eyeBlink", "eyeSquint")),
    "wink": Lack("no wink", ("left wink", "right wink"), _both_lids),
    "brows": Lack(
        "brows at rest",
        ("raised brows", "lowered brows", "left brow", "right brow"),
        _held("browInnerUp", "browOuterUp", "browDown"),
    ),
    "gaze": Lack("no gaze to the sides", ("gaze left", "gaze right"), _held("eyeLookIn", "eyeLookOut")),
    "head": Lack("no turned head", ("head left", "head right"), _facing),
    "tied": Lack("smile only with raised brows", ("smile", "raised brows"), _tied("smile", "raised brows")),
}
