"""Band-limited noise: plane waves at points, and a tileable volume for the shader."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mystudio.actors.jit import ONE, inline

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
    """A periodic tile [32, 32, 32, 4] float32: noise of standard deviation 1, and its gradient per voxel."""
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
    """Noise and its gradient (four numbers) at a point in voxels; trilinear and periodic."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    i, j, k = int(fx) & 31, int(fy) & 31, int(fz) & 31
    tx, ty, tz = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    v = gx = gy = gz = np.float32(0.0)
    for corner in range(8):
        right, down, far = corner & 1, corner >> 1 & 1, corner >> 2
        weight = (tx if right else ONE - tx) * (ty if down else ONE - ty) * (tz if far else ONE - tz)
        p, q, r = (i + right) & 31, (j + down) & 31, (k + far) & 31
        v += weight * tile[p, q, r, 0]
        gx += weight * tile[p, q, r, 1]
        gy += weight * tile[p, q, r, 2]
        gz += weight * tile[p, q, r, 3]
    return v, gx, gy, gz
