"""What an avatar will not be able to follow in a performance: a forecast before it is driven.

An avatar does what its scan shows, and what lies between two of the scan's faces. Each face is a point of attributes
(``mystudio.motion.attributes``), in units that can be seen. The convex hull of these points, a little enlarged, is what
the avatar can do. The distance from a driver's motion to the hull is what will be missing. A motion can be missing
because the scan never goes that far, or because the scan shows it only together with another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mystudio import engines
from mystudio.motion.attributes import CHANNELS, attributes
from mystudio.motion.retarget import frontal, neutral_faces, usable_frames
from mystudio.types import Avatar, Performance
from selfscan.types import Array

ENLARGED = 0.15  # of the hull, from its middle: an avatar goes a little further than its scan
LEAST = 0.7  # units: a smaller lack can hardly be seen
SHORTEST = 0.12  # s of a gap: two or three frames; a shorter one may be an error of measurement
PAUSE = 0.7  # s: spans of the same gap that are nearer to each other are one
MOST = 5  # gaps that are told in sentences
TOLD_SPANS = 3  # of a gap
SHUT = 0.45  # share of the neutral opening below which an eye is closed: its gaze is not known
COUNTED = tuple(name for name in CHANNELS if name != "roll")  # crops are aligned: they hold no roll
LIDS, GAZE, POSE = ("lid_right", "lid_left"), ("gaze_x", "gaze_y"), ("yaw", "pitch")
BOTH_LIDS = "lids"
HEAVY = 1e3  # weight of "the shares of the hull's corners add up to 1"

#: attribute and direction -> what the driver does, and what to record
WORDS: dict[tuple[str, int], tuple[str, str]] = {
    ("smile", 1): ("smiles wider", "record a broad smile"),
    ("smile", -1): ("draws the corners of the mouth lower", "record a sad mouth"),
    ("mouth_width", 1): ("stretches the mouth wider", "record a broad smile and a long 'ee'"),
    ("mouth_width", -1): ("purses the lips more", "record pursed lips, say 'oo'"),
    ("mouth_open", 1): ("opens the mouth wider", "record a wide open mouth"),
    ("mouth_open", -1): ("closes the mouth more", "record closed lips"),
    (BOTH_LIDS, 1): ("opens the eyes wider", "record wide open eyes"),
    (BOTH_LIDS, -1): ("closes the eyes more", "record slow blinks"),
    ("lid_right", 1): ("opens the right eye wider", "record wide open eyes"),
    ("lid_right", -1): ("closes the right eye more", "record a wink of each eye"),
    ("lid_left", 1): ("opens the left eye wider", "record wide open eyes"),
    ("lid_left", -1): ("closes the left eye more", "record a wink of each eye"),
    ("brows", 1): ("raises the brows higher", "record raised brows"),
    ("brows", -1): ("lowers the brows further", "record a frown"),
    ("frown", 1): ("frowns more", "record a frown"),
    ("frown", -1): ("relaxes the brows more", "record raised brows"),
    ("gaze_x", 1): ("looks further to the left", "look left with the eyes only"),
    ("gaze_x", -1): ("looks further to the right", "look right with the eyes only"),
    ("gaze_y", 1): ("looks higher", "look up with the eyes only"),
    ("gaze_y", -1): ("looks lower", "look down with the eyes only"),
    ("yaw", 1): ("turns the head further to the left", "turn the head further left"),
    ("yaw", -1): ("turns the head further to the right", "turn the head further right"),
    ("pitch", 1): ("lowers the chin further", "lower the chin"),
    ("pitch", -1): ("raises the chin further", "raise the chin"),
    ("jaw_side", 1): ("moves the jaw further to the left", "move the jaw to both sides"),
    ("jaw_side", -1): ("moves the jaw further to the right", "move the jaw to both sides"),
}


@dataclass(frozen=True)
class Span:
    """Frames of a gap."""

    start: float  # s
    end: float  # s
    missing: float  # units of the attribute, mean over these frames
    together: bool  # the scan goes that far, but never in this combination


@dataclass(frozen=True)
class Gap:
    """A motion of the driver that the avatar will not follow, or not the whole way."""

    name: str  # of the attribute; BOTH_LIDS for the two lids
    sign: int  # 1: more of it, -1: less
    spans: tuple[Span, ...]  # the largest first

    @property
    def size(self) -> float:
        """How much is missing for how long, units x s."""
        return sum(span.missing * (span.end - span.start) for span in self.spans)

    @property
    def sentence(self) -> str:
        """The gap in words, with what to record."""
        does, record = WORDS[self.name, self.sign]
        shown = sorted(self.spans[:TOLD_SPANS], key=lambda span: span.start)
        when = ", ".join(f"{span.start:.1f}-{span.end:.1f}" for span in shown)
        more = " and more often" if len(self.spans) > TOLD_SPANS else ""
        if all(span.together for span in self.spans):
            how = f"than in the scan in this pose and expression; {record}, alone and in other poses,"
        else:
            how = f"than in the scan; {record}"
        return f"{when} s{more}: the driver {does} {how} to get it"


@dataclass(frozen=True)
class Forecast:
    """What a driver wants of an avatar, and what the avatar can do, for each frame."""

    wanted: Array  # [T, C] in the order of COUNTED, in units of the attributes
    expected: Array  # [T, C] likewise
    usable: Array  # [T] bool
    times: Array  # [T] s
    lowest: Array  # [C] of the avatar's scan
    highest: Array  # [C]

    @property
    def missing(self) -> Array:
        """[T, C] units; 0 in frames without a face."""
        return np.where(self.usable[:, None], self.wanted - self.expected, 0.0)

    def gaps(self) -> list[Gap]:
        """The gaps, the largest first."""
        beyond = (self.wanted > self.highest) | (self.wanted < self.lowest)
        found = list[Gap]()
        for name, short in self._shown_apart().items():
            at = columns_of(name)
            for sign in (1, -1):
                if spans := self._spans(sign * short, beyond[:, at].any(1)):
                    found.append(Gap(name, sign, spans))
        return sorted(found, key=lambda gap: -gap.size)

    def sentences(self, most: int = MOST) -> list[str]:
        """The largest gaps in words; nothing if nothing is missing."""
        gaps = self.gaps()
        more = len(gaps) - most
        said = [gap.sentence for gap in gaps[:most]]
        return said + ([f"and {more} smaller gap{'s' * (more > 1)}"] if more > 0 else [])

    def _shown_apart(self) -> dict[str, Array]:
        """Name of a gap -> [T] units missing: both lids are one, and a turned head's jaw is none."""
        missing = dict(zip(COUNTED, self.missing.T))
        turned = np.max([abs(missing[name]) for name in POSE], 0) >= LEAST
        missing["jaw_side"] = np.where(turned, 0, missing["jaw_side"])  # hidden, and measured badly
        right, left = (missing[name] for name in LIDS)
        both = (right * left > 0) & (np.minimum(abs(right), abs(left)) >= LEAST / 2)
        missing |= {name: np.where(both, 0, missing[name]) for name in LIDS}
        return missing | {BOTH_LIDS: np.where(both, (right + left) / 2, 0)}

    def _spans(self, short: Array, beyond: Array) -> tuple[Span, ...]:
        rows = np.flatnonzero(short >= LEAST)
        step = float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.04
        spans = list[Span]()
        for part in np.split(rows, np.flatnonzero(np.diff(self.times[rows]) > PAUSE) + 1):
            if len(part) * step >= SHORTEST:
                start, end = float(self.times[part[0]]), float(self.times[part[-1]]) + step
                spans.append(Span(start, end, float(short[part].mean()), not beyond[part].any()))
        return tuple(sorted(spans, key=lambda span: -span.missing * (span.end - span.start)))


