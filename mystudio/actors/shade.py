"""Shading of rasterised samples and of strands (compiled; linear RGB)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mystudio.actors.cloth import cloth_edge
from mystudio.actors.head import EYE, FRAME, MOUTH, SKIN, TEETH
from mystudio.actors.jit import ONE, inline, njit, splice
from mystudio.actors.light import lit, lit_hair
from mystudio.actors.materials import clip, diffuse, eye, fabric, mouth, power16, reflect, skin


class Surface(NamedTuple):
    """Vertices of one frame, in few arrays, because compiled code needs time to pass each array."""

    posed: np.ndarray  # [V, 9 = POSED] values that change with the frame
    still: np.ndarray  # [V, 7 = STILL] values that do not
    faces: np.ndarray  # [F, 3]
    material: np.ndarray  # [F]


#: first columns of values in ``posed``: x and y in samples, point (cm, camera axes), normal, unoccluded share of sky
SEEN, WORLD, NORMAL, OPEN, POSED = 0, 2, 5, 8, 9
#: first columns in ``still``: point on the mean head (cm), at which texture is looked up; albedo; gloss
REST, ALBEDO, GLOSS, STILL = 0, 3, 6, 7


@splice()
def _mix(values, k, a, b, c, u, v, w):
    """Interpolate columns k .. k + 2 of a triangle's vertices."""
    return (
        u * values[a, k] + v * values[b, k] + w * values[c, k],
        u * values[a, k + 1] + v * values[b, k + 1] + w * values[c, k + 1],
        u * values[a, k + 2] + v * values[b, k + 2] + w * values[c, k + 2],
    )


@inline()
def shade_sample(surface, body, cloth, lights, shadow, noise, t, sx, sy):
    """Colour (r, g, b) of triangle ``t`` at a point of the image, in samples."""
    posed, still = surface.posed, surface.still
    a, b, c = surface.faces[t, 0], surface.faces[t, 1], surface.faces[t, 2]
    x0, y0, x1, y1, x2, y2 = posed[a, 0], posed[a, 1], posed[b, 0], posed[b, 1], posed[c, 0], posed[c, 1]
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    u = ((x1 - sx) * (y2 - sy) - (x2 - sx) * (y1 - sy)) / area
    v = ((x2 - sx) * (y0 - sy) - (x0 - sx) * (y2 - sy)) / area
    u, v = np.float32(u), np.float32(v)
    w = ONE - u - v
    x, y, z = _mix(still, REST, a, b, c, u, v, w)
    wx, wy, wz = _mix(posed, WORLD, a, b, c, u, v, w)
    nx, ny, nz = _mix(posed, NORMAL, a, b, c, u, v, w)
    scale = ONE / (np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9))
    nx, ny, nz = nx * scale, ny * scale, nz * scale
    vz = np.float32(body.camera) - wz
    scale = ONE / np.sqrt(wx * wx + wy * wy + vz * vz)
    vx, vy, vz = -wx * scale, -wy * scale, vz * scale
    opened = u * posed[a, OPEN] + v * posed[b, OPEN] + w * posed[c, OPEN]
    kind = surface.material[t]
    if kind == EYE:
        return eye(lights, shadow, body, opened, x, y, z, wx, wy, wz, nx, ny, nz, vx, vy, vz)
    if kind == MOUTH or kind == TEETH:
        return mouth(lights, shadow, body, kind == TEETH, x, y, z, wx, wy, wz, nx, ny, nz, vx, vy, vz)
    if kind == FRAME:
        reached = lit(shadow, wx, wy, wz, np.float32(0.6))
        r, g, e = diffuse(lights, nx, ny, nz, reached, np.float32(0), np.float32(0), np.float32(0), np.float32(0.9))
        sr, sg, sb = reflect(lights, nx, ny, nz, vx, vy, vz, reached, np.float32(0), np.float32(1), np.float32(0))
        return body.frame[0] * r + sr, body.frame[1] * g + sg, body.frame[2] * e + sb
    ar, ag, ab = _mix(still, ALBEDO, a, b, c, u, v, w)
    gloss = u * still[a, GLOSS] + v * still[b, GLOSS] + w * still[c, GLOSS]
    if kind == SKIN and y < -9:
        inside = cloth_edge(cloth, x, y, z)
        if inside > 0:
            return fabric(lights, shadow, body, cloth, noise, inside, opened, x, y, z, wx, wy, wz, nx, ny, nz)
        opened *= np.float32(0.55) + np.float32(0.45) * clip(-inside * np.float32(0.8))
    if kind != SKIN:
        opened *= np.float32(0.5)
    return skin(lights, shadow, body, noise, ar, ag, ab, gloss, opened, x, y, z, wx, wy, wz, nx, ny, nz, vx, vy, vz)


@njit()
def shade(surface, body, cloth, lights, shadow, noise, shown, depth, backdrop, to_backdrop, image):
    """Shade all samples. A block of 2 x 2 samples of smooth skin is shaded only once.

    Args:
        noise: noise.volume(). shown, depth: [2 S, 2 S] of ``rasterize``. backdrop: [N, N, 3] linear RGB.
        to_backdrop: [2, 3] backdrop pixels from samples. image: [2 S, 2 S, 3], written.
    """
    size = shown.shape[0]  # one function: a call that passes arrays costs more than the work on one sample
    for by in range(0, size, 2):
        for bx in range(0, size, 2):
            t0, t1, t2, t3 = shown[by, bx], shown[by, bx + 1], shown[by + 1, bx], shown[by + 1, bx + 1]
            smooth = max(t0, t1, t2, t3) < 0
            if min(t0, t1, t2, t3) >= 0:
                z0, z1, z2, z3 = depth[by, bx], depth[by, bx + 1], depth[by + 1, bx], depth[by + 1, bx + 1]
                inner = max(surface.material[t0], surface.material[t1], surface.material[t2], surface.material[t3])
                smooth = max(z0, z1, z2, z3) - min(z0, z1, z2, z3) < np.float32(0.5) and inner == SKIN  # it is lowest
            at = np.float32(1.0) if smooth else np.float32(0.5)
            for k in range(1 if smooth else 4):
                y, x = by + k // 2, bx + k % 2
                t = shown[y, x]
                if t >= 0:
                    r, g, b = shade_sample(surface, body, cloth, lights, shadow, noise, t, x + at, y + at)
                else:
                    r, g, b = look_up(backdrop, to_backdrop, x + at, y + at)
                image[y, x, 0], image[y, x, 1], image[y, x, 2] = r, g, b
            if smooth:
                for k in range(1, 4):
                    y, x = by + k // 2, bx + k % 2
                    image[y, x, 0], image[y, x, 1], image[y, x, 2] = r, g, b


