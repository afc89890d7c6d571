"""Three lights (key, fill, rim) over a sky and a ground, and the key light's shadow map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mystudio.actors.head import view_axes
from mystudio.actors.jit import inline, splice
from mystudio.actors.raster import depth_map, strand_depth

SHADOW_SIZE = 224  # samples a side
SHADOW_HALF = 21.0  # cm around the head
Triple = tuple[np.float32, np.float32, np.float32]


class Lights(NamedTuple):
    """A set-up of lights in camera axes. Plain numbers, because compiled code passes them at no cost."""

    toward: tuple[Triple, Triple, Triple]  # unit vectors: key, fill, rim
    colour: tuple[Triple, Triple, Triple]  # linear RGB
    sky: Triple  # light from above
    ground: Triple  # light from below


class Shadow(NamedTuple):
    """The key light's shadow map: depth of the surface nearest to the light."""

    depth: np.ndarray  # [S, S] float32
    axes: tuple[Triple, Triple, Triple]  # of the map: right, down, towards the light
    centre: Triple  # cm


def numbers(array: np.ndarray | Sequence[float]) -> tuple:
    """An array as (nested) tuples of float32."""
    values = np.asarray(array, np.float32)
    return tuple(map(numbers, values)) if values.ndim > 1 else tuple(values)


def set_up(side: float, strength: float, warmth: float, contrast: float, backdrop: np.ndarray) -> Lights:
    """The lights of a person.

    Args:
        side: -0.5 from the left .. 0.5 from the right. strength: of the key light, 0..1.
        warmth: -0.5 cold .. 0.5 warm. contrast: 0 flat .. 1 dramatic. backdrop: [3] mean linear RGB of the backdrop.
    """
    key = np.array([1.6 * side, 0.45 + 0.25 * contrast, 0.8])
    fill = np.array([-1.3 * np.sign(side + 1e-6) - 0.3 * side, 0.1, 0.9])
    rim = np.array([-1.4 * np.sign(side + 1e-6), 0.6, -0.75])
    toward = np.stack([v / np.linalg.norm(v) for v in (key, fill, rim)])
    tint = np.array([1 + 0.3 * warmth, 1.0, 1 - 0.35 * warmth])
    cold = np.array([1 - 0.16 * warmth, 1.0, 1 + 0.2 * warmth])
    power = (0.85 + 0.5 * strength) * (0.82 + 0.45 * contrast)
    colour = np.stack([power * tint, (0.55 - 0.36 * contrast) * cold, (0.15 + 1.1 * contrast**1.5) * cold])
    bounce = 0.75 + 0.25 * backdrop / max(float(backdrop.mean()), 0.05)
    sky = (0.46 - 0.2 * contrast) * cold * bounce
    ground = (0.27 - 0.12 * contrast) * np.array([1.06, 1.0, 0.94]) * bounce
    return Lights(numbers(toward), numbers(colour), numbers(sky), numbers(ground))


def cast(
    lights: Lights, vertices: np.ndarray, faces: list[np.ndarray], hair: list[np.ndarray], centre: np.ndarray
) -> Shadow:
    """The key light's shadow of triangles [F, 3] each, and of strands [S, P, 3] each."""
    axes = view_axes(np.array(lights.toward[0]))
    scale = np.array([SHADOW_SIZE / (2 * SHADOW_HALF)] * 2 + [1.0], np.float32)
    into = axes.T * scale
    shift = np.array([SHADOW_SIZE / 2] * 2 + [0.0], np.float32) - centre @ into
    depth = depth_map(vertices @ into + shift, faces, SHADOW_SIZE)
    for places in hair:
        strand_depth(places, into, shift - np.array([0, 0, 0.25], np.float32), depth)
    return Shadow(depth, numbers(axes), numbers(centre))


@splice()
def _from_light(shadow, x, y, z):
    """Project a point in camera axes into the shadow map: samples to the right and down, and nearness to the light."""
    (rx, ry, rz), (dx, dy, dz), (tx, ty, tz) = shadow.axes
    x, y, z = x - shadow.centre[0], y - shadow.centre[1], z - shadow.centre[2]
    scale, middle = np.float32(SHADOW_SIZE / (2 * SHADOW_HALF)), np.float32(SHADOW_SIZE / 2)
    return (
        (rx * x + ry * y + rz * z) * scale + middle,
        (dx * x + dy * y + dz * z) * scale + middle,
        tx * x + ty * y + tz * z,
    )


@inline()
def lit(shadow, x, y, z, bias):
    """Share of the key light that reaches a point in camera axes: a tent filter over 3 x 3 samples."""
    u, v, near = _from_light(shadow, x, y, z)
    u, v, near = u - np.float32(0.5), v - np.float32(0.5), near + bias
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
                gap = (near - shadow.depth[j + dj, i + di]) * np.float32(5.0) + np.float32(1.0)
                total += wu * wv * min(max(gap, np.float32(0.0)), np.float32(1.0))
    return total * np.float32(0.25)


@inline()
def lit_hair(shadow, x, y, z):
    """Share of the key light that reaches a strand, from one sample; it falls smoothly with depth inside the hair."""
    u, v, near = _from_light(shadow, x, y, z)
    i, j = int(u), int(v)
    if i < 0 or j < 0 or i >= SHADOW_SIZE or j >= SHADOW_SIZE:
        return np.float32(1.0)
    gap = (near + np.float32(0.7) - shadow.depth[j, i]) * np.float32(0.9)
    return min(max(gap + np.float32(1.0), np.float32(0.12)), np.float32(1.0))
