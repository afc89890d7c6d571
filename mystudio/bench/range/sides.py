"""Measures of each side of the face, beside those of ``selfscan.face.measures``, whose means hide a wink.

==========  ===========================================================================================
lid_*       gap of the lids of one eye / distance of its corners
brow_*      height of one brow above the nose bridge / distance between the eyes' centres
gaze_*_x    place of one iris between the corners of its eye, > 0: to the person's left. Eyes that cross differ
wink        lid_left - lid_right: < 0 while the left eye alone is closed
one_brow    brow_left - brow_right: > 0 while the left brow alone is raised
==========  ===========================================================================================
"""

from __future__ import annotations

import numpy as np

from selfscan.face.landmarks import BROWS, EYE_CORNERS, IRISES, LID_PAIRS, NOSE_BASE, NOSE_BRIDGE, OUTER_EYE_CORNERS
from selfscan.face.measures import measures
from selfscan.types import Array

SIDES = ("right", "left")  # the person's own, in the order of the landmarks


def sided(landmarks: Array) -> dict[str, Array]:
    """All measures of faces, with those of each side.

    Args: landmarks: [T, 478, 3], any unit, z in the scale of x.
    Returns: name -> [T] float64.
    """
    found, points = measures(landmarks), np.asarray(landmarks, np.float64)
    eyes = [points[:, list(corners)].mean(1) for corners in EYE_CORNERS]
    between = np.linalg.norm(eyes[1] - eyes[0], axis=-1)
    across, down = _axes(points)
    for side, name in enumerate(SIDES):
        width = _gap(points, EYE_CORNERS[side])
        found[f"lid_{name}"] = np.mean([_gap(points, pair) for pair in LID_PAIRS[side]], 0) / width
        brow = points[:, list(BROWS[5 * side : 5 * side + 5])].mean(1)
        found[f"brow_{name}"] = ((points[:, NOSE_BRIDGE] - brow) * down).sum(-1) / between
        iris = points[:, IRISES[side][0]] - eyes[side]
        found[f"gaze_{name}_x"] = (iris * across).sum(-1) / width
    found["wink"] = found["lid_left"] - found["lid_right"]
    found["one_brow"] = found["brow_left"] - found["brow_right"]
    return found


def _axes(points: Array) -> tuple[Array, Array]:
    """The face's own unit axes to the person's left and down, [T, 3] each, as in ``selfscan.face.measures``."""
    right, left = OUTER_EYE_CORNERS
    across = points[:, left] - points[:, right]
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    down = points[:, NOSE_BASE] - points[:, NOSE_BRIDGE]
    down -= (down * across).sum(-1, keepdims=True) * across
    return across, down / np.linalg.norm(down, axis=-1, keepdims=True)


def _gap(points: Array, pair: tuple[int, int]) -> Array:
    return np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=-1)