@inline()
def look_up(picture, matrix, x, y):
    """Bilinear colour (r, g, b) of an image at a sample that a matrix [2, 3] maps into it; the border is repeated."""
    u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] - np.float32(0.5)
    v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] - np.float32(0.5)
    height, width = picture.shape[0], picture.shape[1]
    u = min(max(u, np.float32(0.0)), np.float32(width - 1.001))
    v = min(max(v, np.float32(0.0)), np.float32(height - 1.001))
    i, j = int(u), int(v)
    fu, fv = np.float32(u - i), np.float32(v - j)
    a, b, c, d = (ONE - fu) * (ONE - fv), fu * (ONE - fv), (ONE - fu) * fv, fu * fv
    return (
        _blend(picture, i, j, 0, a, b, c, d),
        _blend(picture, i, j, 1, a, b, c, d),
        _blend(picture, i, j, 2, a, b, c, d),
    )


@splice()
def _blend(picture, i, j, k, a, b, c, d):
    return a * picture[j, i, k] + b * picture[j, i + 1, k] + c * picture[j + 1, i, k] + d * picture[j + 1, i + 1, k]


@splice()
def hidden(x, y, z, depth):
    """Whether a point is outside the image, or well behind the surface that its sample shows."""
    i, j = int(x), int(y)
    if i < -24 or j < -24 or i >= depth.shape[1] + 24 or j >= depth.shape[0] + 24:
        return True
    i, j = min(max(i, 0), depth.shape[1] - 1), min(max(j, 0), depth.shape[0] - 1)
    return z < depth[j, i] - np.float32(0.4)


@njit()
def shade_strands(places, points, depth, colour, inside, gloss, per_strand, lights, shadow, alphas, out):
    """Colours [S * P, 3] of strands: Kajiya and Kay (1989), with a second, tinted highlight (Marschner et al., 2003).

    Points outside the image or behind a surface get opacity 0 and no shading.

    Args:
        places: [S * P, 3] camera axes. points: [S * P, 4] of ``draw_strands``. depth: [H, W] of the surfaces.
        colour: [S, 3]. inside: [S] 0 at the skin .. 1 outside. alphas: [S * P], changed.
    """
    for i in range(places.shape[0]):
        s, p = i // per_strand, i % per_strand
        if hidden(points[i, 0], points[i, 1], points[i, 2], depth):
            alphas[i] = 0
            for k in range(3):
                out[i, k] = np.float32(0.5) * colour[s, k]
            continue
        j = i - 1 if p == per_strand - 1 else i
        tx, ty, tz = (places[j + 1, 0] - places[j, 0], places[j + 1, 1] - places[j, 1], places[j + 1, 2] - places[j, 2])
        scale = ONE / (np.sqrt(tx * tx + ty * ty + tz * tz) + np.float32(1e-6))
        tx, ty, tz = tx * scale, ty * scale, tz * scale
        x, y, z = places[i, 0], places[i, 1], places[i, 2]
        along = np.float32(p) / np.float32(per_strand - 1)
        opened = (np.float32(0.45) + np.float32(0.55) * inside[s]) * (np.float32(0.55) + np.float32(0.45) * along)
        reached = lit_hair(shadow, x, y, z) * opened
        r = g = b = np.float32(0.0)
        for k in range(3):
            lx, ly, lz = lights.toward[k][0], lights.toward[k][1], lights.toward[k][2]
            block = reached if k == 0 else opened
            cosine = tx * lx + ty * ly + tz * lz
            sine = np.sqrt(max(np.float32(0.0), ONE - cosine * cosine))
            eye_cosine = tz
            eye_sine = np.sqrt(max(np.float32(0.0), ONE - tz * tz))
            lobe = max(np.float32(0.0), sine * eye_sine - cosine * eye_cosine)
            shifted = max(np.float32(0.0), sine * eye_sine - (cosine + np.float32(0.16)) * eye_cosine)
            first = power16(lobe)
            first = first * first * first
            second = power16(shifted)
            white = gloss * block * np.float32(0.035) * first
            diffuse = block * sine * np.float32(0.75)
            tinted = gloss * block * np.float32(0.7) * second
            r += lights.colour[k][0] * (colour[s, 0] * (diffuse + tinted) + white)
            g += lights.colour[k][1] * (colour[s, 1] * (diffuse + tinted) + white)
            b += lights.colour[k][2] * (colour[s, 2] * (diffuse + tinted) + white)
        out[i, 0] = r + colour[s, 0] * opened * (lights.sky[0] + lights.ground[0]) * np.float32(0.55)
        out[i, 1] = g + colour[s, 1] * opened * (lights.sky[1] + lights.ground[1]) * np.float32(0.55)
        out[i, 2] = b + colour[s, 2] * opened * (lights.sky[2] + lights.ground[2]) * np.float32(0.55)
