"""Measurements in addition to the evaluation: jitter within shots, and any pictures against the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from mystudio.bench.clips import cuts
from mystudio.compute.device import choose
from mystudio.evaluation import metrics, observers
from mystudio.rendering.render import enlarge, synthesize
from mystudio.types import Avatar, Take
from selfscan.face.landmarks import KEYPOINTS
from selfscan.face.measures import POSE_MEASURES, measures
from selfscan.face.observe import iter_crops
from selfscan.io.pixels import to_tensor, to_uint8
from selfscan.types import Observation


def pictures(
    avatar: Avatar, take: Take, frames: Sequence[int] | np.ndarray | None = None, device: str = "cpu"
) -> np.ndarray:
    """Draw some frames of a take at the evaluation's size, [F, 256, 256, 3] uint8."""
    rows = np.arange(len(take)) if frames is None else np.asarray(frames)
    codes = {name: values[rows] for name, values in take.codes.items()}
    some = replace(take, codes=codes, outcome=take.outcome[rows], times=take.times[rows], losses={})
    avatar = replace(avatar, generator=avatar.generator.to(choose(device)))
    return np.concatenate([at_evaluation_size(to_uint8(images)) for images in synthesize(avatar, some)])


def at_evaluation_size(images: np.ndarray) -> np.ndarray:
    """Resize images [N, H, H, 3] uint8 to the evaluation's size, [N, 256, 256, 3]."""
    return np.stack([enlarge(image, observers.SIZE) for image in images])


def crops(seen: Observation, frames: Sequence[int] | np.ndarray, size: int = observers.SIZE) -> np.ndarray:
    """Read aligned crops of a clip, [F, size, size, 3] uint8, for the ascending indices ``frames``."""
    wanted = {int(i) for i in frames}
    return np.stack([image for index, image in iter_crops(seen, size) if index in wanted])


def jitter_within_shots(avatar: Avatar, take: Take, driver: Observation, device: str = "cpu") -> float:
    """Return ``metrics.jitter`` without the frames beside the cuts of an edited clip.

    Driver and avatar jump equally at a cut, so including it would hide the avatar's jitter.
    """
    nets = observers.EvaluationNets(None, None, choose(device))
    seen = [nets.measure(part)["landmarks"] for part in _batches(pictures(avatar, take, device=device))]
    return metrics.jitter(np.concatenate(seen), driver.landmarks, driver.track.valid & ~beside_cuts(take.times))


def beside_cuts(times: np.ndarray) -> np.ndarray:
    """Return [T] bool: frames whose neighbour belongs to another shot."""
    jump = cuts(times)
    return np.append(jump, False) | np.insert(jump, 0, False)


def against_truth(
    images: np.ndarray, truth: np.ndarray, landmarks: np.ndarray, nets: observers.EvaluationNets, perceptual
) -> dict[str, float]:
    """Return the mean of the metrics over some frames.

    Args:
        images, truth: [F, 256, 256, 3] uint8. landmarks: [F, 478, 3] of the truth, in crops.
        nets: networks. perceptual: ``selfscan.perceptual.metric.Perceptual``.
    Returns: metric name, as in the evaluation -> value.
    """
    values, _ = each_against_truth(images, truth, landmarks, nets, perceptual)
    return {name: float(np.nanmean(value)) for name, value in values.items()}


@torch.inference_mode()
def each_against_truth(
    images: np.ndarray, truth: np.ndarray, landmarks: np.ndarray, nets: observers.EvaluationNets, perceptual
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the metrics of each frame.

    Args: as ``against_truth``.
    Returns: metric name -> [F], and the landmarks [F, 478, 3] of the images.
    """
    x, y = to_tensor(images), to_tensor(truth)
    distance = [metrics.perceptual(perceptual.distance, a, b) for a, b in zip(x.split(8), y.split(8))]
    seen = observers.join([nets.measure(part) for part in _batches(images)])
    ours, theirs = measures(seen["landmarks"]), measures(landmarks)
    angles = [np.stack([m[name] for name in POSE_MEASURES], -1) for m in (ours, theirs)]
    values = {
        "psnr": metrics.psnr(x, y), "ssim": metrics.ssim(x, y), "perceptual": torch.cat(distance),
        "keypoints": metrics.keypoint_distance(seen["landmarks"], landmarks, KEYPOINTS),
        "pose": metrics.pose_error(*angles),
        "expression": metrics.expression_error(ours, theirs),
        "gaze": metrics.gaze_error(ours, theirs),
    }  # fmt: skip
    if nets.blendshapes:
        own = nets.measure_at(truth, landmarks)["blendshapes"]
        values["blendshapes"] = metrics.blendshape_error(seen["blendshapes"], own)
    return {name: np.asarray(value, np.float64) for name, value in values.items()}, seen["landmarks"]


def _batches(images: np.ndarray, size: int = 8) -> Iterator[np.ndarray]:
    return (images[start : start + size] for start in range(0, len(images), size))
