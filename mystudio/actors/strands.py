"""Strands of hair: choice of their roots, and growth through a field of directions (compiled)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mystudio.actors.head import Head
from mystudio.actors.jit import inline, njit
from mystudio.actors.light import Triple
from mystudio.actors.noise import sample


class Field(NamedTuple):
    """The field that guides the strands of a head; plain numbers, as in ``light.Lights``."""

    centre: Triple  # of the skull's ellipsoid, cm
    radii: Triple
    comb: Triple  # direction: away from the parting, up, forward
    parting: np.float32  # cm to the person's left
    lift: np.float32
    fall: np.float32
    wave: np.float32  # cm
    tight: np.float32  # waves a cm
    bulk: np.float32  # cm
    knot: bool
    tie: Triple  # point at which tied hair meets
    oval: Triple  # half-width of the face, height of the forehead, z in front of which hair avoids the face; cm


@dataclass(frozen=True, eq=False)
class Strands:
    """Polylines in rest position, each with the same number of points."""

    points: np.ndarray  # [S, P, 3] float32 cm
    width: np.ndarray  # [P] cm, root to tip
    colour: np.ndarray  # [S, 3] linear RGB
    inside: np.ndarray  # [S] 1 at the outside of the volume .. 0 at the skin, where there is less light
    root: np.ndarray  # [S] vertex that moves the root
    tip: np.ndarray  # [S] vertex that moves the tip
    follow: np.ndarray  # [S, P] share of the head's pose
    gloss: float = 1.0
    alpha: float = 1.0  # opacity


@inline()
def _keep_off(field, x, y, z, gap, step):
    """Push a point out of the skull (by ``gap`` cm), the chest and the face."""
    cx, cy, cz = x - field.centre[0], y - field.centre[1], z - field.centre[2]
    rx, ry, rz = field.radii[0] + gap, field.radii[1] + gap, field.radii[2] + gap
    if cy < 0:
        cy *= np.float32(0.35)  # below its middle the skull narrows slowly
    level = (cx / rx) ** 2 + (cy / ry) ** 2 + (cz / rz) ** 2
    if level < 1:
        out = 1 / np.sqrt(level + np.float32(1e-6))
        if y < field.centre[1]:
            x, z = field.centre[0] + cx * out, field.centre[2] + cz * out
        else:
            x, y, z = field.centre[0] + cx * out, field.centre[1] + cy * out, field.centre[2] + cz * out
    if y < np.float32(-11):
        bx, by, bz = x / np.float32(22.5), (y + 38) / np.float32(22), (z + 2) / np.float32(14)
        level = bx * bx + by * by + bz * bz
        if level < 1:
            out = 1 / np.sqrt(level + np.float32(1e-6))
            x, z = x * out, (z + 2) * out - 2
    if z > field.oval[2] and y < field.oval[1]:
        wide = field.oval[0] * (1 + np.float32(0.03) * min(field.oval[1] - y, np.float32(6))) - np.float32(0.06) * max(
            np.float32(-2) - y, np.float32(0)
        )
        if abs(x) < wide:
            x += min(wide - abs(x), step * np.float32(0.8)) * (np.float32(1) if x > field.parting else np.float32(-1))
        elif z > field.oval[2] + np.float32(1.5):
            z -= min(z - field.oval[2] - np.float32(1.5), step * np.float32(0.6))
    return x, y, z


@njit()
def grow(roots, normals, rest, lengths, layers, points, field, noise):
    """Grow strands [S, points, 3] from roots on the skin.

    Args:
        roots, normals: [S, 3]. rest: [S, 3] the roots on the mean head, where noise is looked up.
        lengths: [S] cm. layers: [S] 0 at the skin .. 1 outside. noise: noise.volume().
    """
    out = np.empty((roots.shape[0], points, 3), np.float32)
    for s in range(roots.shape[0]):
        x, y, z = roots[s, 0], roots[s, 1], roots[s, 2]
        nx, ny, nz = normals[s, 0], normals[s, 1], normals[s, 2]
        away = min(max((x - field.parting) * np.float32(0.9), np.float32(-1.0)), np.float32(1.0))
        low = min(max((field.oval[1] + 2 - y) / 4, np.float32(0.0)), np.float32(1.0))  # sides and nape
        lock, lx, ly, lz = sample(
            noise, rest[s, 0] * np.float32(1.7), rest[s, 1] * np.float32(1.7), rest[s, 2] * np.float32(1.7)
        )
        strand, sx, sy, sz = sample(noise, rest[s, 0] * 9, rest[s, 1] * 9, rest[s, 2] * 9)
        cx = away * field.comb[0] + np.float32(0.5) * lx + np.float32(0.05) * sx
        cy = field.comb[1] + np.float32(0.3) * ly + np.float32(0.05) * sy
        cz = field.comb[2] + np.float32(0.5) * lz + np.float32(0.05) * sz
        if not field.knot:
            cx, cy, cz = cx * (1 - low), cy * (1 - low) - low, cz * (1 - low) - np.float32(0.4) * low
        along = cx * nx + cy * ny + cz * nz
        cx, cy, cz = cx - along * nx, cy - along * ny, cz - along * nz
        scale = max(np.float32(0.8) / (np.sqrt(cx * cx + cy * cy + cz * cz) + np.float32(0.05)), np.float32(1.0))
        cx, cy, cz = cx * scale, cy * scale, cz * scale
        up = 2 * field.lift * (1 - np.float32(0.6) * low)
        dx, dy, dz = cx + up * nx, cy + up * ny, cz + up * nz
        step = lengths[s] / (points - 1)
        gap = field.bulk * layers[s]
        phase = lock * 3 + np.float32(0.35) * strand
        for p in range(points):
            out[s, p, 0], out[s, p, 1], out[s, p, 2] = x, y, z
            scale = step / (np.sqrt(dx * dx + dy * dy + dz * dz) + np.float32(1e-6))
            reach = step * p
            amount = field.wave * min(reach * np.float32(0.25), np.float32(1.0)) * step * field.tight * 6
            turn = reach * field.tight * 6 + phase
            x += dx * scale + amount * np.sin(turn)
            y += dy * scale + np.float32(0.5) * amount * np.sin(turn * np.float32(1.3) + 1)
            z += dz * scale + amount * np.cos(turn * np.float32(0.9))
            if field.knot:
                tx, ty, tz = field.tie[0] - x, field.tie[1] - y, field.tie[2] - z
                far = np.sqrt(tx * tx + ty * ty + tz * tz)
                dx, dy, dz = dx * scale / step, dy * scale / step, dz * scale / step
                if far > 2:
                    dx, dy, dz = dx + tx / far, dy + ty / far, dz + tz / far
                else:  # wound around the knot
                    dx, dy, dz = dx + ty + np.float32(0.4) * strand, dy - tx, dz + np.float32(0.4) * lock
            else:
                share = min(reach * np.float32(0.15), np.float32(1.0))
                dx, dy, dz = (
                    dx * scale / step + np.float32(0.35) * (1 - share) * cx,
                    dy * scale / step - field.fall * (np.float32(0.25) + share),
                    dz * scale / step + np.float32(0.35) * (1 - share) * cz,
                )
            rise = min((reach + step) / (np.float32(2.2) * field.bulk + 1), np.float32(1.0))
            x, y, z = _keep_off(field, x, y, z, gap * rise, step)
    return out


def pick_roots(
    head: Head, density: np.ndarray, shape: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample roots on the skin in proportion to area times density.

    Args: density: [V'] 0..1. shape: [V', 3] cm.
    Returns: faces [S], weights of their corners [S, 3], points [S, 3] in cm.
    """
    r = np.random.default_rng(seed)
    faces = head.faces[head.material == 0]
    corner = shape[faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    share = np.cumsum(area * density[faces].mean(1))
    if share[-1] <= 0:
        return np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3), np.float32)
    chosen = np.searchsorted(share, r.random(count) * share[-1])
    weight = r.dirichlet((1, 1, 1), count).astype(np.float32)
    return chosen, weight, np.einsum("nk,nkd->nd", weight, shape[faces[chosen]])
