"""Turn per-frame measurements into the rows, warnings and curves of an evaluation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mystudio import engines
from mystudio.evaluation import metrics
from mystudio.evaluation.forecast import WORDS, Forecast, Gap, columns_of, counted
from mystudio.evaluation.report import Curve
from mystudio.evaluation.warnings import Case, sharpness_reference, warnings
from mystudio.types import TAKE_OUTCOMES, Avatar, Outcome
from selfscan.face import recognition
from selfscan.face.landmarks import KEYPOINT_PARTS, KEYPOINTS
from selfscan.face.measures import EXPRESSION_MEASURES, POSE_MEASURES
from selfscan.types import Observation, Scan

LOWER, HIGHER, NEAR_ONE = "lower is better", "higher is better", "1 is best"


@dataclass(frozen=True)
class Spec:
    """How a metric is displayed; its definition is the docstring of its function."""

    title: str
    unit: str
    better: str
    function: Callable
    digits: int = 2
    headline: bool = False


SPECS = {
    "likeness": Spec("Likeness", "", HIGHER, metrics.likeness, 2, True),
    "own_likeness": Spec("Likeness within the scan", "", "for comparison", metrics.own_likeness, 2),
    "likeness_driver": Spec("Driver's likeness to the person", "", "for comparison", metrics.likeness, 2),
    "identity": Spec("Identity", "cosine", HIGHER, metrics.csim, 3, True),
    "identity_share": Spec("Identity, share of own spread", "", NEAR_ONE, metrics.csim_share),
    "own_spread": Spec("Own spread of the scan", "cosine", "for comparison", metrics.own_spread, 3),
    "identity_driver": Spec("Identity of the driver", "cosine", "for comparison", metrics.csim, 3),
    "keypoints": Spec("Keypoint distance", "%", LOWER, metrics.keypoint_distance, 2, True),
    "keypoints_by_part": Spec("Keypoint distance by part", "%", LOWER, metrics.part_distance, 2, True),
    "pose": Spec("Pose error", "°", LOWER, metrics.pose_error, 2, True),
    "expression": Spec("Expression error", "", LOWER, metrics.expression_error, 3, True),
    "blendshapes": Spec("Blendshape error", "", LOWER, metrics.blendshape_error, 4),
    "gaze": Spec("Gaze error", "", LOWER, metrics.gaze_error, 3, True),
    "perceptual": Spec("Perceptual distance", "", LOWER, metrics.perceptual, 3, True),
    "psnr": Spec("PSNR", "dB", HIGHER, metrics.psnr, 2),
    "ssim": Spec("SSIM", "", HIGHER, metrics.ssim, 3),
    "sharpness": Spec("Mouth sharpness", "×", NEAR_ONE, metrics.sharpness, 2, True),
    "jitter": Spec("Jitter", "×", NEAR_ONE, metrics.jitter, 2, True),
    "flicker": Spec("Flicker of fine detail", "×", LOWER, metrics.flicker, 2, True),
    "head_motion": Spec("Range of head motion", "×", NEAR_ONE, metrics.dynamics),
    "expression_motion": Spec("Range of expressions", "×", NEAR_ONE, metrics.dynamics),
}


def scores(case: Case, seen: dict, person: dict) -> dict:
    """Turn measurements into the content of ``metrics.json``.

    Args:
        case: the take that is measured, with its avatar, clips and scan.
        seen: per-frame measurements of avatar, driver, truth, and of pairs of images.
        person: measurements of the scan's images; empty without a scan.
    Returns: rows, per-frame values, warnings and facts.
    """
    reference = seen.get("truth", seen["driver"])
    usable = case.driver.track.valid & (case.take.outcome != Outcome.NO_FACE)
    if case.truth is not None:
        usable = usable & case.truth.track.valid
    chosen = usable & _inside(case.take.times, held_out_of(case))
    chosen = chosen if chosen.any() else usable
    series = _series(case, seen, reference, person, usable)
    ratios = _ratios(seen, reference, person, case.driver.track.cuts)
    notes = _notes(case, seen, person)
    rows = []
    for name, spec in SPECS.items():
        if name in series or name in ratios or name in notes:
            rows.append(_row(name, spec, series.get(name), ratios.get(name), chosen, usable, notes.get(name, "")))
    frames = {outcome.word: int((case.take.outcome == outcome).sum()) for outcome in TAKE_OUTCOMES}
    return {
        "title": f"{case.scan.consent.name if case.scan else case.avatar.consent.name}, "
        f"driven by {Path(case.driver.video).name}",
        "summary": _summary(case, chosen, usable),
        "frames": {"total": len(case.take)} | frames,
        "cuts": [{"start": start, "end": end} for start, end in case.driver.track.cut_spans],
        "held_out_frames": int(chosen.sum()) if len(held_out_of(case)) else 0,
        "metrics": rows,
        "per_frame": {"times": case.take.times, "outcome": case.take.outcome, "usable": usable} | series,
        "warnings": warnings(case, seen, {row["name"]: row for row in rows}, usable),
        "facts": _facts(case, seen),
    }


def held_out_of(case: Case) -> np.ndarray:
    """Return the held-out seconds [M, 2] of the driving clip, in its times; none if no clip of the scan drives."""
    times, driver = case.driver.track.times, case.driver.video_sha256
    if case.scan is None or driver not in case.scan.consent.digests or not len(times):
        return np.zeros((0, 2))
    spans = case.scan.held_out + _later(case.scan, case.driver)
    return spans[(spans[:, 1] > times[0]) & (spans[:, 0] <= times[-1])]


def _later(scan: Scan, driver: Observation) -> float:
    """How much larger the times of a clip are in the driver than in the scan, s.

    A scan's times run through all its clips, and those of a part of a clip begin with the part.
    """
    clip = next((clip for clip in scan.clips if clip.video_sha256 == driver.video_sha256), None)
    if clip is None:  # an older version: one clip
        return 0.0
    if clip.begins is None:  # an older version: the part that drives counts as the scanned one
        return float(driver.track.times[0]) - clip.start
    return clip.begins - driver.span.start - clip.start


def _inside(times: np.ndarray, spans: np.ndarray) -> np.ndarray:
    return ((times[:, None] >= spans[:, 0]) & (times[:, None] < spans[:, 1])).any(1)


def _series(case: Case, seen: dict, reference: dict, person: dict, usable: np.ndarray) -> dict[str, np.ndarray]:
    ours, theirs = seen["avatar"]["landmarks"], reference["landmarks"]
    a, b = seen["avatar"]["measures"], reference["measures"]
    cross = case.truth is None and usable.any()
    if cross:  # two people differ at rest: compare changes from each person's median
        offsets = {name: np.median(a[name][usable]) - np.median(b[name][usable]) for name in a}
        a = {name: values - offsets[name] * (name not in POSE_MEASURES) for name, values in a.items()}
    angles = [np.stack([m[name] for name in POSE_MEASURES], -1) for m in (a, b)]
    series = dict(seen["pairs"])
    if cross:
        series["keypoints_by_part"] = metrics.part_distance(ours, theirs, KEYPOINT_PARTS, usable)
    else:
        series["keypoints"] = metrics.keypoint_distance(ours, theirs, KEYPOINTS)
    series["pose"] = metrics.pose_error(*angles)
    series["expression"] = metrics.expression_error(a, b)
    series["gaze"] = metrics.gaze_error(a, b)
    if "blendshapes" in seen["avatar"]:
        series["blendshapes"] = metrics.blendshape_error(seen["avatar"]["blendshapes"], reference["blendshapes"])
    if "likeness" in seen["avatar"]:
        series["likeness"], series["likeness_driver"] = (seen[name]["likeness"] for name in ("avatar", "driver"))
    if "identity" in person:
        series["identity"] = metrics.csim(seen["avatar"]["identity"], person["identity"])
        series["identity_driver"] = metrics.csim(seen["driver"]["identity"], person["identity"])
    own = person if person else reference
    series["sharpness"] = seen["avatar"]["sharpness"] / max(float(np.median(own["sharpness"])), 1e-9)
    return series


def _ratios(seen: dict, reference: dict, person: dict, cuts: np.ndarray) -> dict[str, Callable[[np.ndarray], float]]:
    ours, theirs = seen["avatar"]["landmarks"], reference["landmarks"]
    a, b = seen["avatar"]["measures"], reference["measures"]

    def swing(names):
        one, other = (np.stack([m[name] for name in names], -1) for m in (a, b))
        return lambda mask: metrics.dynamics(one, other, mask)

    steady = np.ones(len(ours), bool)  # the step across a cut is no jitter
    for first, last in cuts:
        steady[first : last + 1] = False

    ratios = {
        "jitter": lambda mask: metrics.jitter(ours, theirs, mask & steady),
        "flicker": lambda mask: metrics.flicker(seen["avatar"]["detail"], reference["detail"], mask & steady),
        "head_motion": swing(("yaw", "pitch")),
        "expression_motion": swing(EXPRESSION_MEASURES),
    }
    if "faces" in person:
        ratios["own_likeness"] = lambda mask: metrics.own_likeness(person["faces"])
    if "identity" in person:
        vectors = seen["avatar"]["identity"]
        ratios["own_spread"] = lambda mask: metrics.own_spread(person["identity"])
        ratios["identity_share"] = lambda mask: metrics.csim_share(vectors[mask], person["identity"])
    return ratios


def _notes(case: Case, seen: dict, person: dict) -> dict[str, str]:
    notes = {"sharpness": f"relative to the median of the {sharpness_reference(case)}"}
    if "faces" in person:
        notes["likeness"] = f"between the scan's own images {metrics.own_likeness(person['faces']):.2f}"
    else:
        reason = f"pip install {recognition.PACKAGES}" if person else "no scan was given"
        notes["likeness"] = f"not measured: {reason}"
    if "identity" in person:
        notes["identity"] = f"the person's own spread is {metrics.own_spread(person['identity']):.3f}"
    if case.truth is not None:
        notes["perceptual"] = seen["perceptual"]
        notes["keypoints"] = "over the 66 keypoints"
        return notes
    notes["expression"] = "against the driver's, as changes from each one's median"
    notes["gaze"] = "against the driver's, as changes from each one's median"
    notes["pose"] = "against the driver"
    if "blendshapes" in seen["avatar"]:
        notes["blendshapes"] = "against the driver"
    return notes


def _row(name: str, spec: Spec, values, ratio, chosen: np.ndarray, usable: np.ndarray, note: str) -> dict:
    row = {
        "name": name, "title": spec.title, "unit": spec.unit, "better": spec.better, "digits": spec.digits,
        "headline": spec.headline, "note": note, "definition": definition(spec.function),
        "value": math.nan, "all_frames": math.nan, "p5": None, "p95": None,
    }  # fmt: skip
    if ratio is not None:
        return row | {"value": ratio(chosen), "all_frames": ratio(usable)}
    if values is None:
        return row
    counted, everywhere = (values[mask & np.isfinite(values)] for mask in (chosen, usable))
    counted = counted if len(counted) else everywhere  # likeness is measured in some of the frames
    if len(counted):
        row |= {"value": float(counted.mean()), "p5": float(np.percentile(counted, 5))}
        row |= {"p95": float(np.percentile(counted, 95)), "all_frames": float(everywhere.mean())}
    return row


def definition(function: Callable) -> str:
    """Return a metric's definition: its docstring up to "Args:"."""
    return " ".join((inspect.getdoc(function) or "").split("Args:")[0].replace("``", "").split())


