"""Backdrops of a person: plain, a gradient, blurred lights, a blurred room (linear RGB)."""

from __future__ import annotations

import numpy as np

SIZE = 96  # px a side; the backdrop is twice as wide as the camera's view
PLAIN, GRADIENT, LIGHTS, ROOM = range(4)


def choose(share: float) -> int:
    """Map a percentile of all people, 0..1, to a kind of backdrop."""
    return PLAIN if share < 0.25 else GRADIENT if share < 0.5 else LIGHTS if share < 0.72 else ROOM


def draw(kind: int, colour: np.ndarray, seed: int) -> np.ndarray:
    """A backdrop [96, 96, 3] float32 in a colour [3]; the seed decides where its blobs and edges are."""
    r = np.random.default_rng(seed)
    y, x = (np.mgrid[:SIZE, :SIZE].astype(np.float32) + 0.5) / SIZE
    picture = np.ones((SIZE, SIZE, 1), np.float32) * colour.astype(np.float32)
    away = np.hypot(x - 0.5, y - 0.45)[..., None]
    if kind == PLAIN:
        return (picture * (1.12 - 0.5 * away)).astype(np.float32)
    other = np.clip(colour * r.uniform(0.35, 1.5, 3) + r.uniform(-0.04, 0.12), 0.01, 0.9)
    turn = r.uniform(0, np.pi)
    along = _smooth(0.5 + 1.3 * ((x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn)))[..., None]
    picture = picture * (1 - along) + other.astype(np.float32) * along
    if kind == LIGHTS:
        picture = _lights(picture, r, x, y, colour)
    elif kind == ROOM:
        picture = _room(picture, r, x, y, colour)
    return np.clip(picture * (1.08 - 0.3 * away), 0.002, 3).astype(np.float32)


def _lights(
    picture: np.ndarray, r: np.random.Generator, x: np.ndarray, y: np.ndarray, colour: np.ndarray
) -> np.ndarray:
    picture = picture * 0.6
    for _ in range(int(r.integers(14, 40))):
        radius = r.uniform(0.012, 0.06)
        disc = _smooth((radius - np.hypot(x - r.uniform(0.1, 0.9), y - r.uniform(0.1, 0.9))) / 0.014 + 0.5)[..., None]
        tint = np.clip(colour * 0.6 + r.uniform(0.05, 0.7, 3), 0, 1.5) * r.uniform(0.3, 1.1)
        picture = picture + disc * r.uniform(0.15, 0.6) * (tint - picture * 0.5)
    return picture


def _room(picture: np.ndarray, r: np.random.Generator, x: np.ndarray, y: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Boxes with soft edges: shelves, a door, pictures, and a bright window."""
    soft = r.uniform(0.01, 0.03)
    for k in range(int(r.integers(7, 15))):
        left, top = r.uniform(0.05, 0.85), r.uniform(0.05, 0.9)
        wide, high = (
            (r.uniform(0.03, 0.12), r.uniform(0.2, 0.6)) if k % 2 else (r.uniform(0.1, 0.35), r.uniform(0.02, 0.15))
        )
        box = (
            _smooth((x - left) / soft + 0.5)
            * _smooth((left + wide - x) / soft + 0.5)
            * _smooth((y - top) / soft + 0.5)
            * _smooth((top + high - y) / soft + 0.5)
        )
        bright = r.random() < 0.18
        tint = (
            r.uniform(0.6, 1.1, 3)
            if bright
            else np.clip(colour * r.uniform(0.2, 1.6) + r.uniform(-0.05, 0.1, 3), 0.01, 0.7)
        )
        picture = picture + 0.85 * box[..., None] * (tint.astype(np.float32) - picture)
    return picture


def _smooth(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
