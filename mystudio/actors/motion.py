"""Motion of actors: scripted performances, and single frames from motion factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS
from mystudio.actors.factors import MOTION_NAMES, N_MOTION, SIDE_NAMES
from mystudio.errors import StudioError

Clock = tuple[np.random.Generator, float, float]  # random generator, seconds, frames a second

SCRIPTS = ("selfscan", "talk")
#: gaze angle, radians, of an eyeLook shape with weight 1
GAZE_SIDE, GAZE_UP, GAZE_DOWN = np.radians((35.0, 26.0, 30.0))

_SCAN_ACTS = (
    ("mouthSmile", 0.9),
    ("jawOpen", 0.8),
    ("mouthFunnel", 0.9),
    ("browInnerUp", 0.9),
    ("browDown", 0.9),
    ("mouthPucker", 1.0),
    ("cheekPuff", 0.8),
    ("eyeWide", 0.9),
    ("mouthFrown", 0.9),
    ("eyeSquint", 0.9),
    ("mouthLeft", 0.7),
    ("mouthRight", 0.7),
)
_MOODS = (("mouthSmile", 0.35), ("browInnerUp", 0.4), ("browDown", 0.3), ("eyeSquint", 0.25))
_SPEECH = (
    ("jawOpen", 0.45),
    ("mouthFunnel", 0.3),
    ("mouthStretch", 0.3),
    ("mouthPucker", 0.3),
    ("mouthLowerDown", 0.3),
    ("mouthUpperUp", 0.25),
)
#: for each motion factor that is a shape, in order: (threshold, weight at 1.3 above the threshold)
_FACTOR_SHAPES = (
    (0.0, 0.7),
    (0.1, 0.9),
    (0.8, 0.7),
    (0.8, 0.9),
    (1.0, 0.8),
    (1.0, 0.7),
    (0.8, 0.6),
    (0.8, 0.6),
    (0.5, 0.9),
    (0.5, 0.9),
    (0.8, 0.8),
    (0.7, 1.0),
    (0.8, 0.9),
    (0.8, 0.9),
    (1.4, 0.8),
    (1.3, 0.8),
    (1.4, 0.7),
    (1.4, 0.7),
)
#: for each side factor: the shape of one side, its threshold, and its weight at 1.3 above the threshold
_SIDE_SHAPES = (("eyeBlink", 0.8, 1.0), ("browOuterUp", 0.8, 0.9), ("mouthSmile", 0.8, 0.8))


@dataclass(frozen=True)
class Score:
    """A performance as numbers for each frame; any actor can play it."""

    expressions: np.ndarray  # [T, 53] ARKit weights in 0..1, in the order of basis.EXPRESSIONS
    poses: np.ndarray  # [T, 6] yaw, pitch, roll in radians and x, y, z in centimetres
    fps: float

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def times(self) -> np.ndarray:
        """Times of the frames [T], s."""
        return np.arange(len(self)) / self.fps


def perform(script: str, seconds: float, fps: float = 25, seed: int = 0) -> Score:
    """Compose a performance from a script.

    Args:
        script: ``selfscan`` (look around, then talk and grimace while the head moves on) or ``talk``.
        seconds, fps: its length and frame rate. seed: of its random parts.
    Raises: StudioError: there is no such script, or the time is too short for one frame.
    """
    frames = int(seconds * fps)
    if script not in SCRIPTS or frames < 1:
        raise StudioError(
            f"expected one of the scripts {', '.join(SCRIPTS)} and a frame at least, got {script!r} and "
            f"{seconds:g} s at {fps:g} frames a second; choose others"
        )
    r = np.random.default_rng(seed)
    t = np.arange(frames) / fps
    e, pose = np.zeros((frames, len(EXPRESSIONS)), np.float32), np.zeros((frames, 6), np.float32)
    clock: Clock = (r, seconds, fps)
    speech = _self_scan(e, pose, t, clock) if script == "selfscan" else _small_talk(e, pose, clock)
    for name, scale in _SPEECH:
        _add(e, name, speech * np.clip(_wander(*clock, 0.17, scale), 0, 0.9))
    _look(e, _wander(*clock, 0.8, 0.35), _wander(*clock, 0.9, 0.25), 0.9, 0.7)
    blink = 1.0
    while blink < seconds:
        _add(e, "eyeBlink", np.exp(-(((t - blink) / 0.07) ** 2)))
        blink += r.uniform(1.8, 4.5)
    pose[:, 3], pose[:, 4], pose[:, 5] = (_wander(*clock, 1.7, scale) for scale in (0.5, 0.4, 0.8))
    return Score(e.clip(0, 1), pose, fps)


def frame_from_factors(factors: np.ndarray, sides: Sequence[float] | np.ndarray = ()) -> tuple[np.ndarray, np.ndarray]:
    """Expression [53] and pose [6] of standard-normal factors.

    Args: factors: [26], see factors.MOTION_NAMES. sides: [3], see factors.SIDE_NAMES, or none of them.
    """
    m = np.asarray(factors)
    if m.shape != (N_MOTION,) or len(sides) not in (0, len(SIDE_NAMES)):
        raise ValueError(
            f"factors, sides: expected [{N_MOTION}] and [{len(SIDE_NAMES)}] or none, got {m.shape} and {len(sides)}; "
            "give the factors of one frame"
        )
    e = np.zeros((1, len(EXPRESSIONS)), np.float32)
    for name, (threshold, scale), value in zip(MOTION_NAMES, _FACTOR_SHAPES, m):
        _add(e, name, scale * np.clip((value - threshold) / 1.3, 0, 1))
    for (name, threshold, scale), value in zip(_SIDE_SHAPES, sides):
        _add(e, f"{name}_{'L' if value > 0 else 'R'}", scale * np.clip((abs(value) - threshold) / 1.3, 0, 1))
    gaze_x, gaze_y, *rest = m[len(_FACTOR_SHAPES) :]
    _look(e, np.clip(0.35 * gaze_x, -0.9, 0.9), np.clip(0.25 * gaze_y, -0.9, 0.9), 1.0, 1.0)
    rest = np.clip(rest, -2.5, 2.5)
    pose = np.concatenate([np.radians(rest[:3] * np.array([20, 10, 6])), rest[3:] * np.array([0.5, 0.4, 0.8])])
    return e[0].clip(0, 1), pose.astype(np.float32)


def gaze_angles(expression: np.ndarray) -> np.ndarray:
    """Gaze of both eyes from ARKit weights.

    Args: expression: [..., 53].
    Returns: [..., 2, 2] radians in the head's axes: left eye (the person's own), right eye; yaw (to the person's
        left, +x, as the head's), pitch (down, as the head's).
    """

    def weight(name: str) -> np.ndarray:
        return expression[..., EXPRESSION_ID[name]]

    eyes = []
    for side, outward in (("L", 1.0), ("R", -1.0)):
        yaw = outward * (weight(f"eyeLookOut_{side}") - weight(f"eyeLookIn_{side}")) * GAZE_SIDE
        pitch = weight(f"eyeLookDown_{side}") * GAZE_DOWN - weight(f"eyeLookUp_{side}") * GAZE_UP
        eyes.append(np.stack([yaw, pitch], -1))
    return np.stack(eyes, -2)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Head rotation [3, 3] float32 from angles in radians: yaw first, then pitch, then roll."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    return (
        np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    ).astype(np.float32)


def _self_scan(e: np.ndarray, pose: np.ndarray, t: np.ndarray, clock) -> float:
    r, seconds, _ = clock
    knots = np.linspace(0, seconds * 0.5, 9)
    pose[:, 0] = _ease(t, knots, np.radians([0, 38, 0, -38, 0, 15, 0, -15, 0])) + np.radians(6) * np.sin(t * 1.1)
    pose[:, 1] = _ease(t, knots, np.radians([0, 4, 0, 4, 0, -20, 18, -12, 0])) + np.radians(4) * np.sin(t * 0.8)
    pose[:, 2] = np.radians(7) * np.sin(t * 0.63 + r.uniform(0, 6))
    span = seconds / len(_SCAN_ACTS)
    for k, (name, value) in enumerate(_SCAN_ACTS):
        _add(e, name, value * np.exp(-(((t - (k + 0.5) * span) / (0.30 * span)) ** 2)))
    return 0.7


def _small_talk(e: np.ndarray, pose: np.ndarray, clock: Clock) -> float:
    for k, degrees in enumerate((10, 5, 4)):
        pose[:, k] = np.radians(_wander(*clock, 1.1, degrees))
    for name, scale in _MOODS:
        _add(e, name, np.clip(_wander(*clock, 1.3, scale), 0, 1))
    return 1.0


def _look(e: np.ndarray, x, y, limit_x: float, limit_y: float) -> None:
    for side, outward in (("L", 1), ("R", -1)):
        _add(e, f"eyeLookOut_{side}", np.clip(outward * x, 0, limit_x))
        _add(e, f"eyeLookIn_{side}", np.clip(-outward * x, 0, limit_x))
    _add(e, "eyeLookUp", np.clip(y, 0, limit_y))
    _add(e, "eyeLookDown", np.clip(-y, 0, limit_y))


def _add(e: np.ndarray, name: str, value) -> None:
    for n in [name] if name in EXPRESSION_ID else [f"{name}_L", f"{name}_R"]:
        e[:, EXPRESSION_ID[n]] += value


def _ease(t: np.ndarray, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    k = np.clip(np.searchsorted(knots, t) - 1, 0, len(knots) - 2)
    f = np.clip((t - knots[k]) / (knots[k + 1] - knots[k]), 0, 1)
    return values[k] + (values[k + 1] - values[k]) * (0.5 - 0.5 * np.cos(np.pi * f))


def _wander(r: np.random.Generator, seconds: float, fps: float, every: float, scale: float) -> np.ndarray:
    """A smooth random track with a new normally distributed target every ``every`` seconds."""
    knots = np.arange(-1, seconds / every + 2) * every
    return _ease(np.arange(int(seconds * fps)) / fps, knots, r.normal(size=len(knots)) * scale)
