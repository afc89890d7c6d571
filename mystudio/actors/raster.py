"""Rasterisation: find the triangle that each sample of the image shows (a z-buffer of triangle numbers)."""

from __future__ import annotations

import numpy as np

from mystudio.actors.jit import ONE, njit, splice

NOTHING = np.float32(-1e9)  # depth of a sample that shows no surface
EDGE = np.float32(1e-5)  # overlap of neighbouring triangles, as a share of a triangle, so that rounding leaves no gaps


@njit()
def rasterize(points, faces, cull, first, box, depth, shown):
    """Draw triangles into a z-buffer; samples lie at half-integers.

    Args:
        points: [V, 3] float32: x, y in samples (y down) and depth, larger is nearer.
        faces: [F, 3]. cull: [F] bool, True = not drawn from behind. first: number of the first triangle.
        box: (left, top, right, bottom) samples to draw in.
        depth: [H, W] float32, nearest so far. shown: [H, W] int32, its triangle.
    """
    for t in range(faces.shape[0]):
        _fill(points, faces[t, 0], faces[t, 1], faces[t, 2], cull[t], first + t, box, depth, shown)


@splice()
def _fill(points, a, b, c, cull, t, box, depth, shown):
    """Draw one triangle: its weights u, v, 1 - u - v and its depth change linearly over the samples."""
    ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if area == 0 or (cull and area > 0):
        return
    half = np.float32(0.5)
    xa = max(box[0], int(np.ceil(min(ax, bx, cx) - half)))
    xb = min(box[2], int(np.floor(max(ax, bx, cx) - half)) + 1)
    ya = max(box[1], int(np.ceil(min(ay, by, cy) - half)))
    yb = min(box[3], int(np.floor(max(ay, by, cy) - half)) + 1)
    if xa >= xb or ya >= yb:
        return
    scale = ONE / area
    ux, uy, vx, vy = (by - cy) * scale, (cx - bx) * scale, (cy - ay) * scale, (ax - cx) * scale
    cz, du, dv = points[c, 2], points[a, 2] - points[c, 2], points[b, 2] - points[c, 2]
    zx, right = ux * du + vx * dv, np.float32(xa) + half - cx
    for y in range(ya, yb):
        down = np.float32(y) + half - cy
        u, v = right * ux + down * uy, right * vx + down * vy
        z = cz + u * du + v * dv
        for x in range(xa, xb):
            if min(u, v, ONE - u - v) >= -EDGE and z > depth[y, x]:
                depth[y, x] = z
                shown[y, x] = t
            u += ux
            v += vx
            z += zx


def depth_map(points: np.ndarray, faces: list[np.ndarray], size: int) -> np.ndarray:
    """Z-buffer [size, size] of two-sided triangles, arrays [F, 3] each, for shadow maps and occlusion."""
    depth, shown = np.full((size, size), NOTHING, np.float32), np.empty((size, size), np.int32)
    for part in faces:
        rasterize(points, part, np.zeros(len(part), bool), 0, (0, 0, size, size), depth, shown)
    return depth


@njit()
def strand_depth(points, into, shift, depth):
    """Draw every second polyline of [S, P, 3] into a z-buffer, two samples wide, for shadows of hair.

    Args: into: [3, 3], shift: [3]. Samples and depth of a point p are p @ into + shift.
    """
    for s in range(0, points.shape[0], 2):
        x, y, z = _send(points[s, 0], into, shift)
        for p in range(1, points.shape[1]):
            x1, y1, z1 = _send(points[s, p], into, shift)
            dx, dy, dz = x1 - x, y1 - y, z1 - z
            steps = min(int(max(abs(dx), abs(dy))) + 1, 64)
            for k in range(steps):
                f = np.float32(k) / np.float32(steps)
                _deepen(depth, int(x + f * dx), int(y + f * dy), z + f * dz)
            x, y, z = x1, y1, z1


