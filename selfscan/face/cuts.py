"""Cuts of a clip: the places where one shot ends and the next one begins.

A jump cut, a change of framing, a cross-fade and a dip to black are cuts. A flash, a blink, a fast turn of the head,
a hand before the face and a change of light are none. Temporal filters must not cross a cut.

Two signs count. The first is the picture: most of its texture has no match near the same place in the frame before.
Matching by normalised correlation ignores light, and its search follows motion. The second is the face: it jumps from
one frame to the next, while its neighbours move slowly. Each sign counts only as a peak over the neighbouring frames,
so that fast motion is no cut.
"""

from __future__ import annotations

import numpy as np

from selfscan.face.landmarks import OUTER_EYE_CORNERS, RIGID
from selfscan.types import Array

LONG_SIDE = 96  # px of a small picture; hair and background keep their texture
BLOCK, SEARCH, FLAT = 12, 5, 4.0  # px of a block; px to each side where it may have moved; grey levels: no texture
CHANGED = 0.12  # share of the texture without a match; head motion in real clips stays below 0.07, scenes differ by 0.2
PEAK = 2.5  # a cut changes the picture this many times as much as its neighbours
JUMP, JUMP_PEAK = 0.12, 4.0  # eye distances that the face jumps at a cut; and relative to its neighbours' steps
CHANGED_WITH_JUMP = 0.012  # as CHANGED, where the face jumps, too
FAINT_JUMP, FAINT_CHANGE, FAINT_PEAK = 0.04, 0.006, 5.0  # as both, where both signs are clear peaks
GAP, GAP_SECONDS = 3.0, 0.25  # usual frame intervals, and s: a longer interval in which the picture changes is a cut
FLASH_SECONDS = 0.13  # s: a shorter change that goes back to the picture before it is a flash or a damaged frame
WASHED, WASHED_SECONDS = 0.5, 0.5  # share of the usual texture, and s: so is a longer one that is washed out
FADES = (0.12, 0.24, 0.48, 0.96)  # s, half lengths of the cross-fades that are tried
BLEND = 0.13  # share of the difference between both ends that a linear blend of them may leave unexplained; motion
#   between frames as different as two scenes leaves at least 0.16
PALE = 0.75  # share of the detail of both ends in their blend: 0.5 to 0.65 in cross-fades, above 0.8 in moving scenes
FACE_BLEND = 0.06  # as BLEND, where only the face differs
DARK, FADING = 0.1, 0.95  # of the usual texture: less is black or white; of the next frame's contrast: a fade
ACROSS_DIP = 0.15  # as CHANGED, between the frames before and after a dip, which may be seconds apart


def small(frame: Array) -> Array:
    """A frame [H, W, 3] uint8 RGB as a small grey picture [h, w] uint8 for ``find_cuts``."""
    import cv2

    height, width = frame.shape[:2]
    scale = LONG_SIDE / max(height, width)
    size = max(BLOCK, round(width * scale)), max(BLOCK, round(height * scale))
    grey = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return cv2.GaussianBlur(grey, (0, 0), 0.8)  # removes noise and the blocks of strong compression


def find_cuts(pictures: Array, times: Array, faces: Array) -> Array:
    """Find the cuts of a clip.

    Args:
        pictures: [T, h, w] uint8 from ``small``.
        times: [T] s.
        faces: [T, 478, 2 or 3] px, landmarks of the most prominent face; NaN where none was found.
    Returns:
        [C, 2] int64 for each cut: the first frame that shows the new shot, and the first one without the old shot.
        Both are equal except in a cross-fade.
    """
    if len(pictures) < 2:
        return np.zeros((0, 2), np.int64)
    signs = Signs(pictures, faces)
    dips = _dips(signs)
    cuts = [*_without_flashes(signs, times, _hard_cuts(signs, times)), *_fades(signs, times)]
    cuts = [cut for cut in cuts if not any(a <= cut[1] and cut[0] <= b for a, b in dips)]
    cuts += [(a, b) for a, b in dips if 0 < a and b < len(signs) and signs.changed(a - 1, b) >= ACROSS_DIP]
    return np.array(_merged(cuts), np.int64).reshape(-1, 2)


