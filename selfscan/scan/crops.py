"""Crops of a clip's frames, read in one pass: compared by a metric, or kept as the images of a scan."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from selfscan.checkpoints import Arrays, Checkpoints, in_chunks
from selfscan.face.observe import iter_crops
from selfscan.perceptual.metric import Perceptual
from selfscan.types import Observation, Progress


def embed(
    observation: Observation,
    candidates: np.ndarray,
    metric: Perceptual,
    size: int,
    dims: int | None,
    progress: Progress,
    checkpoints: Checkpoints,
    batch: int = 8,
) -> np.ndarray:
    """Embed a clip's frames for a metric.

    Args: candidates: [N] indices of frames. size: px, side of the crops. dims: numbers of an embedding; None = all.
    Returns: [N, D] float32.
    """
    done, count = 0, len(candidates)
    rows = np.zeros((count, 0), np.float32)

    def work(chunk: np.ndarray, crops: Iterator[np.ndarray]) -> Arrays:
        parts = []
        while images := list(islice(crops, batch)):
            parts.append(metric.embed_images(np.stack(images), batch, dims))
            progress("compare", done + sum(map(len, parts)), count)
        return {"rows": np.concatenate(parts)}

    for part, found in in_chunks(
        checkpoints,
        f"compare.{metric.name}.",
        candidates,
        lambda start: iter_crops(observation, size, start),
        work,
        lambda told: progress("compare", told, count),
    ):
        rows = rows if done else np.empty((count, found["rows"].shape[1]), np.float32)
        rows[done : done + len(part)] = found["rows"]
        done += len(part)
    return rows


def cut_out(
    observation: Observation, picks: np.ndarray, size: int, progress: Progress, checkpoints: Checkpoints
) -> np.ndarray:
    """Cut the picked frames [N] of a clip out: [N, size, size, 3] uint8."""
    images, done = np.zeros((len(picks), size, size, 3), np.uint8), 0

    def work(chunk: np.ndarray, crops: Iterator[np.ndarray]) -> Arrays:
        for k, image in enumerate(crops, start=done):
            images[k] = image
            progress("images", k + 1, len(picks))
        return {"images": images[done : done + len(chunk)]}

    for part, found in in_chunks(
        checkpoints,
        "images",
        picks,
        lambda start: iter_crops(observation, size, start),
        work,
        lambda told: progress("images", told, len(picks)),
    ):
        images[done : done + len(part)] = found["images"]
        done += len(part)
    return images
