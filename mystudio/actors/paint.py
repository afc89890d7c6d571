"""Painted features of the head: masks of lips, brows, beard, scalp and blushes, and their colours (linear RGB)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mystudio.actors.head import Head
from mystudio.actors.noise import waves

#: from deep to pale, in linear RGB
_TONES = np.array(
    [
        [0.050, 0.026, 0.017],
        [0.120, 0.062, 0.038],
        [0.250, 0.138, 0.086],
        [0.420, 0.258, 0.178],
        [0.560, 0.378, 0.286],
        [0.660, 0.480, 0.390],
    ]
)


@dataclass(frozen=True, eq=False)
class Zones:
    """Masks on the head's vertices in 0..1, and distances in cm; all actors share them."""

    face: np.ndarray  # [V'] 1 on the face mesh
    skin: np.ndarray  # [V'] 1 on face, head, neck, shoulders
    lips: np.ndarray
    cheeks: np.ndarray
    sockets: np.ndarray  # mask of the thin skin around the eyes
    nose: np.ndarray
    oily: np.ndarray  # mask of forehead, nose, chin
    brow: np.ndarray  # cm to the brow lines
    lid: np.ndarray  # cm to the upper lash lines
    beard: np.ndarray
    ears: np.ndarray  # bool, including the bare skin in front of them
    edge: np.ndarray  # cm above the usual front hairline; negative = forehead
    behind: np.ndarray  # 1 where hair grows at the sides and the back
    grain: np.ndarray  # [V'] fine noise
    mottle: np.ndarray  # [V'] coarse noise


@lru_cache(maxsize=2)
def zones_of(head: Head) -> Zones:
    """Find the zones of a head from its landmarks."""
    basis, v = head.basis, head.rest
    lm = v[basis.landmarks]
    face, skin = np.zeros(len(v), np.float32), np.zeros(len(v), np.float32)
    face[basis.part("face")] = 1
    skin[basis.part("face")] = skin[basis.part("head")] = skin[len(basis.neutral) :] = 1
    right_eye, left_eye = lm[36:42].mean(0), lm[42:48].mean(0)
    cheeks = _spot(v, [-5.0, -1.6, 7.2], 2.8) + _spot(v, [5.0, -1.6, 7.2], 2.8)
    sockets = _spot(v, left_eye, 2.0) + _spot(v, right_eye, 2.0)
    nose = _spot(v, lm[30], 1.5)
    oily = np.maximum.reduce(
        [nose, _spot(v, [0, 8.5, 10.3], 3.0), 0.7 * _spot(v, lm[8] + [0, 1.2, 0], 1.6), 0.5 * _spot(v, lm[27], 1.8)]
    )
    brow = np.minimum(_along(v, lm[17:22]), _along(v, lm[22:27]))
    lid = np.minimum(_along(v, lm[36:40]), _along(v, lm[42:46]))
    ears = (np.abs(v[:, 0]) > 7.6 + 0.25 * np.clip(v[:, 1] - 2, 0, None)) & (np.abs(v[:, 1] - 0.5) < 4.5)
    ears &= np.abs(v[:, 2]) < 3.4
    ears |= (np.abs(v[:, 0]) > 6.2) & (v[:, 1] < 2.6) & (v[:, 1] > -4.5) & (v[:, 2] > -1.8)
    edge = v[:, 1] - 9.7 - 0.3 * waves(v, 3, (1.5, 4, 9)) + 0.03 * v[:, 0] ** 2
    line = 2.0 + 0.22 * np.clip(v[:, 1], 0, 9) + 0.15 * waves(v, 4)  # edge of the hair in front of the ears
    nape = -5.5 + 1.1 * np.clip(v[:, 2] + 6, 0, 9) + 0.25 * waves(v, 5)
    behind = _step((line - v[:, 2]) / 0.7) * _step((v[:, 1] - nape) / 1.5)
    return Zones(
        face,
        skin,
        face * _lips(v, lm),
        cheeks,
        sockets,
        nose,
        oily,
        brow,
        lid,
        face * _beard(v, lm),
        ears,
        edge,
        behind,
        waves(v, 2, (7, 15, 23)),
        waves(v, 1),
    )


def skin_tone(tone: float, undertone: float) -> np.ndarray:
    """Linear RGB of skin; tone is 0 deep .. 1 pale, undertone is 0 cool .. 1 warm."""
    at = tone * (len(_TONES) - 1)
    k = min(int(at), len(_TONES) - 2)
    colour = np.exp(np.log(_TONES[k]) * (1 - at + k) + np.log(_TONES[k + 1]) * (at - k))
    return colour * (1 + (undertone - 0.5) * np.array([0.14, 0.03, -0.22]))


def hair_colour(lightness: float, grey: float) -> np.ndarray:
    """Linear RGB of hair; lightness 0..1 is black, brown, auburn, blond. ``grey`` above 0.84 adds grey."""
    stops = np.array(
        [[0.012, 0.010, 0.009], [0.030, 0.019, 0.013], [0.075, 0.040, 0.022], [0.21, 0.115, 0.050], [0.43, 0.29, 0.145]]
    )
    at = lightness * (len(stops) - 1)
    k = min(int(at), len(stops) - 2)
    colour = stops[k] * (1 - at + k) + stops[k + 1] * (at - k)
    red = max(0.0, 0.3 - grey) * np.exp(-(((lightness - 0.62) / 0.2) ** 2))
    colour = colour * (1 + red * np.array([1.6, -0.9, -2.0]))
    silver = max(0.0, (grey - 0.84) / 0.16)
    return colour * (1 - silver) + silver * np.array([0.27, 0.26, 0.25])


