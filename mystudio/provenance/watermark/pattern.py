"""The watermark's pattern: a keyed periodic tile of plane waves, defined in cells and drawn at any scale."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mystudio.provenance.watermark.payload import CODED

TILE = 128  # cells, period of the pattern in both directions
INNER, OUTER = 6, 22  # radius of the band in cycles a tile: periods of 21 to 6 cells
CREST = 2.5  # peaks are clipped at this multiple of the rms, because they would be visible first
SYNC_SHARE = 0.25  # share of waves with fixed signs, which give position and scale


@dataclass(frozen=True)
class WatermarkSettings:
    """The key, which embedding and detection must share, and the strength of the mark."""

    key: str = "mystudio"  # secret of the pattern: with it the mark can be found and removed
    flat: float = 0.5  # grey levels (rms) on plain surfaces
    texture: float = 1.0  # additional strength for each grey level of local contrast
    strongest: float = 3.5  # grey levels (rms), upper limit at any pixel
    psnr: float = 42.0  # dB: lowest PSNR of a marked frame; the mark is weakened to keep it
    false_positive: float = 1e-6  # highest probability of reporting a mark in an unmarked clip


@dataclass(frozen=True)
class Waves:
    """The plane waves of a key; only one of each wave and its conjugate is listed."""

    ky: np.ndarray  # [K] cycles a tile, -OUTER..OUTER
    kx: np.ndarray  # [K] cycles a tile, 0..OUTER
    phase: np.ndarray  # [K] radians, uniform and independent
    bit: np.ndarray  # [K] index of the code bit whose sign the wave carries; -1 = synchronisation

    @property
    def radius(self) -> np.ndarray:
        """[K] cycles a tile."""
        return np.hypot(self.ky, self.kx)


@lru_cache(maxsize=8)
def waves(key: str) -> Waves:
    """Return the waves of a key; SHAKE-256 makes them equal on every machine and version."""
    ky, kx = (grid.ravel() for grid in np.mgrid[-OUTER : OUTER + 1, 0 : OUTER + 1])
    radius = np.hypot(ky, kx)
    kept = (radius >= INNER) & (radius <= OUTER) & ((kx > 0) | (ky > 0))
    ky, kx = ky[kept], kx[kept]
    random = np.frombuffer(hashlib.shake_256(key.encode()).digest(16 * len(ky)), "<u8")
    phase = random[: len(ky)] * (2 * np.pi / 2**64)
    order = np.argsort(random[len(ky) :], kind="stable")
    bit = np.full(len(ky), -1)
    data = order[round(SYNC_SHARE * len(ky)) :]
    bit[data] = np.arange(len(data)) % CODED
    return Waves(ky, kx, phase, bit)


def cell_size(height: int, width: int) -> float:
    """Return the side of a cell, px, in a frame of this size: 2 from 320 to 512 px, less below, more above."""
    short = min(height, width)
    return max(1.0, min(2.0, short / 160)) * max(1.0, short / 512) ** 0.5


def oscillations(length: int, cell: float, highest: int = OUTER) -> np.ndarray:
    """Return exp(2 pi i k (x + 1/2) / (cell TILE)) for pixels x and k = 0..highest: [highest + 1, length] complex64."""
    turns = np.arange(highest + 1)[:, None] * ((np.arange(length) + 0.5) / (cell * TILE))
    angles = (2 * np.pi * (turns - np.rint(turns))).astype(np.float32)  # reduced to small angles for float32
    return np.cos(angles) + 1j * np.sin(angles)


@lru_cache(maxsize=4)
def draw(key: str, word: bytes, height: int, width: int) -> np.ndarray:
    """Return the pattern of a code word at a frame's size, of unit rms.

    Args:
        key: key of the waves.
        word: signs of the code word as int8 bytes.
        height, width: px.
    Returns: [height, width] float32.
    """
    found, signs = waves(key), np.append(np.frombuffer(word, np.int8), 1)  # bit -1 reads the last entry
    spectrum = np.zeros((2 * OUTER + 1, OUTER + 1), np.complex64)
    spectrum[found.ky + OUTER, found.kx] = signs[found.bit] * np.exp(1j * found.phase) * (2 / len(found.ky)) ** 0.5
    cell = cell_size(height, width)
    rows = oscillations(height, cell)
    rows = np.concatenate([rows[:0:-1].conj(), rows])
    columns = oscillations(width, cell)
    wave = np.clip(((rows.T @ spectrum) @ columns).real, -CREST, CREST)
    return wave / np.sqrt(np.mean(wave**2))
