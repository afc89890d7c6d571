"""Transforms of points from rest position to camera axes and to samples of the image (compiled)."""

from __future__ import annotations

import numpy as np

from mystudio.actors.camera import DISTANCE, FOCAL
from mystudio.actors.head import PIVOT
from mystudio.actors.jit import njit

_PIVOT = tuple(PIVOT)


@njit()
def pose(places, follow, turn, shift, out):
    """Rotate points [N, 3] about the neck by a share ``follow`` [N] of ``turn`` [3, 3], and shift them.

    The result is written to ``out`` [N, 3], in camera axes. All arrays are float32; lengths in cm.
    """
    px, py, pz = _PIVOT
    for i in range(places.shape[0]):
        x, y, z = places[i, 0] - px, places[i, 1] - py, places[i, 2] - pz
        f = follow[i]
        for k in range(3):
            turned = turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] * z + _PIVOT[k]
            out[i, k] = places[i, k] + f * (turned - places[i, k]) + shift[k]


@njit()
def carry(points, change, root, tip, out):
    """Move strands [S, P, 3] with the skin under their ends; the result is written to ``out``.

    Args: change: [V, 3] of the skin's vertices. root, tip: [S] vertices under the two ends.
    """
    last = np.float32(points.shape[1] - 1)
    for s in range(points.shape[0]):
        a, b = root[s], tip[s]
        for p in range(points.shape[1]):
            t = np.float32(p) / last
            for k in range(3):
                out[s, p, k] = points[s, p, k] + change[a, k] + t * (change[b, k] - change[a, k])


@njit()
def see(places, into, out):
    """Project points [N, 3] in camera axes to samples and depth (larger is nearer).

    The result is written to the first three columns of ``out`` [N, 3+].

    Args: into: [2, 3] float32 samples from frames (``camera.Camera.image_from_frame``, by samples a pixel).
    """
    for i in range(places.shape[0]):
        away = places[i, 2] - np.float32(DISTANCE)
        scale = np.float32(-FOCAL / 2) / away
        u, v = places[i, 0] * scale + np.float32(0.5), np.float32(0.5) - places[i, 1] * scale
        out[i, 0] = into[0, 0] * u + into[0, 1] * v + into[0, 2]
        out[i, 1] = into[1, 0] * u + into[1, 1] * v + into[1, 2]
        out[i, 2] = away


@njit()
def see_width(places, into, width, alpha, out, alphas):
    """Widths of strands' points [S * P, 3] in samples, and their opacities.

    Widths are written to the last column of ``out`` [S * P, 4]. No ribbon is narrower than 0.9 samples: finer ones are
    drawn at that width with less opacity.

    Args: width: [P] cm. alpha: opacity of the strands. alphas: [S * P], written.
    """
    scale = np.sqrt(into[0, 0] * into[0, 0] + into[1, 0] * into[1, 0]) * np.float32(FOCAL / 2)
    thinnest = np.float32(0.9)
    for i in range(places.shape[0]):
        w = width[i % width.shape[0]] * scale / (np.float32(DISTANCE) - places[i, 2])
        out[i, 3] = max(w, thinnest)
        alphas[i] = alpha * min(w / thinnest, np.float32(1.0))