@splice()
def _send(place, into, shift):
    return (
        place[0] * into[0, 0] + place[1] * into[1, 0] + place[2] * into[2, 0] + shift[0],
        place[0] * into[0, 1] + place[1] * into[1, 1] + place[2] * into[2, 1] + shift[1],
        place[0] * into[0, 2] + place[1] * into[1, 2] + place[2] * into[2, 2] + shift[2],
    )


@splice()
def _deepen(depth, x, y, z):
    if x < 0 or y < 0 or x >= depth.shape[1] - 1 or y >= depth.shape[0] - 1:
        return
    depth[y, x], depth[y, x + 1] = max(z, depth[y, x]), max(z, depth[y, x + 1])
    depth[y + 1, x], depth[y + 1, x + 1] = max(z, depth[y + 1, x]), max(z, depth[y + 1, x + 1])


@njit()
def vertex_normals(vertices, faces, out):
    """Area-weighted unit normals [V, 3] of a mesh, written to ``out``."""
    out[:] = 0
    for t in range(faces.shape[0]):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            out[corner, 0] += nx
            out[corner, 1] += ny
            out[corner, 2] += nz
    for i in range(out.shape[0]):
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + np.float32(1e-9)
        out[i, 0] /= length
        out[i, 1] /= length
        out[i, 2] /= length


@njit()
def draw_strands(points, colours, alphas, per_strand, depth, image):
    """Draw polylines as depth-tested ribbons, blended by the share of a sample that they cover.

    Args:
        points: [N, 4] float32: x, y in samples, depth, width in samples; ``per_strand`` points make one polyline.
        colours: [N, 3] linear RGB. alphas: [N] opacity. depth: [H, W]. image: [H, W, 3].
    """
    # one function, because a call that passes arrays costs more than the work on one sample
    height, width = depth.shape
    for i in range(points.shape[0] - 1):
        if (i + 1) % per_strand == 0 or (alphas[i] == 0 and alphas[i + 1] == 0):
            continue
        ax, ay, bx, by = points[i, 0], points[i, 1], points[i + 1, 0], points[i + 1, 1]
        if max(ax, bx) < 0 or min(ax, bx) > width or max(ay, by) < 0 or min(ay, by) > height:
            continue
        dx, dy = bx - ax, by - ay
        steep = abs(dy) > abs(dx)
        start, along, limit = (ay, dy, height) if steep else (ax, dx, width)
        slant = min(np.sqrt(dx * dx + dy * dy) / (abs(along) + np.float32(1e-6)), np.float32(1.42))
        begin = max(int(np.ceil(min(start, start + along) - np.float32(0.5))), 0)
        end = min(int(np.ceil(max(start, start + along) - np.float32(0.5))), limit)
        for fixed in range(begin, end):  # samples whose centres lie between the two points; each is drawn once
            f = (np.float32(fixed) + np.float32(0.5) - start) / along
            reach = (points[i, 3] + f * (points[i + 1, 3] - points[i, 3])) * slant * np.float32(0.5)
            z = points[i, 2] + f * (points[i + 1, 2] - points[i, 2])
            alpha = alphas[i] + f * (alphas[i + 1] - alphas[i])
            middle = ax + f * dx if steep else ay + f * dy
            first, last = int(np.floor(middle - reach)), int(np.floor(middle + reach))
            r = colours[i, 0] + f * (colours[i + 1, 0] - colours[i, 0])
            g = colours[i, 1] + f * (colours[i + 1, 1] - colours[i, 1])
            b = colours[i, 2] + f * (colours[i + 1, 2] - colours[i, 2])
            for m in range(first, last + 1):
                px, py = (m, fixed) if steep else (fixed, m)
                if px < 0 or px >= width or py < 0 or py >= height or z <= depth[py, px]:
                    continue
                left = np.float32(m)
                cover = (min(left + ONE, middle + reach) - max(left, middle - reach)) * alpha
                if cover <= 0:
                    continue
                image[py, px, 0] += cover * (r - image[py, px, 0])
                image[py, px, 1] += cover * (g - image[py, px, 1])
                image[py, px, 2] += cover * (b - image[py, px, 2])
                if cover > np.float32(0.6):
                    depth[py, px] = z
