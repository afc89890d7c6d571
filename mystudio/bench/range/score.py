"""How far an avatar follows single motions: errors at their height, slopes, and the share of a gap that is closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from selfscan.types import Array

#: motion of ``actors.exercise`` -> the measures that it moves
OWN: Mapping[str, tuple[str, ...]] = {
    "smile": ("smile",),
    "open mouth": ("mouth_open",),
    "closed eyes": ("lid_left", "lid_right"),
    "left wink": ("wink",),
    "right wink": ("wink",),
    "raised brows": ("brow_left", "brow_right"),
    "lowered brows": ("brow_left", "brow_right"),
    "left brow": ("one_brow",),
    "right brow": ("one_brow",),
    "gaze left": ("gaze_left_x", "gaze_right_x"),
    "gaze right": ("gaze_left_x", "gaze_right_x"),
    "head left": ("yaw",),
    "head right": ("yaw",),
}
SIDED = ("lid_left", "lid_right", "brow_left", "brow_right")
GAZES = ("gaze_left_x", "gaze_right_x")
OPEN = 0.12  # lids of an eye whose gaze is measured
HIGHER = ("range", "likeness", "identity")  # values of which more is better, up to the full scan's
CLEAR = 0.1  # least difference of full scan and floor, as a share of the larger one, that counts as a gap
FACING = np.radians(15.0)  # yaw up to which lids, brows and gaze of a scan are compared


def slope(made: Array, truth: Array) -> float:
    """How far a measure moves for one unit of the truth's: 1 = as far, 0 = not at all; nan where the truth is still.

    Least squares over the frames of a motion [N], with a constant: an avatar whose neutral face differs loses nothing.
    """
    away = truth - truth.mean()
    spread = float((away * away).sum())
    return float((away * (made - made.mean())).sum()) / spread if spread > 1e-12 else float("nan")


def motion_values(
    name: str, made: Mapping[str, Array], truth: Mapping[str, Array], span: slice, height: Array, rest: Array
) -> dict[str, float]:
    """Values of an avatar in one motion.

    Args:
        name: of the motion. made, truth: measures (``sides.sided``) of the avatar and of the true frames, [T] each.
        span, height, rest: frames of the motion, of its height, and without any motion.
    Returns:
        ``range``: mean slope of the motion's own measures. ``missed``: their distance from the truth at the height, in
        % of the truth's change from rest. ``gaze`` of open eyes and each of SIDED: mean distance at the height.
    """
    values, own = dict[str, float](), OWN[name]
    values["range"] = float(np.mean([slope(made[m][span], truth[m][span]) for m in own]))
    change = np.mean([abs(truth[m][height].mean() - truth[m][rest].mean()) for m in own])
    values["missed"] = float(100 * np.mean([distance(made[m], truth[m], height) for m in own]) / max(change, 1e-9))
    values |= {m: distance(made[m], truth[m], height) for m in SIDED}
    eyes = [height[truth[m.replace("gaze", "lid").removesuffix("_x")][height] > OPEN] for m in GAZES]
    seen = [np.abs(made[m] - truth[m])[frames] for m, frames in zip(GAZES, eyes)]
    values["gaze"] = float(np.concatenate(seen).mean()) if sum(map(len, seen)) else float("nan")
    return values


def distance(made: Array, truth: Array, frames: Array) -> float:
    """Mean distance of a measure from the truth's in some frames."""
    return float(np.abs(made - truth)[frames].mean())


def seen_change(name: str, truth: Mapping[str, Array], level: Array, span: slice, rest: Array) -> dict[str, float]:
    """What the measures see of a motion in the true frames.

    Args: level: [N] height of the motion in the frames of ``span``, 0..1.
    Returns: means over the motion's own measures: ``change`` from rest to full height by a line through the span;
        ``noise``: standard deviation at rest; ``correlation`` with the level, its size.
    """
    parts = [truth[m] for m in OWN[name]]
    return {
        "change": float(np.mean([slope(part[span], level) for part in parts])),
        "noise": float(np.mean([part[rest].std() for part in parts])),
        "correlation": float(np.mean([abs(np.corrcoef(part[span], level)[0, 1]) for part in parts])),
    }


def shown(needs: Sequence[str], measured: Mapping[str, Array]) -> float:
    """How far a scan shows some motions: 98th minus 2nd percentile of their own measures over its clip, their mean.

    Lids, brows and gaze count where the head faces the camera: the far side of a turned head is measured badly.
    Returns: NaN if no frame faces the camera.
    """
    facing = np.abs(measured["yaw"]) < FACING
    if not facing.any():
        return float("nan")
    names = sorted({m for need in needs for m in OWN[need]})
    ends = [np.percentile(measured[m][facing | (m == "yaw")], (2, 98)) for m in names]
    return float(np.mean([high - low for low, high in ends]))


def combined(motions: Mapping[str, Mapping[str, float | None]], needs: Sequence[str]) -> dict[str, float | None]:
    """Mean of each value over some motions; None where none of them has it."""
    found = dict[str, float | None]()
    for name in motions[needs[0]]:
        values = [value for need in needs if (value := motions[need].get(name)) is not None]
        found[name] = float(np.mean(values)) if values else None
    return found


def closed(
    floor: Mapping[str, float | None], now: Mapping[str, float | None], ceiling: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Share of the gap between floor and ceiling that is closed, % by value: 0 = nothing, 100 = as the full scan.

    None where the full scan is not clearly better than the floor, so that there is no gap to close.
    """
    found = dict[str, float | None]()
    for name, low in floor.items():
        here, high = now.get(name), ceiling.get(name)
        if low is None or here is None or high is None:
            continue
        gap = (high - low) * (1 if name in HIGHER else -1)
        clear = gap > CLEAR * max(abs(low), abs(high))
        found[name] = 100 * (here - low) / (high - low) if clear else None
    return found