class Signs:
    """Differences between the frames of a clip; each costly one is computed once, when it is asked for."""

    def __init__(self, pictures: Array, faces: Array):
        self._pictures = pictures
        self.contrast = np.array([float(picture.std()) for picture in pictures])
        self.texture = np.array([textured(picture) for picture in pictures])
        self.step = np.zeros(len(pictures))  # [T] cheap change of the picture; light does not count
        for t in range(1, len(pictures)):
            before, here = self.pictures(t - 1, t)
            self.step[t] = light_free_change(before, here, self.contrast[t - 1], self.contrast[t])
        self._points = np.asarray(faces, np.float64)[:, list(RIGID), :2]
        eyes = faces[:, OUTER_EYE_CORNERS[0], :2] - faces[:, OUTER_EYE_CORNERS[1], :2]
        self._eyes = np.linalg.norm(eyes.astype(np.float64), axis=-1)
        self.jump = np.array([0.0, *(self.face_moved(t - 1, t) for t in range(1, len(pictures)))])
        self._known: dict[tuple[int, int], float] = {}

    def __len__(self) -> int:
        return len(self._pictures)

    def detail(self, t: int) -> float:
        """Power of the fine detail of a frame; a blend of two scenes has half of it, a moving scene keeps it."""
        import cv2

        (picture,) = self.pictures(t)
        return float(np.square(picture - cv2.GaussianBlur(picture, (0, 0), 2.5)).mean())

    def changed(self, a: int, b: int) -> float:
        """Share 0..1 of the texture of two frames that has no match in the other one."""
        if (a, b) not in self._known:
            self._known[a, b] = difference(*self.pictures(a, b))
        return self._known[a, b]

    def pictures(self, *frames: int) -> Array:
        """Pictures [n, h, w] float32 of some frames."""
        return self._pictures[list(frames)].astype(np.float32)

    def face_moved(self, a: int, b: int) -> float:
        """Eye distances that the face moved between two frames; NaN where either has none."""
        return float(np.linalg.norm(self._points[b] - self._points[a], axis=-1).mean() / max(self._eyes[a], 1e-6))

    def around(self, t: int, reach: int) -> list[int]:
        """Frames near ``t`` that have one before them, without ``t``."""
        return [k for k in range(max(1, t - reach), min(len(self), t + reach + 1)) if k != t]

    def differ(self, a: int, b: int) -> bool:
        """Whether two frames belong to different shots: the picture has changed, or the face has jumped with it."""
        moved = self.face_moved(a, b)
        return self.changed(a, b) >= CHANGED or (moved >= 2 * JUMP and self.changed(a, b) >= 2 * CHANGED_WITH_JUMP)


def light_free_change(a: Array, b: Array, contrast: float, other: float) -> float:
    """Cheap change from a picture to another [h, w] float32, of these standard deviations; light does not count."""
    return float(np.abs((b - b.mean()) / (other + FLAT) - (a - a.mean()) / (contrast + FLAT)).mean())


def difference(a: Array, b: Array) -> float:
    """Share 0..1 of the texture of two pictures [h, w] float32 that has no match near its place in the other one."""
    (missing, weight), (missed, other) = _unmatched(a, b), _unmatched(b, a)
    return (missing + missed) / max(weight + other, 1e-6)


def least_difference(a: Array, b: Array) -> float:
    """The lesser of both directions of ``difference``: small if something only vanished or only appeared."""
    return min(missing / max(weight, 1e-6) for missing, weight in (_unmatched(a, b), _unmatched(b, a)))


