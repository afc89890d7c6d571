"""STAGE evaluate: how good a take is, in numbers with their definitions and in pictures.

Everything is compared in the aligned crop at 256 px. What the avatar should show is the truth where there is one (the
driving clip itself in self-reenactment, or a clip of the avatar's person doing the same), else the driver, with what
belongs to the driver's own face taken out where the metric says so.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import selfscan.checkpoints
from mystudio import engines
from mystudio.errors import StudioError
from mystudio.evaluation import metrics, observers, report, scorecard
from mystudio.rendering.render import enlarge, synthesize
from mystudio.storage.manifest import versions
from mystudio.types import Avatar, Outcome, Performance, Progress, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, Prefixed, in_chunks, once
from selfscan.face.observe import iter_crops, observe
from selfscan.io.pixels import to_tensor, to_uint8
from selfscan.perceptual.metric import load_perceptual
from selfscan.scan import coverage_figure
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
    checkpoints: Checkpoints = NO_CHECKPOINTS,
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
        checkpoints: what was measured before, of the same take and clips, is not measured again.
    Returns: what ``metrics.json`` holds: a row for each metric, per-frame values, warnings, versions.
    Raises:
        StudioError: the truth has another number of frames than the take.
    """
    true = _truth(truth, performance, len(take), progress, Prefixed(checkpoints, "truth."))
    case = scorecard.Case(avatar, take, performance.observation, true, scan)
    nets = observers.EvaluationNets(identity_net, blendshapes, next(avatar.generator.parameters()).device)
    try:
        person = (
            dict(once(checkpoints, "person", lambda: nets.measure_scan(scan.images, scan.landmarks, progress)))
            if scan
            else {}
        )
        seen, strip = _watch(case, nets, person, choose_columns(case.driver, take), batch, progress, checkpoints)
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
    """Frames that show a take well: its extremes of mouth, eyes and yaw, the rest far from those; in order of time."""
    usable = np.flatnonzero(observation.track.valid & (take.outcome != Outcome.NO_FACE))
    usable = usable if len(usable) else np.arange(len(take))
    measures = observers.measures(observation.landmarks)
    picks = (("mouth_open", np.argmax), ("eyes_open", np.argmin), ("yaw", np.argmin), ("yaw", np.argmax))
    chosen = [int(usable[pick(measures[name][usable])]) for name, pick in picks]
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


def _watch(
    case: scorecard.Case,
    nets: observers.EvaluationNets,
    person: dict,
    columns: list[int],
    batch: int,
    progress: Progress,
    checkpoints: Checkpoints,
):
    """One pass over avatar, driver and truth side by side, in constant memory but for a few numbers a frame."""
    same = case.truth is case.driver
    clips = {"driver": case.driver} | ({"truth": case.truth} if case.truth is not None and not same else {})
    compare = _Comparison(case.scan, case.truth is not None, nets, person, checkpoints)
    batch = math.gcd(batch, selfscan.checkpoints.CHUNK)  # whoever goes on at a chunk's end draws the same batches

    def work(chunk: np.ndarray, pictures: Iterator[dict[str, np.ndarray]]) -> Arrays:
        rows, strip, start = [], [], int(chunk[0])
        while some := list(islice(pictures, batch)):
            shown = {name: np.stack([one[name] for one in some]) for name in some[0]}
            span = slice(start, start + len(some))
            row = {"avatar": nets.measure(shown["avatar"])}
            row |= {name: nets.measure_at(shown[name], seen.landmarks[span]) for name, seen in clips.items()}
            truth = shown["driver" if same else "truth"] if case.truth else None
            row["pairs"] = compare(shown["avatar"], truth)
            rows.append({f"{name}.{key}": value for name, part in row.items() for key, value in part.items()})
            strip += [one for index, one in enumerate(some, start) if index in columns]
            start = span.stop
            progress("evaluate", start, len(case.take))
        kept = {f"strip.{name}": np.stack([one[name] for one in strip]) for name in strip[0]} if strip else {}
        return observers.join(rows) | kept

    parts = [
        found
        for _, found in in_chunks(
            checkpoints,
            f"watch.{compare.name}.",
            range(len(case.take)),
            lambda start: _side_by_side(case, clips, batch, start),
            work,
            lambda done: progress("evaluate", done, len(case.take)),
        )
    ]
    seen: dict[str, Any] = {name: {} for name in ("avatar", "pairs", *clips)}
    strip: dict[str, list] = {name: [] for name in ("driver", "avatar", *clips)}
    for name in dict.fromkeys(name for part in parts for name in part):
        group, key = name.split(".", 1)
        rows = [part[name] for part in parts if name in part]
        if group == "strip":
            strip[key] = [picture for row in rows for picture in row]
        else:
            seen[group][key] = np.concatenate(rows)
    for name in ("avatar", *clips):
        seen[name]["landmarks"] = clips[name].landmarks if name in clips else seen[name]["landmarks"]
        seen[name]["measures"] = observers.measures(seen[name]["landmarks"])
    if same:
        seen["truth"] = seen["driver"]
    seen["perceptual"] = compare.name
    return seen, strip | {"index": columns}


def _side_by_side(
    case: scorecard.Case, clips: dict[str, Observation], batch: int, start: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Frame index and, of avatar and clips, the picture [SIZE, SIZE, 3]."""
    crops = {name: iter_crops(seen, observers.SIZE, start) for name, seen in clips.items()}
    drawn = (image for images in synthesize(case.avatar, case.take, batch, start) for image in to_uint8(images))
    for index, image in enumerate(drawn, start):
        yield index, {"avatar": enlarge(image, observers.SIZE)} | {name: next(clip)[1] for name, clip in crops.items()}


class _Comparison:
    """Image-to-image metrics of a batch."""

    def __init__(
        self, scan: Scan | None, has_truth: bool, nets: observers.EvaluationNets, person: dict, checkpoints: Checkpoints
    ):
        stand_in = scan if nets.identity is None else None
        metric = self._metric = load_perceptual().to(nets.device) if has_truth or stand_in is not None else None
        self.name = metric.name if metric else ""
        self._device, self._scan = nets.device, None
        if metric is not None and stand_in is not None:
            images = [enlarge(image, observers.SIZE) for image in stand_in.images[person["chosen"]]]
            own = once(
                checkpoints,
                f"own.{self.name}",
                lambda: {"rows": metric.embed_images(np.stack(images), dims=SKETCH)},
            )
            self._scan = torch.from_numpy(own["rows"]).to(nets.device)
            person["nearest"] = _nearest_of_own(self._scan)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, truth: np.ndarray | None) -> dict[str, np.ndarray]:
        x, values = to_tensor(images, self._device), {}
        if self._metric is not None and self._scan is not None:
            values["nearest"] = metrics.nearest(self._metric.embed(x, SKETCH), self._scan)
        if self._metric is not None and truth is not None:
            y = to_tensor(truth, self._device)
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


def _page(case: scorecard.Case, seen: dict, strip: dict, edit_sheet: bytes | None) -> report.Page:
    columns = strip.pop("index")
    order = [name for name in ("driver", "avatar", "edited", "truth") if strip.get(name)]
    return report.Page(
        strip={name: strip[name] for name in order},
        strip_times=[float(case.take.times[i]) for i in columns],
        curves=scorecard.curves(case, seen),
        times=case.take.times,
        outcome=case.take.outcome,
        held_out=scorecard.held_out_spans(case),
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
