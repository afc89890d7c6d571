"""The drawn head: the basis with shoulders added, and the data that all actors share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mystudio.actors.basis import EXPRESSION_ID, PARTS, Basis
from mystudio.actors.raster import depth_map, vertex_normals

PIVOT = np.array([0, -4, -1], np.float32)  # centre of head rotation, cm
#: materials of triangles
SKIN, MOUTH, TEETH, EYE, SOCKET, FRAME = range(6)
INSIDE = (MOUTH, TEETH)  # drawn last, and only in the bounding box of the lips
NOT_DRAWN = -1
_MATERIAL = {
    "face": SKIN,
    "head": SKIN,
    "mouth": MOUTH,
    "socket_l": SOCKET,
    "socket_r": SOCKET,
    "gums": MOUTH,
    "teeth": TEETH,
    "sclera_l": EYE,
    "sclera_r": EYE,
}  # other parts are not drawn
#: rings of the shoulders, outwards: half-widths to the side and to front and back, then height at side, front, back
_RINGS = (
    (17.0, 10.0, -17.2, -22.0, -16.5),
    (20.5, 12.0, -20.5, -27.0, -20.5),
    (22.0, 13.0, -27.0, -33.0, -28.0),
    (22.5, 13.5, -42.0, -45.0, -42.0),
    (22.5, 13.5, -60.0, -60.0, -60.0),
)
_RING_STEPS = 3  # rings drawn between two of ``_RINGS``
_OCCLUSION_VIEWS, _OCCLUSION_SIZE = 40, 256


@dataclass(frozen=True, eq=False, repr=False)
class Head:
    """Geometry that all actors share; its vertices are the basis's, then those of the shoulders."""

    basis: Basis
    rest: np.ndarray  # [V', 3] float32 mean head with shoulders
    normals: np.ndarray  # [V', 3] normals of ``rest``
    faces: np.ndarray  # [F', 3] int32: skin first, inside of the mouth last
    material: np.ndarray  # [F'] int8
    follow: np.ndarray  # [V'] float32 share of the head's pose that moves a vertex: 1 head .. 0 shoulders
    loop: np.ndarray  # [L] vertices around the open end of the basis's neck, in order
    eyes: np.ndarray  # [2, 3] centres of the eyeballs, left and right
    open: np.ndarray  # [V'] float32 unoccluded share of the sky at a vertex, mouth closed
    open_jaw: np.ndarray  # [V'] the same, mouth open

    def with_shoulders(self, vertices: np.ndarray) -> np.ndarray:
        """Append the shoulders to vertices [V, 3] of the basis: [V', 3]."""
        return np.concatenate([vertices, _shoulders(vertices[self.loop])]).astype(np.float32)


@lru_cache(maxsize=2)
def make_head(basis: Basis) -> Head:
    """Build the drawn head from a basis."""
    part = np.searchsorted(basis.part_ends, basis.faces.max(1), side="right")  # seams belong to the inner part
    kind = np.array([_MATERIAL.get(name, NOT_DRAWN) for name in PARTS])[part]
    surface = basis.faces[kind == SKIN]
    loop = _neck_loop(basis.neutral, surface)
    skirt = _skirt_faces(len(basis.neutral), loop)
    inner = np.flatnonzero(kind > SKIN)
    inner = inner[np.argsort(np.isin(kind[inner], INSIDE), kind="stable")]
    faces = np.ascontiguousarray(np.concatenate([surface, skirt, basis.faces[inner]]), np.int32)
    material = np.concatenate([np.full(len(surface) + len(skirt), SKIN), kind[inner]])
    rest = np.concatenate([basis.neutral, _shoulders(basis.neutral[loop])]).astype(np.float32)
    normals = np.empty_like(rest)
    vertex_normals(rest, faces, normals)
    jaw = rest.copy()
    jaw[: len(basis.neutral)] += 0.6 * basis.expression[EXPRESSION_ID["jawOpen"]]
    eyes = np.stack([_sphere_centre(basis.neutral[basis.part(f"sclera_{side}")]) for side in "lr"])
    return Head(
        basis,
        rest,
        normals,
        faces,
        material.astype(np.int8),
        follow_of(rest[:, 1]),
        loop,
        eyes.astype(np.float32),
        _openness(rest, faces),
        _openness(jaw, faces),
    )


