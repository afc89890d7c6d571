"""One pass over avatar, driver and truth side by side; only a few numbers per frame are kept in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch

import selfscan.checkpoints
from mystudio.evaluation import metrics, observers
from mystudio.evaluation.warnings import Case
from mystudio.rendering.render import enlarge, synthesize
from mystudio.types import Progress
from selfscan.checkpoints import Arrays, Checkpoints, in_chunks
from selfscan.face.measures import measures
from selfscan.face.observe import iter_crops
from selfscan.io.pixels import to_tensor, to_uint8
from selfscan.perceptual.metric import load_perceptual
from selfscan.types import Observation

Pictures = Mapping[str, np.ndarray]  # "avatar" and name of a clip -> [SIZE, SIZE, 3] uint8, or [n, ...] of a batch


def measure_side_by_side(
    case: Case,
    nets: observers.EvaluationNets,
    person: dict,
    columns: list[int],
    batch: int,
    progress: Progress,
    checkpoints: Checkpoints,
) -> tuple[dict[str, Any], dict[str, list]]:
    """Draw the avatar, read the clips beside it, and measure all of them frame by frame.

    Args:
        case: the take and its clips. nets: the measuring networks. person: measurements of the scan.
        columns: frames whose pictures are kept for the report. batch: images per pass.
        progress: called with (stage, done, total). checkpoints: finished chunks, which are not measured again.
    Returns:
        Measurements: "avatar", "driver", "truth" and "pairs" -> name -> [T, ...], "perceptual" -> the metric's name.
        Pictures of the columns: "avatar" and each clip -> images, "index" -> the columns.
    """
    clips = _clips(case)
    compare = Comparison(case, nets)
    batch = math.gcd(batch, selfscan.checkpoints.CHUNK)  # a resumed run then draws the same batches

    def work(chunk: np.ndarray, pictures: Iterator[Pictures]) -> Arrays:
        rows, kept, start = [], [], int(chunk[0])
        while some := list(islice(pictures, batch)):
            shown = {name: np.stack([one[name] for one in some]) for name in some[0]}
            rows.append(_measure(shown, start, clips, nets, compare, person.get("faces")))
            kept += [one for index, one in enumerate(some, start) if index in columns]
            start += len(some)
            progress("evaluate", start, len(case.take))
        strip = {f"strip.{name}": np.stack([one[name] for one in kept]) for name in kept[0]} if kept else {}
        return observers.join(rows) | strip

    chunks = in_chunks(
        checkpoints,
        f"sides.detail.{compare.name}.",  # a new name where more is measured: chunks of earlier versions lack it
        range(len(case.take)),
        lambda start: _pictures(case, clips, batch, start),
        work,
        lambda done: progress("evaluate", done, len(case.take)),
    )
    seen, strip = _merged([found for _, found in chunks], clips)
    if case.truth is case.driver:
        seen["truth"] = seen["driver"]
    return seen | {"perceptual": compare.name}, strip | {"index": columns}


def _clips(case: Case) -> dict[str, Observation]:
    """Return the clips to read; the truth is included only if it is not the driving clip."""
    clips = {"driver": case.driver}
    return clips if case.truth is None or case.truth is case.driver else clips | {"truth": case.truth}


def _measure(
    shown: Pictures,
    start: int,
    clips: Mapping[str, Observation],
    nets: observers.EvaluationNets,
    compare: Comparison,
    faces: np.ndarray | None,
) -> Arrays:
    """Measure a batch that begins at frame ``start``; returns GROUP.NAME -> [n, ...]."""
    span = slice(start, start + len(shown["avatar"]))
    row = {"avatar": nets.measure(shown["avatar"])}
    row |= {name: nets.measure_at(shown[name], seen.landmarks[span]) for name, seen in clips.items()}
    if faces is not None:
        count = len(clips["driver"])
        wanted = np.arange(count)[span] % -(-count // observers.FACES) == 0
        for name, marks in (("avatar", row["avatar"]["landmarks"]), ("driver", clips["driver"].landmarks[span])):
            row[name]["likeness"] = nets.likeness(shown[name], marks, faces, wanted)
    row["pairs"] = compare(shown)
    return {f"{group}.{name}": value for group, part in row.items() for name, value in part.items()}


def _merged(parts: list[Arrays], clips: Mapping[str, Observation]) -> tuple[dict[str, Any], dict[str, list]]:
    """Join the chunks: measurements by group and name, and the pictures of the columns."""
    seen: dict[str, Any] = {group: {} for group in ("avatar", "pairs", *clips)}
    strip: dict[str, list] = {name: [] for name in ("avatar", *clips)}
    for key in dict.fromkeys(key for part in parts for key in part):
        group, name = key.split(".", 1)
        rows = [part[key] for part in parts if key in part]
        if group == "strip":
            strip[name] = [picture for row in rows for picture in row]
        else:
            seen[group][name] = np.concatenate(rows)
    for name, clip in clips.items():
        seen[name]["landmarks"] = clip.landmarks
    for name in ("avatar", *clips):
        seen[name]["measures"] = measures(seen[name]["landmarks"])
    return seen, strip


def _pictures(case: Case, clips: dict[str, Observation], batch: int, start: int) -> Iterator[tuple[int, Pictures]]:
    """Yield each frame's index and the pictures [SIZE, SIZE, 3] of avatar and clips."""
    crops = {name: iter_crops(seen, observers.SIZE, start) for name, seen in clips.items()}
    drawn = (image for images in synthesize(case.avatar, case.take, batch, start) for image in to_uint8(images))
    for index, image in enumerate(drawn, start):
        yield index, {"avatar": enlarge(image, observers.SIZE)} | {name: next(clip)[1] for name, clip in crops.items()}


class Comparison:
    """Computes the image-to-image metrics of a batch, if there is a truth."""

    def __init__(self, case: Case, nets: observers.EvaluationNets):
        self._truth = "" if case.truth is None else "driver" if case.truth is case.driver else "truth"
        self._metric = load_perceptual().to(nets.device) if self._truth else None
        self.name = self._metric.name if self._metric else ""
        self._device = nets.device

    @torch.inference_mode()
    def __call__(self, shown: Pictures) -> dict[str, np.ndarray]:
        """Measure a batch of the avatar's pictures against the truth's; name -> [n]."""
        if self._metric is None:
            return {}
        x, y = (to_tensor(shown[name], self._device) for name in ("avatar", self._truth))
        values = {"psnr": metrics.psnr(x, y), "ssim": metrics.ssim(x, y)}
        values["perceptual"] = metrics.perceptual(self._metric.distance, x, y)
        return {name: value.cpu().numpy() for name, value in values.items()}
