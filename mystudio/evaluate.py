"""STAGE evaluate: how good a take is, in numbers with their definitions and in pictures.

Everything is compared in the aligned crop at 256 px. What the avatar should show is the truth where there is one (the
driving clip itself in self-reenactment, or a clip of the avatar's person doing the same), else the driver, with what
belongs to the driver's own face taken out where the metric says so.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from mystudio import engines, look, metrics, report, tally
from mystudio.errors import StudioError
from mystudio.manifest import versions
from mystudio.render import NO_FACE, enlarge, synthesize, to_uint8
from mystudio.types import Avatar, Performance, Progress, Take, silent
from selfscan import coverage_figure
from selfscan.observe import iter_crops, observe
from selfscan.perceptual import load_perceptual
from selfscan.types import Observation, Scan

SAME = "same"  # as truth: the driving clip shows the avatar's own person
SKETCH = 4096  # numbers an embedding is squeezed into for the nearest scan image: 2 % standard error


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
    recipe: Mapping | None = None,
    batch: int = 8,
    progress: Progress = silent,
) -> dict:
    """Measure a take; write ``metrics.json`` and a self-contained ``report.html``.

    Args:
        avatar, take, performance: what is judged.
        out: folder for the two files; made when missing.
        scan: identity, sharpness and coverage are measured against it.
        truth: video of the true result, or "same": the driving clip shows the avatar's own person.
        identity_net: ONNX file of an independent face network (``metrics.IdentityNet``).
        blendshapes: MediaPipe's ``face_landmarker.task``, for the expression error in 52 weights.
        unedited: the take before its edits, for the strip of frames.
        edit_sheet: PNG or JPEG of the avatar's edits, for the report.
        recipe: resolved settings of all stages, for the report.
        batch: images a pass.
        progress: told as frames are measured.
    Returns: what ``metrics.json`` holds: a row for each metric, per-frame values, warnings, versions.
    Raises:
        StudioError: the truth has another number of frames than the take.
    """
    case = tally.Case(avatar, take, performance.observation, _truth(truth, performance, len(take), progress), scan)
    looker = look.Looker(identity_net, blendshapes, next(avatar.generator.parameters()).device)
    try:
        person = looker.look_at_scan(scan.images, scan.landmarks, progress) if scan else {}
        seen, strip = _watch(case, looker, person, choose_columns(case.driver, take), batch, progress)
    finally:
        looker.close()
    numbers = tally.tally(case, seen, person)
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
    """Frames that show a take well: its extremes of mouth, eyes and yaw, the rest far from those; in order of time."""
    usable = np.flatnonzero(observation.track.valid & (take.outcome != NO_FACE))
    usable = usable if len(usable) else np.arange(len(take))
    measures = look.measures(observation.landmarks)
    picks = (("mouth_open", np.argmax), ("eyes_open", np.argmin), ("yaw", np.argmin), ("yaw", np.argmax))
    chosen = [int(usable[pick(measures[name][usable])]) for name, pick in picks]
    while len(set(chosen)) < min(count, len(usable)):
        gaps = np.abs(usable[:, None] - np.array(chosen)[None]).min(1)
        chosen.append(int(usable[gaps.argmax()]))
    return sorted(set(chosen))


def _truth(truth, performance: Performance, count: int, progress: Progress) -> Observation | None:
    if truth is None or str(truth) == SAME:
        return performance.observation if truth else None
    seen = observe(truth, size=look.SIZE, progress=progress)
    if len(seen) != count:
        raise StudioError(
            f"expected a truth video of {count} frames, as the take, got {len(seen)}; "
            "give the true result of the same driving clip"
        )
    return seen


def _watch(case: tally.Case, looker: look.Looker, person: dict, columns: list[int], batch: int, progress: Progress):
    """One pass over avatar, driver and truth side by side, in constant memory but for a few numbers a frame."""
    same = case.truth is case.driver
    clips = {"driver": iter_crops(case.driver, look.SIZE)}
    if case.truth is not None and not same:
        clips["truth"] = iter_crops(case.truth, look.SIZE)
    observations = {"driver": case.driver, "truth": case.truth}
    compare = _Comparison(case.scan, case.truth is not None, looker, person)
    rows: dict[str, list] = {"avatar": [], "pairs": []} | {name: [] for name in clips}
    strip: dict[str, list] = {name: [] for name in ("driver", "avatar")} | {name: [] for name in clips}
    start = 0
    for images in synthesize(case.avatar, case.take, batch):
        shown = {"avatar": np.stack([enlarge(image, look.SIZE) for image in to_uint8(images)])}
        shown |= {name: look.take_crops(crops, len(images)) for name, crops in clips.items()}
        span = slice(start, start + len(images))
        rows["avatar"].append(looker.look(shown["avatar"]))
        for name in clips:
            rows[name].append(looker.look_again(shown[name], observations[name].landmarks[span]))
        rows["pairs"].append(compare(shown["avatar"], shown["driver" if same else "truth"] if case.truth else None))
        for name, pictures in shown.items():
            strip[name] += [pictures[i - start] for i in columns if start <= i < span.stop]
        start = span.stop
        progress("evaluate", start, len(case.take))
    seen = {name: look.join(parts) for name, parts in rows.items()}
    for name in clips:
        seen[name]["landmarks"] = observations[name].landmarks
    for name in ("avatar", *clips):
        seen[name]["measures"] = look.measures(seen[name]["landmarks"])
    if same:
        seen["truth"] = seen["driver"]
    seen["perceptual"] = compare.name
    return seen, strip | {"index": columns}


class _Comparison:
    """Image-to-image metrics of a batch."""

    def __init__(self, scan: Scan | None, has_truth: bool, looker: look.Looker, person: dict):
        stand_in = scan is not None and looker.identity is None
        self._metric = load_perceptual() if has_truth or stand_in else None
        self.name = self._metric.name if self._metric else ""
        self._scan = None
        if stand_in:
            images = [enlarge(image, look.SIZE) for image in scan.images[person["chosen"]]]
            self._scan = torch.from_numpy(self._metric.embed_images(np.stack(images), dims=SKETCH))
            person["nearest"] = _nearest_of_own(self._scan)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, truth: np.ndarray | None) -> dict[str, np.ndarray]:
        x, values = look.to_tensor(images), {}
        if self._scan is not None:
            values["nearest"] = metrics.nearest(self._metric.embed(x, SKETCH), self._scan)
        if truth is not None:
            y = look.to_tensor(truth)
            values |= {"psnr": metrics.psnr(x, y), "ssim": metrics.ssim(x, y)}
            values["perceptual"] = metrics.perceptual(self._metric.distance, x, y)
        return {name: value.cpu().numpy() for name, value in values.items()}


def _nearest_of_own(embeddings: torch.Tensor) -> float:
    gaps = torch.cdist(embeddings, embeddings).square().fill_diagonal_(math.inf)
    return float(gaps.amin(1).mean()) if len(embeddings) > 1 else math.nan


@torch.inference_mode()
def _draw_frames(avatar: Avatar, take: Take, frames: list[int]) -> list[np.ndarray]:
    engine = engines.named(avatar.engine)
    images = [avatar.generator.synthesize(engine.decode(avatar, take, slice(i, i + 1))) for i in frames]
    return [to_uint8(image.float())[0] for image in images]


def _page(case: tally.Case, seen: dict, strip: dict, edit_sheet: bytes | None) -> report.Page:
    columns = strip.pop("index")
    order = [name for name in ("driver", "avatar", "edited", "truth") if strip.get(name)]
    return report.Page(
        strip={name: strip[name] for name in order},
        strip_times=[float(case.take.times[i]) for i in columns],
        curves=tally.curves(case, seen),
        times=case.take.times,
        outcome=case.take.outcome,
        held_out=tally.held_out_spans(case),
        coverage=_coverage_png(case.scan) if case.scan else None,
        missing=case.scan.coverage.missing if case.scan else (),
        edit_sheet=edit_sheet,
    )


def _coverage_png(scan: Scan) -> bytes:
    buffer = io.BytesIO()
    coverage_figure.figure(scan.coverage, scan.frame_index).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _finite(value):
    """JSON knows no NaN: what was not measured is null."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_finite(v) for v in value]
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value
