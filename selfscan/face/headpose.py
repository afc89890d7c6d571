"""Head pose from landmarks: the similarity that fits a canonical head to the rigid points of a face.

Axes: x right, y down, z away from the camera. A frontal, upright face has yaw = pitch = roll = 0. Signs: yaw > 0 turns
the face to the right of the picture; pitch > 0 looks down; roll > 0 tilts the crown to the left of the picture
(counter-clockwise). One head unit is the distance between the outer eye corners of the canonical head. The origin is
the mean of the rigid points.

The pose of FFHQ's mean face is defined as frontal. Synthetic actors define their zero differently and measure 3.4
degrees lower in pitch. Apart from that offset, the mean error on actors is 1.6 degrees in yaw, 1.1 in pitch and 1.2 in
roll (three self-scans, +-40 degrees yaw).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from selfscan.face.landmarks import RIGID
from selfscan.types import Array

CANONICAL = Path(__file__).parents[1] / "data" / "canonical.npz"  # made by recipes/make_canonical.py
_UPRIGHT = np.array([1.0, -1.0, -1.0])  # flips y and z: the angles are defined with y up and z towards the camera


@lru_cache(maxsize=1)
def canonical_head() -> Array:
    """Landmarks [478, 3] of the neutral, symmetric mean head, in head units (read-only)."""
    with np.load(CANONICAL) as file:
        head = file["landmarks"].astype(np.float64)
    head.setflags(write=False)
    return head


def head_pose(landmarks: Array) -> Array:
    """Pose of the head: the least-squares similarity from the canonical head to the rigid landmarks.

    Args:
        landmarks: [..., 478, 3] px, z in the scale of x.
    Returns:
        frame_from_head [..., 4, 4] float32: rotation times scale, and translation in px.
    """
    index = list(RIGID)
    scale, rotation, shift = procrustes(canonical_head()[index], np.asarray(landmarks, np.float64)[..., index, :])
    pose = np.zeros((*scale.shape, 4, 4), np.float32)
    pose[..., :3, :3] = scale[..., None, None] * rotation
    pose[..., :3, 3] = shift
    pose[..., 3, 3] = 1
    return pose


def euler(pose: Array) -> Array:
    """Yaw, pitch and roll of a pose, where rotation = roll after pitch after yaw.

    Args:
        pose: [..., 4, 4] or [..., 3, 3]; its scale is removed.
    Returns:
        [..., 3] yaw, pitch, roll in rad (see the module for the signs).
    """
    linear = np.asarray(pose, np.float64)[..., :3, :3]
    r = _UPRIGHT[:, None] * linear * _UPRIGHT / np.cbrt(np.linalg.det(linear))[..., None, None]
    yaw = np.arctan2(-r[..., 2, 0], r[..., 2, 2])
    pitch = np.arcsin(np.clip(r[..., 2, 1], -1, 1))
    roll = np.arctan2(-r[..., 0, 1], r[..., 1, 1])
    return np.stack([yaw, pitch, roll], -1)


def rotation(angles: Array) -> Array:
    """Rotation matrices of yaw, pitch and roll: the inverse of ``euler``.

    Args:
        angles: [..., 3] yaw, pitch, roll in rad.
    Returns:
        [..., 3, 3] in frame axes.
    """
    (cy, cp, cr), (sy, sp, sr) = (np.moveaxis(f(np.asarray(angles, np.float64)), -1, 0) for f in (np.cos, np.sin))
    zero, one = np.zeros_like(cy), np.ones_like(cy)
    roll = _matrix([[cr, -sr, zero], [sr, cr, zero], [zero, zero, one]])
    pitch = _matrix([[one, zero, zero], [zero, cp, -sp], [zero, sp, cp]])
    yaw = _matrix([[cy, zero, sy], [zero, one, zero], [-sy, zero, cy]])
    return _UPRIGHT[:, None] * (roll @ pitch @ yaw) * _UPRIGHT


def procrustes(source: Array, target: Array) -> tuple[Array, Array, Array]:
    """Similarity target = scale rotation source + shift with the least squared error: Umeyama, 1991.

    Args:
        source: [N, D] points, D = 2 or 3.
        target: [..., N, D].
    Returns:
        scale [...], rotation [..., D, D] (no reflection), shift [..., D].
    """
    source_mean, target_mean = source.mean(0), target.mean(-2)
    a, b = source - source_mean, target - target_mean[..., None, :]
    u, s, vt = np.linalg.svd(np.einsum("...ni,nj->...ij", b, a))
    s[..., -1] *= np.sign(np.linalg.det(u @ vt))
    u[..., -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
    rotation_ = u @ vt
    scale = s.sum(-1) / (a**2).sum()
    return scale, rotation_, target_mean - scale[..., None] * (rotation_ @ source_mean)


def _matrix(rows) -> Array:
    return np.stack([np.stack(row, -1) for row in rows], -2)