def follow_of(height: np.ndarray) -> np.ndarray:
    """Share of the head's pose at a height on the neck [...] cm."""
    t = np.clip((height + 15.0) / 6.5, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _neck_loop(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Vertices [L] of the skin's lowest open border, in the direction of its triangles."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    count = len(vertices)
    forward, backward = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    border = edges[~np.isin(forward, backward)]
    following = dict(zip(border[:, 0].tolist(), border[:, 1].tolist()))
    loops = []
    while following:
        start, after = following.popitem()
        walk = [start]
        while after != start and after in following:
            walk.append(after)
            after = following.pop(after)
        loops.append(np.array(walk))
    if not loops:
        return np.zeros(0, np.int64)
    return min(loops, key=lambda walk: vertices[walk, 1].mean())


def _shoulders(loop: np.ndarray) -> np.ndarray:
    """Rings [R * L, 3] from the neck's open end [L, 3] over the shoulders to the chest."""
    if not len(loop):
        return np.zeros((0, 3), np.float32)
    depth = loop[:, 2].mean()
    angle = np.arctan2(loop[:, 0], (loop[:, 2] - depth) * 1.5)
    side, front = np.sin(angle), np.cos(angle)
    knots = [loop]
    for wide, deep, at_side, at_front, at_back in _RINGS:
        ahead = np.where(front > 0, at_front, at_back)
        height = ahead + (at_side - ahead) * side**2
        knots.append(np.stack([wide * side, height, depth - 0.5 + deep * front], -1))
    knots = np.stack([2 * knots[0] - knots[1], *knots, 2 * knots[-1] - knots[-2]])
    rings = []
    for k in range(1, len(knots) - 2):
        for step in range(1, _RING_STEPS + 1):
            rings.append(_catmull_rom(knots[k - 1 : k + 3], step / _RING_STEPS))
    return np.concatenate(rings).astype(np.float32)


def _catmull_rom(p: np.ndarray, t: float) -> np.ndarray:
    return 0.5 * (
        2 * p[1]
        + (p[2] - p[0]) * t
        + (2 * p[0] - 5 * p[1] + 4 * p[2] - p[3]) * t**2
        + (3 * p[1] - p[0] - 3 * p[2] + p[3]) * t**3
    )


def _skirt_faces(first: int, loop: np.ndarray) -> np.ndarray:
    size, rings = len(loop), len(_RINGS) * _RING_STEPS
    if not size:
        return np.zeros((0, 3), np.int64)
    grid = np.concatenate([loop[None], first + np.arange(rings * size).reshape(rings, size)])
    a, b = grid[:-1], np.roll(grid, -1, 1)[:-1]
    c, d = grid[1:], np.roll(grid, -1, 1)[1:]
    quads = [np.stack([b, a, c], -1), np.stack([b, c, d], -1)]  # the border runs a -> b inside, so b -> a here
    return np.concatenate([q.reshape(-1, 3) for q in quads])


def _sphere_centre(points: np.ndarray) -> np.ndarray:
    system = np.concatenate([2 * points, np.ones((len(points), 1))], 1).astype(np.float64)
    return np.linalg.lstsq(system, (points.astype(np.float64) ** 2).sum(1), rcond=None)[0][:3]


def directions(count: int) -> np.ndarray:
    """Evenly spread unit vectors [count, 3] (Fibonacci lattice)."""
    k = np.arange(count) + 0.5
    y, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - y * y)
    return np.stack([ring * np.cos(turn), y, ring * np.sin(turn)], -1)


def view_axes(toward: np.ndarray) -> np.ndarray:
    """Axes [3, 3] (right, down, towards the light) of a parallel projection seen from ``toward``."""
    toward = toward / np.linalg.norm(toward)
    right = np.cross([0.0, 1.0, 0.0] if abs(toward[1]) < 0.95 else [0.0, 0.0, 1.0], toward)
    right /= np.linalg.norm(right)
    return np.stack([right, -np.cross(toward, right), toward]).astype(np.float32)


def _openness(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Ambient occlusion: cosine-weighted share of directions in which nothing hides a vertex, [V']."""
    normals = np.empty_like(vertices)
    vertex_normals(vertices, faces, normals)
    seen, total = np.zeros(len(vertices), np.float32), np.zeros(len(vertices), np.float32)
    half, centre = 17.0, np.array([0, 1.0, 0], np.float32)
    lifted = vertices + 0.12 * normals
    for toward in directions(_OCCLUSION_VIEWS):
        axes = view_axes(toward)
        scale = np.array([_OCCLUSION_SIZE / (2 * half)] * 2 + [1.0], np.float32)
        shift = np.array([_OCCLUSION_SIZE / 2] * 2 + [0.0], np.float32)
        depth = depth_map((vertices - centre) @ axes.T * scale + shift, [faces], _OCCLUSION_SIZE)
        at = (lifted - centre) @ axes.T * scale + shift
        x, y = (np.clip(at[:, k].astype(np.int32), 0, _OCCLUSION_SIZE - 1) for k in (0, 1))
        outside = (at[:, :2] < 0).any(1) | (at[:, :2] >= _OCCLUSION_SIZE).any(1)
        weight = np.clip(normals @ axes[2], 0, None)
        seen += weight * ((at[:, 2] > depth[y, x] - 0.12) | outside)
        total += weight
    return seen / np.maximum(total, 1e-6)
