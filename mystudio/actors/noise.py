"""Band-limited noise: as plane waves at points, and as a tileable volume for the shader."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mystudio.actors.jit import inline

TILE = 32  # voxels a side
_BAND = 0.16  # cycles a voxel: features about three voxels wide


def waves(points: np.ndarray, seed: int, octaves: tuple[float, ...] = (0.9, 2.3, 5.1, 11.0)) -> np.ndarray:
    """Noise [N] in about [-1, 1] at points [N, 3]: a sum of random plane waves of the given frequencies, rad/cm."""
    r = np.random.default_rng(seed)
    out = np.zeros(len(points), np.float32)
    for k, frequency in enumerate(octaves):
        direction = (r.normal(size=(6, 3)) * frequency).astype(np.float32)
        phase = r.uniform(0, 6.3, 6).astype(np.float32)
        out += np.sin(points @ direction.T + phase).sum(1) / 6 / (1 + 0.5 * k)
    return out


@lru_cache(maxsize=1)
def volume() -> np.ndarray:
    """A tile [32, 32, 32, 4] float32 of noise of unit deviation, and its gradient a voxel."""
    r = np.random.default_rng(5)
    spectrum = np.fft.fftn(r.normal(size=(TILE,) * 3))
    axis = np.fft.fftfreq(TILE)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt(x * x + y * y + z * z)
    spectrum *= np.exp(-(((radius - _BAND) / (0.4 * _BAND)) ** 2))
    value = np.fft.ifftn(spectrum).real
    value /= value.std()
    slopes = [(np.roll(value, -1, k) - np.roll(value, 1, k)) / 2 for k in range(3)]
    return np.stack([value, *slopes], -1).astype(np.float32)


@inline()
def sample(tile, x, y, z):
    """Noise and gradient at a place in voxels, trilinear and periodic: four numbers."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    i, j, k = int(fx) & 31, int(fy) & 31, int(fz) & 31
    i2, j2, k2 = (i + 1) & 31, (j + 1) & 31, (k + 1) & 31
    tx, ty, tz = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    a, b = (1 - tx) * (1 - ty), tx * (1 - ty)
    c, d = (1 - tx) * ty, tx * ty
    near, far = 1 - tz, tz
    w0, w1, w2, w3, w4, w5, w6, w7 = a * near, b * near, c * near, d * near, a * far, b * far, c * far, d * far
    p0, p1, p2, p3 = tile[i, j, k], tile[i2, j, k], tile[i, j2, k], tile[i2, j2, k]
    p4, p5, p6, p7 = tile[i, j, k2], tile[i2, j, k2], tile[i, j2, k2], tile[i2, j2, k2]
    v = w0 * p0[0] + w1 * p1[0] + w2 * p2[0] + w3 * p3[0] + w4 * p4[0] + w5 * p5[0] + w6 * p6[0] + w7 * p7[0]
    gx = w0 * p0[1] + w1 * p1[1] + w2 * p2[1] + w3 * p3[1] + w4 * p4[1] + w5 * p5[1] + w6 * p6[1] + w7 * p7[1]
    gy = w0 * p0[2] + w1 * p1[2] + w2 * p2[2] + w3 * p3[2] + w4 * p4[2] + w5 * p5[2] + w6 * p6[2] + w7 * p7[2]
    gz = w0 * p0[3] + w1 * p1[3] + w2 * p2[3] + w3 * p3[3] + w4 * p4[3] + w5 * p5[3] + w6 * p6[3] + w7 * p7[3]
    return v, gx, gy, gz
