"""Three lights (key, fill, rim) over a sky and a ground, and the key light's shadow map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mystudio.actors.head import view_axes
from mystudio.actors.jit import inline
from mystudio.actors.raster import NOTHING, depth_map, strand_depth

SHADOW_SIZE = 224  # samples a side
SHADOW_HALF = 21.0  # cm around the head


class Lights(NamedTuple):
    """A set-up of lights, in the axes of the camera."""

    toward: np.ndarray  # [3, 3] float32 unit vectors: key, fill, rim
    colour: np.ndarray  # [3, 3] float32 linear RGB
    sky: np.ndarray  # [3] light from above
    ground: np.ndarray  # [3] light from below
    shadow: np.ndarray  # [S, S] float32 depth of what the key light meets first
    axes: np.ndarray  # [3, 3] of the shadow map: right, down, towards the light
    centre: np.ndarray  # [3] cm


def set_up(side: float, strength: float, warmth: float, contrast: float, backdrop: np.ndarray) -> Lights:
    """Lights of a person's picture.

    Args:
        side: -0.5 from the left .. 0.5 from the right. strength: of the key light, 0..1.
        warmth: -0.5 cold .. 0.5 warm. contrast: 0 flat .. 1 dramatic. backdrop: [3] mean linear RGB behind.
    """
    key = np.array([1.6 * side, 0.45 + 0.25 * contrast, 0.8])
    fill = np.array([-1.3 * np.sign(side + 1e-6) - 0.3 * side, 0.1, 0.9])
    rim = np.array([-1.4 * np.sign(side + 1e-6), 0.6, -0.75])
    toward = np.stack([v / np.linalg.norm(v) for v in (key, fill, rim)]).astype(np.float32)
    tint = np.array([1 + 0.3 * warmth, 1.0, 1 - 0.35 * warmth])
    cold = np.array([1 - 0.16 * warmth, 1.0, 1 + 0.2 * warmth])
    power = (0.85 + 0.5 * strength) * (0.82 + 0.45 * contrast)
    colour = np.stack([power * tint, (0.55 - 0.36 * contrast) * cold, (0.15 + 1.1 * contrast**1.5) * cold])
    bounce = 0.75 + 0.25 * backdrop / max(float(backdrop.mean()), 0.05)
    sky = (0.46 - 0.2 * contrast) * cold * bounce
    ground = (0.27 - 0.12 * contrast) * np.array([1.06, 1.0, 0.94]) * bounce
    empty = np.full((SHADOW_SIZE, SHADOW_SIZE), NOTHING, np.float32)
    return Lights(toward, colour.astype(np.float32), sky.astype(np.float32), ground.astype(np.float32), empty,
                  view_axes(toward[0]), np.zeros(3, np.float32))


def with_shadow(lights: Lights, vertices: np.ndarray, faces: list[np.ndarray], hair: list[np.ndarray],
                centre: np.ndarray) -> Lights:
    """Lights that know what the key light meets first: triangles [F, 3] each, and strands [S, P, 3] each."""
    scale = np.array([SHADOW_SIZE / (2 * SHADOW_HALF)] * 2 + [1.0], np.float32)
    into = lights.axes.T * scale
    shift = np.array([SHADOW_SIZE / 2] * 2 + [0.0], np.float32) - centre @ into
    depth = depth_map(vertices @ into + shift, faces, SHADOW_SIZE)
    for places in hair:
        strand_depth(places, into, shift - np.array([0, 0, 0.25], np.float32), depth)
    return lights._replace(shadow=depth, centre=centre.astype(np.float32))


@inline()
def lit(lights, x, y, z, bias):
    """Share of the key light that reaches a place in camera axes: a tent filter over 3 x 3 samples."""
    a, c = lights.axes, lights.centre
    x, y, z = x - c[0], y - c[1], z - c[2]
    scale = np.float32(SHADOW_SIZE / (2 * SHADOW_HALF))
    u = (a[0, 0] * x + a[0, 1] * y + a[0, 2] * z) * scale + np.float32(SHADOW_SIZE / 2 - 0.5)
    v = (a[1, 0] * x + a[1, 1] * y + a[1, 2] * z) * scale + np.float32(SHADOW_SIZE / 2 - 0.5)
    near = a[2, 0] * x + a[2, 1] * y + a[2, 2] * z + bias
    if u < 2 or v < 2 or u > SHADOW_SIZE - 3 or v > SHADOW_SIZE - 3:
        return np.float32(1.0)
    i, j = int(u), int(v)
    fu, fv = np.float32(u - i), np.float32(v - j)
    total = np.float32(0.0)
    for dj in range(-1, 3):
        wv = np.float32(1.0) - abs(dj - fv) * np.float32(0.5)
        for di in range(-1, 3):
            wu = np.float32(1.0) - abs(di - fu) * np.float32(0.5)
            if wu > 0 and wv > 0:
                gap = (near - lights.shadow[j + dj, i + di]) * np.float32(5.0) + np.float32(1.0)
                total += wu * wv * min(max(gap, np.float32(0.0)), np.float32(1.0))
    return total * np.float32(0.25)


@inline()
def lit_hair(lights, x, y, z):
    """Share of the key light that reaches a strand: softer with depth below the hair's outside, one sample."""
    a, c = lights.axes, lights.centre
    x, y, z = x - c[0], y - c[1], z - c[2]
    scale = np.float32(SHADOW_SIZE / (2 * SHADOW_HALF))
    i = int((a[0, 0] * x + a[0, 1] * y + a[0, 2] * z) * scale + np.float32(SHADOW_SIZE / 2))
    j = int((a[1, 0] * x + a[1, 1] * y + a[1, 2] * z) * scale + np.float32(SHADOW_SIZE / 2))
    if i < 0 or j < 0 or i >= SHADOW_SIZE or j >= SHADOW_SIZE:
        return np.float32(1.0)
    gap = (a[2, 0] * x + a[2, 1] * y + a[2, 2] * z + np.float32(0.7) - lights.shadow[j, i]) * np.float32(0.9)
    return min(max(gap + np.float32(1.0), np.float32(0.12)), np.float32(1.0))