def columns_of(gap: str) -> list[int]:
    """Which of COUNTED the gap of this name is measured in: both lids, or one attribute."""
    return [COUNTED.index(name) for name in (LIDS if gap == BOTH_LIDS else (gap,))]


def foretell(avatar: Avatar, performance: Performance) -> Forecast | None:
    """What an avatar will not be able to follow; None if its engine does not say what the avatar was trained on."""
    faces = engines.shown(avatar)
    return None if faces is None else forecast(faces, avatar.neutral, performance)


def foretold(avatar: Avatar, performance: Performance, tell: Callable[[str], None]) -> Performance:
    """The performance, after ``tell`` has heard what the avatar will not be able to follow in it."""
    found = foretell(avatar, performance)
    for sentence in found.sentences() if found else ():
        tell(f"Forecast: {sentence}.")
    return performance


def forecast(faces: Tensor, neutral: Tensor, performance: Performance) -> Forecast:
    """Forecast what an avatar will not be able to follow.

    Args: faces: [N, 478, 3] landmarks of the images that the avatar was trained on. neutral: [478, 3] its neutral face;
        all in crops.
    """
    seen = performance.observation
    marks = torch.as_tensor(seen.landmarks, dtype=torch.float32)
    mine = frontal(neutral.cpu().float())
    wanted = torch.cat(
        [
            wanted_attributes(marks[shot], mine, frontal(face))
            for shot, face in zip(performance.shots, neutral_faces(performance))
        ]
    )
    shown = counted(faces.cpu().float())
    rest = counted(mine[None])[0]
    shown, wanted = (_without_hidden_gaze(values, rest).double().numpy() for values in (shown, wanted))
    return Forecast(
        wanted,
        reachable(shown, wanted),
        usable_frames(performance),
        np.asarray(seen.track.times),
        shown.min(0),
        shown.max(0),
    )