def _summary(case: Case, chosen: np.ndarray, usable: np.ndarray) -> str:
    against = "against the driver's motion"
    if case.truth is not None:
        against = "against its own frames" if case.truth is case.driver else f"against {Path(case.truth.video).name}"
    seconds = case.take.times[-1] - case.take.times[0] if len(case.take) else 0
    parts = [f"{len(case.take)} frames, {seconds:.1f} s, measured {against} on {usable.sum()} frames"]
    if len(held_out_of(case)):
        parts.append(f"the numbers are of the {chosen.sum()} held-out frames")
    return "; ".join(parts) + "."


def _described(avatar: Avatar) -> list[str]:
    return [f"{value} {name}" for name, value in engines.describe(avatar).items()]


def _facts(case: Case, seen: dict) -> dict[str, str]:
    consent = case.avatar.consent
    who = f"{consent.name}: this person does not exist" if consent.fictional else consent.name
    facts = {
        "person": who, "consent": f"{consent.statement} ({consent.when})", "driving clip": Path(case.driver.video).name,
        "engine": case.avatar.engine, "base": case.avatar.base_digest[:16],
        "generator": ", ".join([f"{case.avatar.generator.resolution} px", *_described(case.avatar)]),
        "perceptual metric": seen["perceptual"] or "not used",
    }  # fmt: skip
    if case.scan:
        facts["scan"] = f"{len(case.scan)} images, chosen by {case.scan.perceptual}"
        rejected = ", ".join(f"{reason} {count}" for reason, count in case.scan.rejects.items() if count)
        facts["frames rejected for the scan"] = rejected or "none"
    if case.take.edits:
        facts["edits"] = ", ".join(f"{e.name} {'keyframed' if e.keys else e.strength}" for e in case.take.edits)
    return facts


