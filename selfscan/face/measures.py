"""Pose, expression and gaze as ten numbers, the same for filmed and generated faces.

Lengths are measured in 3D, so that head rotation changes them little. d is the distance between the two eyes' centres.
The axes belong to the face: x runs from the right eye's outer corner to the left one's. down runs from the nose bridge
to the base of the nose, made orthogonal to x.

==========  ============================================================================================
yaw         rad, > 0: turned to the person's left (to the right of the picture)
pitch       rad, > 0: chin lowered
roll        rad, > 0: crown towards the left of the picture
mouth_open  gap of the inner lips / d: closed 0, speech 0.05-0.3, wide > 0.3
mouth_width distance of the mouth's corners / d: pursed < 0.65, broad smile > 0.9
smile       mouth_width - (how far the corners are below the base of the nose, along down) / d
eyes_open   gap of the lids, mean of three pairs / distance of the eye's corners, mean of both eyes: 0.25-0.4
brows       height of the brows above the nose bridge / d
gaze_x      iris centre from the middle of the eye's corners along x / distance of the corners, mean of both
            eyes; > 0: to the person's left. Meaningless while the eyes are closed, as is gaze_y
gaze_y      the same upwards; > 0: looks up
==========  ============================================================================================
"""

from __future__ import annotations

import numpy as np

from selfscan.face.headpose import euler, head_pose
from selfscan.face.landmarks import (
    BROWS,
    EYE_CORNERS,
    IRISES,
    LID_PAIRS,
    LIP_GAP,
    MOUTH_CORNERS,
    NOSE_BASE,
    NOSE_BRIDGE,
    OUTER_EYE_CORNERS,
)
from selfscan.types import NUM_LANDMARKS, Array, check_shape

POSE_MEASURES = ("yaw", "pitch", "roll")
EXPRESSION_MEASURES = ("mouth_open", "mouth_width", "smile", "eyes_open", "brows")
GAZE_MEASURES = ("gaze_x", "gaze_y")


def measures(landmarks: Array, pose: Array | None = None) -> dict[str, Array]:
    """Measure pose, expression and gaze (see the module for their definitions).

    Args:
        landmarks: [T, 478, 3], any unit, z in the scale of x.
        pose: [T, 4, 4] head pose; None = that of the landmarks (``head_pose``).

    Returns:
        Name -> [T] float64.
    """
    points = np.asarray(landmarks, np.float64)
    check_shape("landmarks", points, (None, NUM_LANDMARKS, 3))
    pose = head_pose(landmarks) if pose is None else pose
    check_shape("pose", pose, (len(points), 4, 4))

    def at(*indices: int) -> Array:
        return points[:, list(indices)].mean(1)

    eyes = [at(*corners) for corners in EYE_CORNERS]
    d = _length(eyes[1] - eyes[0])
    x, down = _axes(*(points[:, index] for index in (*OUTER_EYE_CORNERS, NOSE_BRIDGE, NOSE_BASE)))
    widths = [_distance(points, corners) for corners in EYE_CORNERS]
    opened = [np.mean([_distance(points, pair) for pair in pairs], 0) for pairs in LID_PAIRS]
    gazes = [at(iris[0]) - eye for iris, eye in zip(IRISES, eyes)]
    mouth_width = _distance(points, MOUTH_CORNERS) / d
    yaw, pitch, roll = euler(pose).T
    return {
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "mouth_open": _distance(points, LIP_GAP) / d,
        "mouth_width": mouth_width,
        "smile": mouth_width - _dot(at(*MOUTH_CORNERS) - at(NOSE_BASE), down) / d,
        "eyes_open": (opened[0] / widths[0] + opened[1] / widths[1]) / 2,
        "brows": _dot(at(NOSE_BRIDGE) - at(*BROWS), down) / d,
        "gaze_x": (_dot(gazes[0], x) / widths[0] + _dot(gazes[1], x) / widths[1]) / 2,
        "gaze_y": -(_dot(gazes[0], down) / widths[0] + _dot(gazes[1], down) / widths[1]) / 2,
    }


def _axes(right: Array, left: Array, bridge: Array, base: Array) -> tuple[Array, Array]:
    """The face's own unit axes x and down, [T, 3] each."""
    x = left - right
    x /= _length(x)[:, None]
    down = base - bridge
    down -= _dot(down, x)[:, None] * x
    return x, down / _length(down)[:, None]


def _distance(points: Array, pair: tuple[int, int]) -> Array:
    return _length(points[:, pair[0]] - points[:, pair[1]])


def _length(v: Array) -> Array:
    return np.linalg.norm(v, axis=-1)


def _dot(a: Array, b: Array) -> Array:
    return (a * b).sum(-1)
