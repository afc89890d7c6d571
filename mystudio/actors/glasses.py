"""Glasses: tubes around two lenses, a bridge and temples, fitted to a person's face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mystudio.actors.raster import rasterize

if TYPE_CHECKING:
    from mystudio.actors.actor import Actor

SHARE = 0.2  # share of all people who wear them
_SIDES, _OUTLINE = 6, 36  # corners of a tube, points around a lens
_COLOURS = np.array(
    [[0.012, 0.011, 0.012], [0.09, 0.035, 0.014], [0.30, 0.29, 0.28], [0.33, 0.21, 0.08], [0.02, 0.03, 0.07]]
)


@dataclass(frozen=True, eq=False)
class Glasses:
    """A mesh that moves with the head."""

    vertices: np.ndarray  # [G, 3] cm, rest
    faces: np.ndarray  # [H, 3]
    colour: np.ndarray  # [3] linear RGB of the frame
    lenses: np.ndarray  # [2, 36, 3] outlines, rest: the person's left and right


def fit(actor: Actor) -> Glasses | None:
    """Fit glasses to a person; None if the person wears none."""
    share = actor.share("glasses")
    if share < 1 - SHARE:
        return None
    kind = (share - (1 - SHARE)) / SHARE
    thick = 0.05 + 0.13 * ((kind * 5) % 1)
    colour = _COLOURS[min(int(kind * len(_COLOURS)), len(_COLOURS) - 1)]
    lm = actor.shape[actor.basis.landmarks]
    across = float(np.linalg.norm(lm[45] - lm[36])) / 8.9
    wide, high, square = 2.75 * across, (1.75 + 0.6 * ((kind * 3) % 1)) * across, 2.2 + 1.8 * ((kind * 7) % 1)
    front = max(lm[27, 2] + 0.35, lm[[37, 38, 43, 44], 2].max() + 1.25)
    tubes, outlines = [], []
    for side in (1, -1):
        eye = lm[42:48].mean(0) if side > 0 else lm[36:42].mean(0)
        outline = _lens(np.array([side * (abs(eye[0]) + 0.15), eye[1] - 0.25]), wide, high, square, front)
        outlines.append(outline)
        tubes.append(_tube(outline, thick, closed=True))
        hinge = outline[np.argmax(side * outline[:, 0] + 0.3 * outline[:, 1])]
        ear = np.array([side * (np.abs(lm[[0, 16], 0]).mean() + 0.75), lm[0, 1] + 1.3, -1.5])
        bend = hinge + np.array([side * 0.75, 0.05, -0.7])
        tubes.append(_tube(np.stack([hinge, bend, (bend + ear) / 2 + [side * 0.25, 0.1, 0], ear]), thick * 1.1))
    inner = [
        outlines[0][np.argmin(outlines[0][:, 0] - 0.4 * outlines[0][:, 1])],
        outlines[1][np.argmax(outlines[1][:, 0] + 0.4 * outlines[1][:, 1])],
    ]
    middle = (inner[0] + inner[1]) / 2 + [0, 0.25, 0.25]
    tubes.append(_tube(np.stack([inner[0], middle, inner[1]]), thick))
    vertices, faces, count = [], [], 0
    for v, f in tubes:
        vertices.append(v)
        faces.append(f + count)
        count += len(v)
    return Glasses(
        np.concatenate(vertices).astype(np.float32),
        np.concatenate(faces).astype(np.int32),
        colour.astype(np.float32),
        np.stack(outlines).astype(np.float32),
    )


def draw_lenses(outlines: np.ndarray, lights, depth: np.ndarray, image: np.ndarray) -> None:
    """Darken the image slightly behind the lenses, and add a reflected streak.

    Args: outlines: [2, 36, 3] samples and depth. depth: [H, W]. image: [H, W, 3] linear RGB, changed.
    """
    height, width = depth.shape
    for outline in outlines:
        low, high = np.floor(outline[:, :2].min(0)).astype(int), np.ceil(outline[:, :2].max(0)).astype(int)
        x0, y0, x1, y1 = max(0, low[0]), max(0, low[1]), min(width, high[0]), min(height, high[1])
        if x0 >= x1 or y0 >= y1:
            continue
        fan = np.array([(0, k, k + 1) for k in range(1, len(outline) - 1)], np.int32)
        shown = np.full((y1 - y0, x1 - x0), -1, np.int32)
        near = np.ascontiguousarray(depth[y0:y1, x0:x1])
        local = (outline - [x0, y0, 0]).astype(np.float32)
        rasterize(local, fan, np.zeros(len(fan), bool), 0, (0, 0, x1 - x0, y1 - y0), near, shown)
        y, x = np.mgrid[y0:y1, x0:x1]
        size = max(float(np.ptp(outline[:, 0])), 1.0)
        along = ((x - outline[:, 0].mean()) + 0.7 * (y - outline[:, 1].mean())) / size
        streak = np.exp(-(((along - 0.25 * lights.toward[0][0]) / 0.07) ** 2)) + 0.6 * np.exp(
            -(((along - 0.25 * lights.toward[0][0] - 0.2) / 0.03) ** 2)
        )
        added = (0.035 * streak + 0.012)[..., None] * np.add(lights.colour[0], lights.sky)
        part = image[y0:y1, x0:x1]
        part[:] = np.where((shown >= 0)[..., None], 0.93 * part + added, part)


def _lens(centre: np.ndarray, wide: float, high: float, square: float, front: float) -> np.ndarray:
    """A superellipse [36, 3], bent back at its outer end like a face."""
    angle = np.linspace(0, 2 * np.pi, _OUTLINE, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    x = centre[0] + wide * np.sign(c) * np.abs(c) ** (2 / square)
    y = centre[1] + high * np.sign(s) * np.abs(s) ** (2 / square)
    return np.stack([x, y, front - 0.022 * x**2], -1)


def _tube(path: np.ndarray, radius: float, closed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A tube around a path [N, 3]: vertices and triangles, counter-clockwise from outside."""
    if closed:
        along = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    else:
        along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    reference = np.where(np.abs(along[:, 2:]) > 0.8, [[0.0, 1, 0]], [[0.0, 0, 1]])
    a = np.cross(along, reference)
    a /= np.linalg.norm(a, axis=1, keepdims=True) + 1e-9
    b = np.cross(along, a)
    turn = np.linspace(0, 2 * np.pi, _SIDES, endpoint=False)
    ring = a[:, None] * np.cos(turn)[:, None] + b[:, None] * np.sin(turn)[:, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    grid = np.arange(len(vertices)).reshape(len(path), _SIDES)
    near, far = (grid, np.roll(grid, -1, 0)) if closed else (grid[:-1], grid[1:])
    near2, far2 = np.roll(near, -1, 1), np.roll(far, -1, 1)
    quads = [np.stack([near, far, near2], -1), np.stack([near2, far, far2], -1)]
    faces = np.concatenate([q.reshape(-1, 3) for q in quads])
    corner = vertices[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    outward = corner.mean(1) - np.repeat(path, _SIDES, 0)[faces].mean(1)
    flip = (normal * outward).sum(1) < 0
    faces[flip] = faces[flip][:, ::-1]
    return vertices, faces