def counted(landmarks: Tensor) -> Tensor:
    """Attributes [T, C] of landmarks [T, 478, 3] in crops, in the order of COUNTED."""
    return attributes(landmarks)[:, [CHANNELS.index(name) for name in COUNTED]]


def wanted_attributes(driver: Tensor, neutral: Tensor, driver_neutral: Tensor) -> Tensor:
    """The driver's attributes transferred to the avatar, [T, C], by the rules of ``retarget.wanted_measures``.

    The head's pose and the mouth's gap are the driver's. An eye opens as far as the driver's, relative to its neutral
    opening. Other attributes are the avatar's neutral ones and the driver's change.

    Args: driver: [T, 478, 3]; neutral, driver_neutral: [478, 3] frontal neutral faces; all in crops.
    """
    own, theirs = counted(torch.stack([neutral, driver_neutral]))
    seen = counted(driver)
    wanted = own + seen - theirs
    for name in (*POSE, "mouth_open"):
        k = COUNTED.index(name)
        wanted[:, k] = seen[:, k]
    for name in LIDS:
        k = COUNTED.index(name)
        wanted[:, k] = seen[:, k] * own[k] / theirs[k].clamp_min(1e-3)
    return wanted


def reachable(shown: Array, wanted: Array) -> Array:
    """The points nearest to ``wanted`` [T, C] of the convex hull of ``shown`` [N, C], enlarged from its middle."""
    from scipy.optimize import nnls  # takes long to import, and only this needs it

    middle = (shown.min(0) + shown.max(0)) / 2
    corners = middle + (1 + ENLARGED) * (shown - middle)
    matrix = np.vstack([corners.T, np.full(len(corners), HEAVY)])
    return np.stack([corners.T @ nnls(matrix, np.append(point, HEAVY))[0] for point in wanted])


def _without_hidden_gaze(values: Tensor, rest: Tensor) -> Tensor:
    """Attributes [T, C] whose gaze is the neutral one where an eye is closed."""
    lids = [COUNTED.index(name) for name in LIDS]
    shut = (values[:, lids] < SHUT * rest[lids]).any(1)
    out = values.clone()
    for name in GAZE:
        k = COUNTED.index(name)
        out[shut, k] = rest[k]
    return out