@dataclass(frozen=True)
class Colours:
    """A person's colours."""

    skin: np.ndarray  # [3]
    hair: np.ndarray  # [3]
    lips: float  # 0 pale .. 1 red
    brow_width: float  # cm
    stubble: float  # 0 none .. 1 dense
    scalp: float  # 0 bare .. 1 hidden by hair
    hairline: float  # 0 low .. 1 receding


def paint(head: Head, colours: Colours) -> tuple[np.ndarray, np.ndarray]:
    """Albedo [V', 3] and gloss [V'] of a person's head."""
    z, v, tone = zones_of(head), head.rest, colours.skin
    albedo = np.tile(tone, (len(v), 1)).astype(np.float32)
    albedo *= (1 + 0.05 * z.mottle)[:, None] * (1 - 0.03 * z.grain)[:, None] ** np.array([0, 1, 1], np.float32)
    pale = float(np.clip(tone.mean() / 0.4, 0, 1))

    def blend(mask: np.ndarray, colour) -> None:
        albedo[:] += np.asarray(mask, np.float32)[:, None] * (np.asarray(colour, np.float32) - albedo)

    blend((0.35 + 0.3 * pale) * z.cheeks, tone * [1.10, 0.78, 0.76])
    blend(0.5 * z.nose, tone * [1.08, 0.80, 0.78])
    blend(0.45 * z.sockets, tone * [0.84, 0.72, 0.74])
    blend(0.3 * z.ears * (np.abs(v[:, 0]) > 7.6), tone * [1.10, 0.80, 0.76])
    shade = tone * 0.45 + colours.hair * 0.55
    blend((1 - z.lips) * colours.stubble * 0.65 * z.beard * (0.8 + 0.2 * z.grain), shade)
    blend(0.85 * z.lips, tone * [0.94, 0.56 - 0.24 * colours.lips, 0.60 - 0.2 * colours.lips])
    blend(z.face * np.clip((colours.brow_width - z.brow) / 0.3 + 0.5, 0, 1) * 0.35, np.minimum(shade, tone * 0.6))
    blend(z.face * np.clip((0.11 - z.lid) / 0.1, 0, 1) * 0.7, tone * 0.25)
    scalp = colours.scalp * _step((hairy(z, colours.hairline) - 0.3) / 0.5)
    blend(scalp, colours.hair * 0.7)
    gloss = (0.42 + 0.5 * z.oily + 0.5 * z.lips) * (1 - 0.85 * scalp)
    return albedo.clip(0.004, 1), gloss.astype(np.float32)


def hairy(z: Zones, hairline: float) -> np.ndarray:
    """Mask [V'] of the hair in 0..1, for a hairline of 0 low .. 1 receding."""
    front = _step((z.edge - 2.4 * (hairline - 0.35)) / 0.9 + 0.5)
    return np.maximum(front, z.behind) * z.skin * ~z.ears


def _step(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _spot(v: np.ndarray, centre, radius: float) -> np.ndarray:
    return np.exp(-(np.linalg.norm((v - np.asarray(centre, np.float32)) / radius, axis=1) ** 2))


def _along(v: np.ndarray, line: np.ndarray) -> np.ndarray:
    best = np.full(len(v), 1e9, np.float32)
    for a, b in zip(line[:-1], line[1:]):
        t = np.clip(((v - a) @ (b - a)) / max(float((b - a) @ (b - a)), 1e-9), 0, 1)
        best = np.minimum(best, np.linalg.norm(v - a - t[:, None] * (b - a), axis=1))
    return best


def _lips(v: np.ndarray, lm: np.ndarray) -> np.ndarray:
    """Soft mask of the inside of the outer lip contour, seen from the front."""
    ring = lm[48:60, :2]
    inside = np.zeros(len(v), bool)
    for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, 0)):
        crosses = (ay > v[:, 1]) != (by > v[:, 1])
        at = ax + (v[:, 1] - ay) * (bx - ax) / (by - ay if by != ay else 1e-9)
        inside ^= crosses & (v[:, 0] < at)
    flat, closed = v * [1, 1, 0], np.concatenate([ring, ring[:1]])
    distance = _along(flat, np.concatenate([closed, np.zeros((len(closed), 1))], 1))
    return _step(np.where(inside, distance, -distance) / 0.24 + 0.5) * (v[:, 2] > lm[48, 2] - 0.6)


def _beard(v: np.ndarray, lm: np.ndarray) -> np.ndarray:
    """Mask of the beard: upper lip, chin, jaw and the upper part of the throat."""
    below = _step((lm[33, 1] - 0.5 - v[:, 1]) / 0.9) * _step((v[:, 1] - lm[8, 1] + 1.7) / 1.5)
    cheek = lm[33, 1] - 3.2 + 0.055 * np.clip(np.abs(v[:, 0]) - 2.4, 0, None) ** 2.2  # falls to the mouth
    mouth = np.abs(v[:, 0]) < 2.9
    jaw = _step((cheek - v[:, 1]) / 1.2 + 0.5)
    return below * np.maximum(jaw, mouth * _step((3.0 - np.abs(v[:, 0])) / 0.6))