def curves(case: Case, seen: dict) -> list[Curve]:
    """Return the report's panels over time: losses, keypoint error, mouth, eyes, gaze, head, likeness."""
    reference, name = (seen["truth"], "truth") if "truth" in seen else (seen["driver"], "driver")
    usable = case.driver.track.valid & (case.take.outcome != Outcome.NO_FACE)
    series = _series(case, seen, reference, {}, usable)
    a, b = seen["avatar"]["measures"], reference["measures"]
    shown = []
    if case.take.losses:
        shown.append(Curve("Loss terms at the end of each frame", dict(case.take.losses), log=True))
    key = "keypoints" if "keypoints" in series else "keypoints_by_part"
    shown.append(Curve("Keypoint distance", {"avatar": series[key]}, "% of the eye distance"))
    for measure, title in (("mouth_open", "Mouth opening"), ("eyes_open", "Eye opening"), ("gaze_x", "Gaze sideways")):
        shown.append(Curve(title, {"avatar": a[measure], name: b[measure]}))
    if case.forecast and (gaps := case.forecast.gaps()):
        shown.append(_forecast_curve(case.forecast, gaps[0], ours=seen["avatar"]["landmarks"]))
    shown.append(Curve("Head turn", {"avatar": np.degrees(a["yaw"]), name: np.degrees(b["yaw"])}, "degrees"))
    return shown


def _forecast_curve(told: Forecast, gap: Gap, ours: np.ndarray) -> Curve:
    """What was expected to be missing of the motion with the largest gap, beside what is missing in the avatar."""
    at = columns_of(gap.name)
    happened = told.wanted - counted(torch.as_tensor(ours, dtype=torch.float32)).numpy()
    lines = {
        "forecast": gap.sign * told.missing[:, at].mean(1),
        "happened": np.where(told.usable, gap.sign * happened[:, at].mean(1), 0),
    }
    return Curve(f"The driver {WORDS[gap.name, gap.sign][0]} than in the scan: missing in the avatar", lines, "units")
