"""Coverage: which poses, expressions and gazes a clip contains, and instructions for what is missing."""

from __future__ import annotations

import numpy as np

from selfscan.face.measures import measures
from selfscan.types import Coverage, Observation, check_shape

PRESENT = 0.5  # minimum presence from the landmark network
NEEDED = 0.01  # minimum share of the frames: 0.2 s of a 20 s scan, one slow blink
CLOSED_EYES = 0.5  # eyes_open / its usual value in the clip; blinks fall to 0.2-0.4
USUAL_EYES = 75  # percentile of eyes_open taken as usual; blinks and downward looks are below it

#: name of a bin -> (measure, reference, low, high, instruction if it is missing); angles in degrees.
#: reference: "" = absolute, "usual" = relative to the clip's median. Left and right are the person's own.
BINS: dict[str, tuple[str, str, float, float, str]] = {
    "yaw front": ("yaw", "", -12, 12, "look straight into the camera"),
    "yaw left": ("yaw", "", 15, 30, "turn the head left"),
    "yaw far left": ("yaw", "", 30, 90, "turn further left"),
    "yaw right": ("yaw", "", -30, -15, "turn the head right"),
    "yaw far right": ("yaw", "", -90, -30, "turn further right"),
    "pitch up": ("pitch", "", -60, -10, "raise the chin"),
    "pitch down": ("pitch", "", 10, 60, "lower the chin"),
    "roll left": ("roll", "", -60, -8, ""),  # reported but never requested: the crop removes roll
    "roll right": ("roll", "", 8, 60, ""),
    "mouth closed": ("mouth_open", "", 0, 0.03, "close the mouth for a moment"),
    "mouth open": ("mouth_open", "", 0.08, 0.3, "speak a few sentences"),
    "mouth wide open": ("mouth_open", "", 0.3, 2, "open the mouth wide"),
    "smile": ("smile", "usual", 0.12, 2, "smile broadly"),
    "lips pursed": ("mouth_width", "usual", -1, -0.09, "purse the lips, say 'oo'"),
    "eyes closed": ("eyes_open", "", -1, CLOSED_EYES, "blink a few times"),  # eyes_open is relative: see _relative
    "eyes wide": ("eyes_open", "", 1.15, 9, "open the eyes wide"),
    "brows raised": ("brows", "usual", 0.04, 1, "raise the brows"),
    "brows lowered": ("brows", "usual", -1, -0.025, "frown"),
    "gaze left": ("gaze_x", "usual", 0.05, 1, "look left with the eyes only"),
    "gaze right": ("gaze_x", "usual", -1, -0.05, "look right with the eyes only"),
    "gaze up": ("gaze_y", "usual", 0.025, 1, "look up with the eyes only"),
    "gaze down": ("gaze_y", "usual", -1, -0.04, "look down with the eyes only"),
}


def eyes_closed(eyes_open: np.ndarray, use: np.ndarray | None = None) -> np.ndarray:
    """Frames with closed eyes, relative to the clip's usual opening.

    Args:
        eyes_open: [T] from ``measures``.
        use: [T] bool, frames that define what is usual; None = all.

    Returns:
        [T] bool.
    """
    return _relative_eyes(np.asarray(eyes_open), use) < CLOSED_EYES


def coverage(observation: Observation, use: np.ndarray | None = None) -> Coverage:
    """Measure which poses, expressions and gazes a clip contains, and what to record again.

    Args:
        observation: the clip.
        use: [T] bool, frames that count; None = all with a face.

    Returns:
        Measures of all T frames, shares of the counted frames, and instructions for what is missing.
    """
    use = np.ones(len(observation), bool) if use is None else np.asarray(use, bool)
    check_shape("use", use, (len(observation),))
    counted = use & observation.track.valid & (observation.presence >= PRESENT)
    measured = measures(observation.landmarks, observation.track.pose)
    share = shares(measured, counted)
    return Coverage(measured, share, missing(share))


def missing(share: dict[str, float]) -> tuple[str, ...]:
    """Instructions for the bins of ``shares`` that contain too few frames."""
    lacking = {name for name in BINS if share[name] < NEEDED}
    asked = [name for name in BINS if name in lacking and name.replace("far ", "") not in lacking - {name}]
    return tuple(BINS[name][-1] for name in asked if BINS[name][-1])


def shares(measured: dict[str, np.ndarray], use: np.ndarray) -> dict[str, float]:
    """Share of the frames in each bin; for gaze, of the frames with open eyes.

    Args:
        measured: name -> [T] from ``measures``.
        use: [T] bool, frames that count.

    Returns:
        Name of a bin -> 0..1; all 0 if no frame counts.
    """
    if not use.any():
        return {name: 0.0 for name in BINS}
    looking = use & ~eyes_closed(measured["eyes_open"], use)
    out = {}
    for name, (measure, reference, low, high, _) in BINS.items():
        counted = looking if measure.startswith("gaze") else use
        values = _in_bin_units(measured, measure, reference, counted)[counted]
        out[name] = float(((values >= low) & (values < high)).mean()) if counted.any() else 0.0
    return out


def _in_bin_units(measured: dict[str, np.ndarray], measure: str, reference: str, use: np.ndarray) -> np.ndarray:
    values = measured[measure]
    if measure in ("yaw", "pitch", "roll"):
        values = np.degrees(values)
    if measure == "eyes_open":
        values = _relative_eyes(values, use)
    return values - np.median(values[use]) if reference == "usual" and use.any() else values


def _relative_eyes(eyes_open: np.ndarray, use: np.ndarray | None) -> np.ndarray:
    counted = eyes_open if use is None else eyes_open[use]
    return eyes_open / max(np.percentile(counted, USUAL_EYES), 1e-6) if len(counted) else np.ones_like(eyes_open)
