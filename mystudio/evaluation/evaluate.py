"""STAGE evaluate: measure a take and write the numbers, their definitions and pictures.

Everything is compared in the aligned crop at 256 px. The reference is the true result if there is one: the driving
clip itself in self-reenactment, or a clip of the avatar's person doing the same. Otherwise the reference is the
driver, and some metrics remove the shape of the driver's face first.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mystudio import engines
from mystudio.errors import StudioError
from mystudio.evaluation import observers, report, scorecard
from mystudio.evaluation.forecast import foretell
from mystudio.evaluation.side_by_side import measure_side_by_side
from mystudio.storage.manifest import versions
from mystudio.types import Avatar, Outcome, Performance, Progress, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints, Prefixed, once
from selfscan.face.measures import measures
from selfscan.face.observe import observe
from selfscan.io.pixels import to_uint8
from selfscan.scan import coverage_figure
from selfscan.types import Array, Observation, Scan

SAME = "same"  # as truth: the driving clip shows the avatar's own person


def evaluate(
    avatar: Avatar,
    take: Take,
    performance: Performance,
    out: str | Path,
    *,
    scan: Scan | None = None,
    truth: str | Path | None = None,
    identity_net: str | Path | None = None,
    blendshapes: str | Path | None = None,
    unedited: Take | None = None,
    edit_sheet: bytes | None = None,
    recipe: Mapping[str, Any] | None = None,
    batch: int = 8,
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> dict[str, Any]:
    """Measure a take; write ``metrics.json`` and a self-contained ``report.html``.

    Args:
        avatar, take, performance: the take to measure, its avatar and its driving performance.
        out: folder for the two files; created if missing.
        scan: reference for identity, sharpness and coverage.
        truth: video of the true result, or "same": the driving clip shows the avatar's own person.
        identity_net: ONNX file of an independent face network (``face_nets.IdentityNet``).
        blendshapes: MediaPipe's ``face_landmarker.task``, for the expression error in 52 weights.
        unedited: the take before its edits, shown in the strip of frames.
        edit_sheet: PNG or JPEG of the avatar's edits, for the report.
        recipe: resolved settings of all stages, for the report.
        batch: images per pass.
        progress: called with (stage, done, total).
        checkpoints: finished measurements of the same take and clips, which are read instead of measured.
    Returns: the content of ``metrics.json``: a row for each metric, per-frame values, warnings, versions.
    Raises:
        StudioError: the truth and the take differ in their number of frames.
    """
    true = _truth(truth, performance, len(take), progress, Prefixed(checkpoints, "truth."))
    case = scorecard.Case(avatar, take, performance.observation, true, scan, foretell(avatar, performance))
    nets = observers.EvaluationNets(identity_net, blendshapes, next(avatar.generator.parameters()).device)
    try:
        person = (
            dict(once(checkpoints, "scan", lambda: nets.measure_scan(scan.images, scan.landmarks, progress)))
            if scan
            else {}
        )
        columns = choose_columns(case.driver, take)
        seen, strip = measure_side_by_side(case, nets, person, columns, batch, progress, checkpoints)
    finally:
        nets.close()
    numbers = scorecard.scores(case, seen, person)
    numbers |= {"recipe": recipe, "versions": versions()}
    if unedited is not None:
        strip["edited"] = strip.pop("avatar")
        strip["avatar"] = _draw_frames(avatar, unedited, strip["index"])
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    report.write(out / "report.html", numbers, _page(case, seen, strip, edit_sheet))
    (out / "metrics.json").write_text(json.dumps(_finite(numbers), indent=1) + "\n", encoding="utf-8")
    return numbers


def choose_columns(observation: Observation, take: Take, count: int = 8) -> list[int]:
    """Choose frames for the strip: extremes of mouth, eyes and yaw, then frames far from those; ascending indices."""
    usable = np.flatnonzero(observation.track.valid & (take.outcome != Outcome.NO_FACE))
    usable = usable if len(usable) else np.arange(len(take))
    measured = measures(observation.landmarks)
    picks = (("mouth_open", np.argmax), ("eyes_open", np.argmin), ("yaw", np.argmin), ("yaw", np.argmax))
    chosen = [int(usable[pick(measured[name][usable])]) for name, pick in picks]
    while len(set(chosen)) < min(count, len(usable)):
        gaps = np.abs(usable[:, None] - np.array(chosen)[None]).min(1)
        chosen.append(int(usable[gaps.argmax()]))
    return sorted(set(chosen))


def _truth(
    truth, performance: Performance, count: int, progress: Progress, checkpoints: Checkpoints
) -> Observation | None:
    if truth is None or str(truth) == SAME:
        return performance.observation if truth else None
    seen = observe(truth, size=observers.SIZE, progress=progress, checkpoints=checkpoints)
    if len(seen) != count:
        raise StudioError(
            f"expected a truth video of {count} frames, as the take, got {len(seen)}; "
            "give the true result of the same driving clip"
        )
    return seen


@torch.inference_mode()
def _draw_frames(avatar: Avatar, take: Take, frames: list[int]) -> list[Array]:
    engine = engines.of(avatar)
    images = [avatar.generator.synthesize(engine.decode(avatar, take, slice(i, i + 1))) for i in frames]
    return [to_uint8(image.float())[0] for image in images]


def _page(case: scorecard.Case, seen: dict, strip: dict, edit_sheet: bytes | None) -> report.Page:
    columns = strip.pop("index")
    order = [name for name in ("driver", "avatar", "edited", "truth") if strip.get(name)]
    return report.Page(
        strip={name: strip[name] for name in order},
        strip_times=[float(case.take.times[i]) for i in columns],
        curves=scorecard.curves(case, seen),
        times=case.take.times,
        outcome=case.take.outcome,
        held_out=scorecard.held_out_of(case),
        cuts=np.array(case.driver.track.cut_spans).reshape(-1, 2),
        coverage=_coverage_png(case.scan) if case.scan else None,
        missing=case.scan.coverage.missing if case.scan else (),
        edit_sheet=edit_sheet,
    )


def _coverage_png(scan: Scan) -> bytes:
    buffer = io.BytesIO()
    coverage_figure.figure(scan.coverage, scan.frame_index).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _finite(value):
    """Replace NaN by None, because JSON has no NaN; null means "not measured"."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_finite(v) for v in value]
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value
