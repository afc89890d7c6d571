"""Brows, lashes and beard: short strands that move with the skin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mystudio.actors import paint
from mystudio.actors.strands import Strands, pick_roots

if TYPE_CHECKING:
    from mystudio.actors.actor import Actor

_LASHES = 46  # number on each upper lid
_BROW_HAIRS, _BEARD_HAIRS = 900, 5200


def brows(actor: Actor) -> Strands | None:
    """Brow hairs: they point up at the inner end, and outwards along the rest."""
    z = paint.zones_of(actor.head)
    width = actor.colours.brow_width
    density = z.face * np.clip((0.9 * width - z.brow) / 0.15 + 0.2, 0, 1)
    count = int(_BROW_HAIRS * (0.6 + 0.8 * actor.share("brow_width")))
    chosen, weight, roots = pick_roots(actor.head, density, actor.shape, count, seed=21)
    if not len(chosen):
        return None
    lm = actor.shape[actor.basis.landmarks]
    side = np.sign(roots[:, 0])
    inner = np.abs(lm[21, 0])
    along = np.clip((np.abs(roots[:, 0]) - inner) / (np.abs(lm[17, 0]) - inner), 0, 1)
    direction = np.stack([side * (0.5 + 0.8 * along), 0.75 - 1.1 * along, -0.1 - 0.45 * along], -1)
    return _short(
        actor,
        chosen,
        weight,
        roots,
        direction,
        length=0.34 + 0.2 * width,
        flat=0.08,
        points=3,
        width=0.045,
        colour=np.minimum(actor.colours.hair * 0.6, actor.colours.skin * 0.3),
        seed=22,
        gloss=0.1,
        alpha=0.75,
    )


def beard(actor: Actor) -> Strands | None:
    """Beard hairs for a beard above 0.42; weaker beards are only painted stubble."""
    amount = (actor.beard - 0.42) / 0.58
    if amount <= 0:
        return None
    z = paint.zones_of(actor.head)
    density = z.beard * (1 - z.lips) * (z.beard > 0.3)
    chosen, weight, roots = pick_roots(actor.head, density, actor.shape, _BEARD_HAIRS, seed=31)
    if not len(chosen):
        return None
    lm = actor.shape[actor.basis.landmarks]
    side = np.sign(roots[:, 0]) * np.clip(np.abs(roots[:, 0]) / 4, 0, 1)
    moustache = (roots[:, 1] > lm[48, 1]) & (np.abs(roots[:, 0]) < lm[54, 0] + 0.4)
    longest = np.where(moustache, np.minimum(0.9 * (roots[:, 1] - lm[51, 1]), 0.7).clip(0.12), 9.0)
    side = side + 1.4 * np.sign(roots[:, 0]) * moustache
    direction = np.stack([0.35 * side, np.full(len(roots), -1.0), np.zeros(len(roots))], -1)
    length = np.minimum(0.35 + 1.5 * amount**1.3, longest)
    return _short(
        actor,
        chosen,
        weight,
        roots,
        direction,
        length=length,
        flat=0.3,
        points=5,
        width=0.06,
        colour=actor.colours.hair * 0.9,
        seed=32,
        gloss=0.5,
        alpha=0.85,
    )


def lashes(actor: Actor) -> Strands | None:
    """Upper lashes; their tips follow the basis's lash vertices, which turn down when the eye closes."""
    made = [
        _lash_line(actor, side, actor.basis.landmarks[line])  # from the outer corner
        for side, line in (("r", [36, 37, 38, 39]), ("l", [45, 44, 43, 42]))
    ]
    roots, tips, bases, carriers = (np.concatenate(parts) for parts in zip(*made))
    r = np.random.default_rng(41)
    tips = tips + r.normal(0, 0.05, tips.shape).astype(np.float32)
    t = np.linspace(0, 1, 4, dtype=np.float32)[None, :, None]
    points = roots[:, None] + t * (tips - roots)[:, None]
    points[..., 1] += 0.5 * (t[..., 0] ** 2 - t[..., 0]) * 0.5  # lashes curve upwards
    colour = np.tile(np.minimum(actor.colours.hair * 0.3, 0.02), (len(roots), 1)).astype(np.float32)
    width = np.array([0.05, 0.045, 0.035, 0.015], np.float32)
    return Strands(
        points,
        width,
        colour,
        np.full(len(roots), 0.6, np.float32),
        bases,
        carriers,
        np.ones(points.shape[:2], np.float32),
        gloss=0.0,
        alpha=0.8,
    )


def _short(
    actor: Actor, chosen, weight, roots, direction, length, flat, points, width, colour, seed, gloss, alpha
) -> Strands:
    r = np.random.default_rng(seed)
    faces = actor.head.faces[actor.head.material == 0][chosen]
    normals = np.einsum("nk,nkd->nd", weight, actor.normals[faces])
    direction = direction - (direction * normals).sum(1, keepdims=True) * normals
    direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6
    direction = direction + r.normal(0, 0.22, direction.shape)
    reach = np.reshape(length, (-1, 1)) * r.uniform(0.6, 1.1, (len(roots), 1))
    t = np.linspace(0, 1, points)[None, :, None]
    rise = flat * np.sin(np.pi * 0.75 * t) * r.uniform(0.3, 1.0, (len(roots), 1, 1))
    path = roots[:, None] + reach[:, None] * (t * direction[:, None] + rise * normals[:, None])
    path = path + 0.02 * normals[:, None]
    tint = np.exp(r.normal(0, 0.25, (len(roots), 1)))
    root = faces[np.arange(len(faces)), weight.argmax(1)]
    return Strands(
        path.astype(np.float32),
        (width * (1 - 0.6 * t[0, :, 0])).astype(np.float32),
        (colour * tint).astype(np.float32).clip(0.003, 1),
        r.random(len(roots)).astype(np.float32),
        root,
        root,
        np.ones(path.shape[:2], np.float32),
        gloss,
        alpha,
    )


def _lash_line(actor: Actor, side: str, line: np.ndarray) -> tuple[np.ndarray, ...]:
    """Roots and tips [46, 3] of one upper lid's lashes, and the vertices [46] that move them."""
    t = np.linspace(0.02, 0.92, _LASHES)
    roots = (_through_four(t) @ actor.shape[line]).astype(np.float32)
    outward = np.stack([(-1 if side == "r" else 1) * (0.75 - 0.9 * t), np.full(_LASHES, 0.45), np.ones(_LASHES)], -1)
    reach = 0.38 + 0.42 * np.sin(np.pi * (0.25 + 0.6 * (1 - t)))
    tips = roots + (reach[:, None] * outward / np.linalg.norm(outward, axis=1, keepdims=True)).astype(np.float32)
    bases, span = line[np.round(t * 3).astype(int)], actor.basis.part(f"lashes_{side}")
    near = actor.shape[span]
    carriers = span.start + ((near[None] - tips[:, None]) ** 2).sum(-1).argmin(1) if len(near) else bases
    return roots, tips, bases, carriers


def _through_four(t: np.ndarray) -> np.ndarray:
    """Lagrange weights [N, 4] of the cubic curve through four points, at parameters [N] in 0..1."""
    at = np.arange(4) / 3
    factors = np.where(np.eye(4, dtype=bool), 1.0, (t[:, None, None] - at) / np.where(np.eye(4), 1.0, at[:, None] - at))
    return factors.prod(-1)
