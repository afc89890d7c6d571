"""Hair as strands. They grow once for each person, in rest position; in every frame they move with the skin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mystudio.actors import facial, paint
from mystudio.actors.head import follow_of
from mystudio.actors.light import numbers
from mystudio.actors.noise import volume
from mystudio.actors.strands import Field, Strands, grow, pick_roots

if TYPE_CHECKING:
    from mystudio.actors.actor import Actor


@dataclass(frozen=True)
class Style:
    """A hair style."""

    name: str
    share: float  # share of all people
    count: int  # strands
    points: int  # points of each strand
    top: float  # cm, length on the crown
    side: float  # cm, length at sides and back
    lift: float  # 0 flat .. 1 upright
    fall: float  # pull of gravity
    comb: tuple[float, float, float]  # direction to comb to, (away from the parting, up, forward)
    wave: float  # cm of waves
    tight: float  # waves a cm
    bulk: float  # cm between the skull and the outermost strands
    scalp: float = 1.0  # share of hair colour in the scalp's colour
    long: bool = False
    knot: bool = False  # tied at the back


STYLES = (
    Style("bald", 0.06, 0, 2, 0, 0, 0, 0, (0, 0, 0), 0, 0, 0, scalp=0.12),
    Style("shaved", 0.08, 0, 2, 0, 0, 0, 0, (0, 0, 0), 0, 0, 0, scalp=0.72),
    Style("cropped", 0.10, 7000, 4, 1.3, 0.7, 0.7, 0.1, (0.1, -0.2, 0.5), 0.05, 0.5, 0.3),
    Style("short", 0.16, 9000, 8, 5.5, 2.0, 0.3, 0.45, (0.6, -0.3, 0.5), 0.2, 0.15, 0.9),
    Style("swept", 0.10, 9000, 8, 6.0, 1.6, 0.55, 0.2, (0.15, 0.2, -0.9), 0.2, 0.15, 1.7),
    Style("curly", 0.12, 7000, 16, 9.0, 6.0, 0.8, 0.25, (0.5, 0.2, 0.1), 0.42, 0.36, 2.6),
    Style("bob", 0.13, 7000, 16, 19.0, 14.5, 0.12, 1.0, (1.0, -0.1, -0.2), 0.35, 0.12, 1.7, long=True),
    Style("long", 0.15, 7000, 22, 38.0, 33.0, 0.12, 1.0, (1.0, -0.1, -0.3), 0.7, 0.09, 1.9, long=True),
    Style("tied", 0.10, 7000, 14, 17.0, 13.0, 0.15, 0.0, (0.2, 0.1, -1.0), 0.1, 0.15, 0.6, long=True, knot=True),
)


def choose(share: float) -> Style:
    """Map a percentile of all people, 0..1, to a style."""
    total = 0.0
    for style in STYLES:
        total += style.share
        if share < total:
            return style
    return STYLES[-1]


def grow_all(actor: Actor) -> list[Strands]:
    """All hair of a person: head, beard, brows, lashes (in the order of drawing)."""
    made = [_scalp_hair(actor), facial.beard(actor), facial.brows(actor), facial.lashes(actor)]
    return [strands for strands in made if strands is not None]


def _scalp_hair(actor: Actor) -> Strands | None:
    style, head = actor.style, actor.head
    if not style.count:
        return None
    zones, hairline = paint.zones_of(head), actor.share("hairline")
    density = paint.hairy(zones, hairline)
    density = np.where(density > 0.35, density, 0) ** 2
    chosen, weight, roots = pick_roots(head, density, actor.shape, style.count, seed=11)
    if not len(chosen):
        return None
    r = np.random.default_rng(12)
    faces = head.faces[head.material == 0][chosen]
    normals = np.einsum("nk,nkd->nd", weight, actor.normals[faces])
    rest = np.einsum("nk,nkd->nd", weight, head.rest[faces])
    volume_share = 0.6 + 0.8 * actor.share("hair_volume")
    crown = np.clip((rest[:, 1] - 5.5) / 4.5, 0, 1)
    length = (style.side + (style.top - style.side) * crown) * (0.8 + 0.4 * volume_share / 1.4)
    length = length * r.uniform(0.78, 1.05, len(roots))
    layer = r.random(len(roots)) ** (1.3 if style.long else 0.8)
    field = _field(actor, style, volume_share)
    points = grow(
        roots.astype(np.float32),
        normals.astype(np.float32),
        rest.astype(np.float32),
        length.astype(np.float32),
        layer.astype(np.float32),
        style.points,
        field,
        volume(),
    )
    points = _cut(_smooth(points), actor, style)
    tint = np.exp(r.normal(0, 0.13, (len(roots), 1))) * (1 + 0.03 * r.normal(size=(len(roots), 3)))
    span = np.linspace(0, 1, style.points)
    width = (0.095 if style.points > 5 else 0.08) * (1 - 0.55 * span**2)
    follow = follow_of(points[..., 1] + 1.5)
    root = faces[np.arange(len(faces)), weight.argmax(1)]
    return Strands(
        points,
        width.astype(np.float32),
        (actor.colours.hair * tint).astype(np.float32).clip(0.003, 1),
        layer.astype(np.float32),
        root,
        root,
        follow,
    )


def _smooth(points: np.ndarray) -> np.ndarray:
    inner = points.copy()
    for _ in range(2):
        inner[:, 1:-1] = 0.25 * inner[:, :-2] + 0.5 * inner[:, 1:-1] + 0.25 * inner[:, 2:]
    return inner


def _cut(points: np.ndarray, actor: Actor, style: Style) -> np.ndarray:
    """Cut strands where they would cross the eyes, the face of long hair, or the ears of short hair."""
    lm = actor.shape[actor.basis.landmarks]
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    wide = np.abs(lm[[1, 15], 0]).mean()
    forehead = lm[27, 1] + (3.0 if style.long else 2.0)
    crossing = (y < forehead) & (z > 2.5) & (x < 0.93 * wide) & (y > lm[8, 1] - 3)
    if not style.long:
        ear = lm[[0, 16]].mean(0)
        crossing |= (x > 0.98 * wide) & (np.abs(y - ear[1] + 2.6) < 4.0) & (z > -3.2) & (z < 3.0)
    if style.long:
        return np.where(crossing.any(1)[:, None, None], points[:, :1], points)
    first = np.where(crossing.any(1), crossing.argmax(1), points.shape[1])
    last = np.minimum(np.arange(points.shape[1])[None], np.maximum(first - 1, 0)[:, None])
    return np.take_along_axis(points, last[..., None], 1)


def _field(actor: Actor, style: Style, volume_share: float) -> Field:
    """The field that guides strands: the comb's direction, and the skull that they avoid."""
    skull = actor.shape[: len(actor.basis.neutral)]
    top, brow = skull[:, 1].max(), actor.shape[actor.basis.landmarks[27], 1]
    upper = skull[skull[:, 1] > brow - 1]
    upper = upper[np.abs(upper[:, 0]) < 8.2 * np.abs(upper[:, 0]).max() / 9.0]
    low, high = upper.min(0), upper.max(0)
    centre = np.array([0, brow + 0.5, (low[2] + high[2]) / 2 - 0.3], np.float32)
    radii = np.array([(high[0] - low[0]) / 2 + 0.1, top - centre[1], (high[2] - low[2]) / 2 + 0.4], np.float32)
    parting = np.float32(2.2 * (actor.share("hair_volume") - 0.5) * 2)
    knot = np.array([0, centre[1] + 0.5, low[2] - 1.2], np.float32)
    face = actor.shape[actor.basis.landmarks]
    oval = np.array([np.abs(face[[2, 14], 0]).mean(), face[27, 1] + 3.5, 2.0], np.float32)
    centre, radii, comb, knot, oval = map(numbers, (centre, radii, style.comb, knot, oval))
    return Field(
        centre,
        radii,
        comb,
        parting,
        np.float32(style.lift),
        np.float32(style.fall),
        np.float32(style.wave * volume_share),
        np.float32(style.tight),
        np.float32(style.bulk * volume_share),
        style.knot,
        knot,
        oval,
    )