def _unmatched(a: Array, b: Array) -> tuple[float, float]:
    import cv2

    height, width = b.shape
    wide = cv2.copyMakeBorder(a, SEARCH, SEARCH, SEARCH, SEARCH, cv2.BORDER_REPLICATE)
    missing = total = 0.0
    for y in range(height % BLOCK // 2, height - BLOCK + 1, BLOCK):
        for x in range(width % BLOCK // 2, width - BLOCK + 1, BLOCK):
            block = b[y : y + BLOCK, x : x + BLOCK]
            texture = float(block.std())
            if texture < FLAT:
                continue
            place = wide[y : y + BLOCK + 2 * SEARCH, x : x + BLOCK + 2 * SEARCH]
            match = float(np.nan_to_num(cv2.matchTemplate(place, block, cv2.TM_CCOEFF_NORMED)).max())
            weight = min(texture, 5 * FLAT)
            missing, total = missing + weight * (1 - min(max(match, 0.0), 1.0)), total + weight
    return missing, total


def textured(picture: Array) -> float:
    """Share 0..1 of the blocks of a small picture that have texture."""
    high, wide = (side // BLOCK for side in picture.shape)
    blocks = picture[: high * BLOCK, : wide * BLOCK].reshape(high, BLOCK, wide, BLOCK).astype(np.float32)
    return float((blocks.std((1, 3)) >= FLAT).mean())


def _hard_cuts(signs: Signs, times: Array) -> list[int]:
    interval = np.diff(times, prepend=times[0])
    late = interval > max(GAP * float(np.median(interval[1:])), GAP_SECONDS)
    return [t for t in range(1, len(signs)) if _is_cut(signs, t, bool(late[t]))]


def _is_cut(signs: Signs, t: int, late: bool) -> bool:
    near = signs.around(t, 3)
    usual = float(np.median(signs.step[near])) if near else 0.0
    steps = signs.jump[near][np.isfinite(signs.jump[near])]
    jump, fastest = float(np.nan_to_num(signs.jump[t])), float(max(steps, default=0.0))
    if late and (signs.changed(t - 1, t) >= CHANGED_WITH_JUMP or jump >= JUMP / 2):
        return True
    faint = jump >= FAINT_JUMP and jump >= FAINT_PEAK * fastest
    clear = jump >= JUMP and jump >= JUMP_PEAK * fastest
    if not (faint or clear) and signs.step[t] < max(1.5 * usual, 0.02):
        return False  # the usual case: the costly comparison is not needed
    changed = signs.changed(t - 1, t)
    if changed < (CHANGED_WITH_JUMP if clear else FAINT_CHANGE if faint else CHANGED):
        return False
    peak = FAINT_PEAK if changed < CHANGED and not clear else PEAK
    return changed >= peak * max((signs.changed(k - 1, k) for k in signs.around(t, 2)), default=0.0)


def _without_flashes(signs: Signs, times: Array, cuts: list[int]) -> list[tuple[int, int]]:
    """Remove pairs of changes that lead back to the picture before them; make pairs of the others."""
    kept: list[int] = []
    for t in cuts:
        if kept and _is_flash(signs, times, kept[-1], t):
            kept.pop()
        else:
            kept.append(t)
    return [(t, t) for t in kept]


def _is_flash(signs: Signs, times: Array, first: int, last: int) -> bool:
    seconds = times[last] - times[first]
    if seconds > WASHED_SECONDS or signs.differ(first - 1, last):
        return False
    usual = min(signs.texture[first - 1], signs.texture[last])
    return bool(seconds <= FLASH_SECONDS or signs.texture[first:last].mean() < WASHED * usual)


def _fades(signs: Signs, times: Array) -> list[tuple[int, int]]:
    """Cross-fades: between two different frames, all others are blends of both."""
    rate = 1 / max(float(np.median(np.diff(times))), 1e-3)
    halves = sorted({max(2, round(rate * half)) for half in FADES})
    found: list[tuple[int, int]] = []
    for half in halves:
        for t in range(half, len(signs) - half, max(1, half // 4)):
            a, b = t - half, t + half
            left = _unexplained(signs, a, b)
            scene = left < BLEND and signs.changed(a, b) >= CHANGED
            if scene or (left < FACE_BLEND and _face_fades(signs, a, b)):
                found.append(_extent(signs, a, b))
    return found


def _face_fades(signs: Signs, a: int, b: int) -> bool:
    """Whether the face is elsewhere at the end and did not travel there: it jumped, or was lost in between."""
    moved, steps = signs.face_moved(a, b), signs.jump[a + 1 : b + 1]
    travelled = np.isfinite(steps).all() and steps.max() < 0.4 * moved
    return moved >= 2 * JUMP and not travelled and signs.changed(a, b) >= 2 * CHANGED_WITH_JUMP


def _shares(signs: Signs, a: int, b: int) -> tuple[Array, Array]:
    """Share of frame ``b`` in each frame from ``a`` to ``b``, and what the blend of both leaves unexplained."""
    pictures = signs.pictures(*range(a, b + 1))
    ends, rest = pictures[-1] - pictures[0], pictures - pictures[0]
    power = max(float((ends * ends).sum()), 1e-6)
    share = (rest * ends).sum((1, 2)) / power
    rest = rest - share[:, None, None] * ends
    return share, (rest * rest).sum((1, 2)) / power


def _unexplained(signs: Signs, a: int, b: int) -> float:
    """What no blend of two frames explains of those between them; infinite if the change is not gradual."""
    first, last = signs.pictures(a, b)
    if np.abs(last - first).mean() < FLAT:
        return np.inf
    share, left = _shares(signs, a, b)
    gradual = 0.3 < share[len(share) // 2] < 0.7 and np.diff(share).max() < 0.45
    pale = gradual and signs.detail(len(share) // 2 + a) < PALE * (signs.detail(a) + signs.detail(b)) / 2
    return float(left.max()) if pale else np.inf


def _extent(signs: Signs, a: int, b: int) -> tuple[int, int]:
    share, _ = _shares(signs, a, b)
    mixed = np.flatnonzero((share > 0.08) & (share < 0.92))
    return a + int(mixed[0]), a + int(mixed[-1]) + 1


def _dips(signs: Signs) -> list[tuple[int, int]]:
    """Spans of frames that are dark or white all over, short or long, with the frames that fade into them and out."""
    flat = signs.texture <= DARK * float(np.median(signs.texture))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(int)))
    found: list[tuple[int, int]] = []
    for a, b in edges.reshape(-1, 2).tolist():
        while a > 1 and signs.contrast[a - 1] < FADING * signs.contrast[a - 2]:
            a -= 1
        while b < len(flat) - 1 and signs.contrast[b] < FADING * signs.contrast[b + 1]:
            b += 1
        found.append((a, b))
    return found


def _merged(cuts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cuts in order; those that touch become one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(cuts):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged
