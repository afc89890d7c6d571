"""Clothes: their edge on neck and shoulders, and their colours (linear RGB)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mystudio.actors.jit import ONE, inline
from mystudio.actors.light import Triple, numbers

CREW, VEE, HIGH, SHIRT = range(4)
PLAIN, STRIPES, CHECKS, YOKE = range(4)


class Cloth(NamedTuple):
    """The clothes of a person."""

    neckline: int
    pattern: int
    colour: Triple  # linear RGB
    second: Triple  # linear RGB of pattern and collar


def choose(share: float, colour: np.ndarray) -> Cloth:
    """Map a percentile of all people, 0..1, to clothes of a colour [3]."""
    step = min(int(share * 16), 15)
    neckline, pattern = (CREW, VEE, SHIRT, HIGH)[step // 4], step % 4
    bright = float(colour.mean())
    second = 0.55 * colour + 0.3 if bright < 0.3 else 0.35 * colour
    if neckline == SHIRT:
        second = 0.25 * colour + 0.55
    if pattern == STRIPES and neckline == SHIRT:
        pattern = PLAIN
    return Cloth(neckline, pattern, numbers(colour), numbers(second))


@inline()
def cloth_edge(cloth, x, y, z):
    """Distance of a point in rest position from the clothes' edge, cm; positive = cloth, negative = skin."""
    side = abs(x)
    line = np.float32(-13.0) - np.float32(0.28) * z
    if cloth.neckline == HIGH:
        line = np.float32(-9.8) - np.float32(0.25) * z
    elif cloth.neckline != CREW and z > 0:
        deep = np.float32(8.0) if cloth.neckline == VEE else np.float32(6.0)
        line -= deep * max(np.float32(0.0), ONE - side / np.float32(6.2))
    return line - y


@inline()
def cloth_albedo(cloth, inside, x, y, z):
    """Colour (r, g, b) of the cloth, ``inside`` cm from its edge."""
    tone, mix = np.float32(1.0), np.float32(0.0)
    if inside < np.float32(0.35):
        tone = np.float32(0.55) + np.float32(0.45) * inside / np.float32(0.35)  # darker at the hem, which is round
    if cloth.neckline == CREW and inside < np.float32(1.7):
        tone *= np.float32(0.93) + np.float32(0.07) * np.sin(np.arctan2(x, z + 3) * 130)  # ribs
        tone *= np.float32(1.0) - np.float32(0.3) * np.exp(-(((inside - np.float32(1.7)) * 7) ** 2))
    elif cloth.neckline == HIGH:
        tone *= np.float32(0.94) + np.float32(0.06) * np.sin(np.arctan2(x, z + 3) * 110)
        tone *= np.float32(1.0) - np.float32(0.25) * np.exp(-(((inside - np.float32(4.2)) * 3) ** 2))
    elif cloth.neckline == SHIRT:
        if inside < np.float32(3.0):
            mix = np.float32(1.0)
            tone *= np.float32(1.0) - np.float32(0.45) * np.exp(-(((inside - np.float32(3.0)) * 5) ** 2))
        elif z > 0 and abs(x) < np.float32(1.6):
            tone *= np.float32(1.0) - np.float32(0.3) * np.exp(-(((abs(x) - np.float32(1.5)) * 8) ** 2))
    if mix == 0 and inside > np.float32(1.7):
        if cloth.pattern == STRIPES:
            mix = np.float32(1.0) if np.sin(y * np.float32(2.6)) > np.float32(0.35) else np.float32(0.0)
        elif cloth.pattern == CHECKS:
            across, down = np.sin(x * np.float32(1.9)), np.sin(y * np.float32(1.9))
            mix = np.float32(0.35) * (np.float32(across > 0.5) + np.float32(down > 0.5))
        elif cloth.pattern == YOKE:
            mix = np.float32(1.0) if y < np.float32(-24.5) else np.float32(0.0)
    return (
        tone * (cloth.colour[0] + mix * (cloth.second[0] - cloth.colour[0])),
        tone * (cloth.colour[1] + mix * (cloth.second[1] - cloth.colour[1])),
        tone * (cloth.colour[2] + mix * (cloth.second[2] - cloth.colour[2])),
    )
