"""A small head of spheres and patches in the layout of the real head model, for tests of actors without it."""

import numpy as np

from mystudio.actors.basis import EXPRESSIONS, PARTS, Basis

#: right half of the 68 landmarks on a mean face, cm: jaw, brow, nose, eye, mouth
_JAW = [(-7.4, 3.7), (-7.3, 1.5), (-6.9, -0.5), (-6.6, -2.4), (-5.7, -4.5), (-4.3, -6.2), (-3, -6.9), (-1.5, -7.3)]
_BROW = [(-5.8, 5.2), (-4.9, 6), (-3.8, 6.3), (-2.4, 6.2), (-1.2, 5.9)]
_EYE = [(-4.5, 3.4), (-3.9, 4.1), (-2.8, 4.1), (-1.8, 3.3), (-2.7, 2.8), (-3.9, 2.8)]
_LIPS = [(-2.5, -3.5), (-1.7, -2.8), (-0.7, -2.4)], [(-1.8, -4.1), (-1, -4.4)]
_INNER = [(-2.2, -3.5), (-1, -3.2)], [(-1.1, -3.5)]
#: name -> centre and displacement of an expression; the others are random
_MOVES = {
    "jawOpen": ((0, -6), (0, -3, 0)),
    "eyeBlink_L": ((3.2, 4.1), (0, -1, 0)),
    "eyeBlink_R": ((-3.2, 4.1), (0, -1, 0)),
}


def _mirror(points):
    return [(-x, y) for x, y in points]


def _landmark_places():
    eye = _mirror(_EYE)
    left_eye = [eye[k] for k in (3, 2, 1, 0, 5, 4)]
    upper, lower = _LIPS
    inner, inner_low = _INNER
    mouth = (
        upper
        + [(0, -2.5)]
        + _mirror(upper)[::-1]
        + _mirror(lower)
        + [(0, -4.5)]
        + lower[::-1]
        + inner
        + [(0, -3.2)]
        + _mirror(inner)[::-1]
        + _mirror(inner_low)
        + [(0, -3.6)]
        + inner_low
    )
    nose = [(0, 3.7), (0, 2.6), (0, 1.6), (0, 0.4), (-1.3, -1.1), (-0.6, -1.1), (0, -1.2), (0.6, -1.1), (1.3, -1.1)]
    return np.array(
        _JAW + [(0, -7.6)] + _mirror(_JAW)[::-1] + _BROW + _mirror(_BROW)[::-1] + nose + _EYE + left_eye + mouth,
        np.float32,
    )


def _surface(rows, columns):
    """A head that narrows to a neck, open below: vertices from the nose backwards, quads as triangles."""
    t = np.linspace(0, 1, rows)
    height = 14.0 - 30.0 * t
    head = 9.0 * np.sqrt(np.clip(1 - ((height - 3.0) / 11.05) ** 2, 0.003, 1))
    radius = np.where(height > -6, head, np.maximum(head, 5.2))
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    v = np.stack(
        [radius[:, None] * np.sin(turn), np.repeat(height[:, None], columns, 1), 1.1 * radius[:, None] * np.cos(turn)],
        -1,
    ).reshape(-1, 3)
    grid = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = grid[:-1], np.roll(grid, -1, 1)[:-1], grid[1:], np.roll(grid, -1, 1)[1:]
    f = np.concatenate([np.stack(q, -1).reshape(-1, 3) for q in ((a, c, b), (b, c, d))])
    order = np.argsort(v[:, 2] < 0, kind="stable")  # the face first
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return v[order], place[f], int((v[:, 2] >= 0).sum())


def _ball(centre, radius=1.55, rings=10):
    polar, turn = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, rings), np.linspace(0, 2 * np.pi, 12, endpoint=False), indexing="ij"
    )
    v = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], -1).reshape(-1, 3)
    grid = np.arange(rings * 12).reshape(rings, 12)
    a, b, c, d = grid[:-1], np.roll(grid, -1, 1)[:-1], grid[1:], np.roll(grid, -1, 1)[1:]
    f = np.concatenate([np.stack(q, -1).reshape(-1, 3) for q in ((a, c, b), (b, c, d))])
    return radius * v + centre, f


def _patch(centre, size=1.0):
    x, y, z = centre
    v = np.array(
        [
            (x - size, y - size / 3, z),
            (x + size, y - size / 3, z),
            (x + size, y + size / 3, z),
            (x - size, y + size / 3, z),
        ]
    )
    return v, np.array([(0, 1, 2), (0, 2, 3)])


def tiny_basis(rows=64, columns=72, seed=0):
    """A Basis of some five thousand vertices, or fewer."""
    v, f, front = _surface(rows, columns)
    eye = {"l": np.array([3.1, 3.4, 8.6]), "r": np.array([-3.1, 3.4, 8.6])}
    parts = {"mouth": _patch((0, -3.5, 6)), "gums": _patch((0, -3.5, 7)), "teeth": _patch((0, -3.5, 7.5))}
    for s in "lr":
        parts |= {f"sclera_{s}": _ball(eye[s]), f"iris_{s}": _ball(eye[s], 1.4), f"socket_{s}": _patch(eye[s])}
        parts |= {
            f"{name}_{s}": _patch(eye[s] + [0, 0.6, 2.4], 0.3) for name in ("fluid", "blend", "occlusion", "lashes")
        }
    vertices, faces, ends = [v], [f], [front, len(v)]
    for name in PARTS[2:]:
        vertices.append(parts[name][0])
        faces.append(parts[name][1] + ends[-1])
        ends.append(ends[-1] + len(parts[name][0]))
    v, f = np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.int32)
    places = _landmark_places()
    distance = ((v[None, :front, :2] - places[:, None]) ** 2).sum(-1)
    r = np.random.default_rng(seed)
    identity = np.stack([_bump(v, r.normal(0, 5, 2), r.normal(0, 0.4, 3), 5.0) for _ in range(20)])
    moves = [_MOVES.get(name, (r.normal(0, 4, 2), r.normal(0, 0.3, 3))) for name in EXPRESSIONS]
    expression = np.stack([_bump(v, *move, 2.5) for move in moves])
    return Basis(v, f, identity, expression, distance.argmin(1), tuple(ends))


def _bump(v, centre, move, radius):
    near = np.exp(-(((v[:, :2] - np.asarray(centre)) / radius) ** 2).sum(1)) * (v[:, 2] > 0)
    return (near[:, None] * np.asarray(move)).astype(np.float32)
