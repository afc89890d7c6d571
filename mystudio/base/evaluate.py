"""Evaluation of a base.

Samples are compared with training images: share of images with a face, face measures, Frechet distance, precision and
recall. The evaluation also measures how well images follow their codes, and searches for copies of training images.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mystudio.base.data import Mixture
from mystudio.base.features import FeatureSpace, frechet, load_features, precision_recall
from mystudio.base.sheets import fixed_latents, latents_of, pictures, tile, write_png
from mystudio.evaluation import observers
from mystudio.storage.journal import write_bytes
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.measures import measures
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.metric import load_perceptual

PRESENT = 0.9  # least confidence of the landmark network for an image that counts as a face
MEASURES = ("yaw", "pitch", "mouth_open", "eyes_open", "gaze_x", "gaze_y")  # selfscan.face.measures
CONTROLLED = 512  # number of images with codes that are generated again from their codes
NEAREST = 16  # number of samples shown above their nearest training images
BATCH = 16
_SKETCH = 4096  # length of the random projection of an embedding; distances are accurate to about 2 %


@dataclass(frozen=True)
class BaseEvaluation:
    """The figures of an evaluation, and the sheet of nearest training images."""

    figures: dict
    nearest: np.ndarray  # [H, W, 3] uint8: samples above their nearest training images


@torch.no_grad()
def evaluate_base(
    generator: Generator,
    data: Mixture,
    samples: int = 1000,
    images: int = 2000,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
    progress: Progress = silent,
    space: FeatureSpace | None = None,
) -> BaseEvaluation:
    """Measure samples of a base against training images.

    Args:
        generator: the base. data: training images, drawn by their weights; a single small source is used whole.
        samples, images: number of generated and of training images.
        space: feature space of the distances; None = the best one available on this machine.
    """
    generator = copy.deepcopy(generator).to(device)
    space = space or load_features(device)
    z = fixed_latents(samples, generator.z_dim, seed).to(device)
    made = np.concatenate(
        [pictures(generator, generator.mapping(part)) for part in _with_progress(z.split(BATCH), "samples", progress)]
    )
    real = training_images(data, images)
    seen = {name: _measured(x, device, name, progress, space) for name, x in (("samples", made), ("training", real))}
    precision, recall = precision_recall(seen["training"]["features"], seen["samples"]["features"])
    chosen, distances = nearest(made[:NEAREST], real, device, progress)
    figures = {
        "samples": len(made),
        "training_images": len(real),
        "resolution": generator.resolution,
        "faces_found": float((seen["samples"]["presence"] > PRESENT).mean()),
        "faces_found_in_training": float((seen["training"]["presence"] > PRESENT).mean()),
        "feature_space": space.name,
        "frechet": frechet(seen["samples"]["features"], seen["training"]["features"]),
        "frechet_of_training_halves": _of_halves(seen["training"]["features"]),
        "precision": precision,
        "recall": recall,
        "spread": {name: {kind: _spread(seen[kind], name) for kind in seen} for name in MEASURES},
        "controllability": controllability(generator, data, seed, device, progress)
        if data.coded_share and data.code_size <= generator.z_dim
        else {},
        "nearest": {
            "metric": load_perceptual().name,
            "distances": [round(float(d), 4) for d in distances],
            "median_between_training_images": _typical(real, device),
        },
    }
    return BaseEvaluation(figures, tile([made[:NEAREST], real[chosen]]))


def controllability(
    generator: Generator,
    data: Mixture,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
    progress: Progress = silent,
    count: int = CONTROLLED,
) -> dict[str, dict[str, float]]:
    """How well generated images follow their codes: images with codes against images generated from those codes.

    Args: count: largest number of images compared.
    Returns: for each measure ``slope`` (1 = the generated image moves as far as the original) and ``correlation``, over
        the pairs with a face in both; empty if there are fewer than three.
    """
    coded = data.coded_only()
    found = [coded.batch(step, BATCH) for step in range(math.ceil(count / BATCH))]
    codes = torch.from_numpy(np.concatenate([batch.codes for batch in found]))
    z = latents_of(codes, generator.z_dim, seed).to(device)
    made = np.concatenate([pictures(generator, generator.mapping(part)) for part in z.split(BATCH)])
    seen = [
        _measured(images, device, name, progress)
        for name, images in (
            ("images with codes", np.concatenate([batch.images for batch in found])),
            ("their codes", made),
        )
    ]
    both = np.all([part.pop("presence") > PRESENT for part in seen], axis=0)
    if both.sum() < 3:
        return {}
    rows = {}
    for name in seen[0]:
        true, ours = (part[name][both].astype(np.float64) for part in seen)
        moved = np.cov(true, ours)
        rows[name] = {
            "slope": float(moved[0, 1] / max(moved[0, 0], 1e-12)),
            "correlation": float(moved[0, 1] / max(np.sqrt(moved[0, 0] * moved[1, 1]), 1e-12)),
        }
    return rows


def training_images(data: Mixture, count: int) -> np.ndarray:
    """Up to ``count`` different training images [N, R, R, 3]: all of a single small source, else drawn by weight."""
    if len(data.sources) == 1 and len(data.sources[0]) <= count:
        return np.stack([data.sources[0].get(k)[0] for k in range(len(data.sources[0]))])
    found: dict[tuple[int, int], None] = {}
    for step in range(64):  # draws may repeat, so a small source may not give ``count`` different images
        found |= {(source, index): None for source, index, _ in data.plan(step, count)}
        if len(found) >= count:
            break
    return np.stack([data.sources[source].get(index)[0] for source, index in list(found)[:count]])


def nearest(
    made: np.ndarray, real: np.ndarray, device: torch.device, progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray]:
    """For each image of ``made``: index of the nearest one of ``real`` by perceptual distance, and the distance.

    Args: made: [N, R, R, 3] uint8. real: [M, R, R, 3] uint8.
    Returns: indices [N], distances [N].
    """
    perceptual = load_perceptual().to(device)
    ours = torch.cat(
        [perceptual.embed(_input(made[i : i + BATCH], device), _SKETCH) for i in range(0, len(made), BATCH)]
    )
    rows = []
    for start in range(0, len(real), BATCH):
        rows.append(torch.cdist(ours, perceptual.embed(_input(real[start : start + BATCH], device), _SKETCH)).square())
        progress("nearest", min(start + BATCH, len(real)), len(real))
    apart = torch.cat(rows, 1).cpu().numpy()
    return apart.argmin(1), apart.min(1)


def summary(result: BaseEvaluation) -> str:
    """The figures as a table of text."""
    f = result.figures
    lines = [
        f"faces found (presence > {PRESENT}): {f['faces_found']:.1%} of {f['samples']} samples, "
        f"{f['faces_found_in_training']:.1%} of {f['training_images']} training images",
        f"feature space: {f['feature_space']}",
        f"Frechet distance {f['frechet']:.3f} (two halves of the training images: "
        f"{f['frechet_of_training_halves']:.3f}), precision {f['precision']:.2f}, recall {f['recall']:.2f}",
        f"{'':12}{'samples 5..95 %':>20}{'training 5..95 %':>20}{'spread of training':>20}",
    ]
    for name, row in f["spread"].items():
        ours, theirs = row["samples"], row["training"]
        part = [f"{r['low']:.2f} .. {r['high']:.2f}" for r in (ours, theirs)]
        lines.append(f"{name:12}{part[0]:>20}{part[1]:>20}{ours['std'] / max(theirs['std'], 1e-9):>19.0%}")
    if f["controllability"]:
        lines.append(f"{'by code':12}{'slope':>20}{'correlation':>20}")
        lines += [
            f"{name:12}{row['slope']:>20.0%}{row['correlation']:>20.2f}" for name, row in f["controllability"].items()
        ]
    return "\n".join(lines)


def write(result: BaseEvaluation, folder: Path) -> None:
    """Write evaluation.json and nearest.png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "evaluation.json", json.dumps(result.figures, indent=1).encode())
    write_png(folder / "nearest.png", result.nearest)


def _measured(
    images: np.ndarray, device: torch.device, name: str, progress: Progress, space: FeatureSpace | None = None
) -> dict[str, np.ndarray]:
    """Face measures of each image, ``presence`` of a face, and ``features`` in the feature space."""
    mesh, rows = load_facemesh(device=device), []
    for start in range(0, len(images), BATCH):
        x = _input(images[start : start + BATCH], device)
        landmarks, presence = crop_landmarks(mesh, x)
        rows.append({"landmarks": landmarks.cpu().numpy(), "presence": presence.cpu().numpy()})
        if space:
            rows[-1]["features"] = space.embed(x).cpu().numpy()
        progress(f"measure {name}", min(start + BATCH, len(images)), len(images))
    seen = observers.join(rows)
    return measures(seen.pop("landmarks")) | seen


def _spread(seen: dict, name: str) -> dict[str, float]:
    """Mean, standard deviation, 5th and 95th percentile over the images with a face; angles in degrees."""
    values = seen[name][seen["presence"] > PRESENT]
    if not len(values):
        return dict.fromkeys(("mean", "std", "low", "high"), 0.0)
    values = np.degrees(values) if name in ("yaw", "pitch") else values
    low, high = np.percentile(values, (5, 95))
    return {"mean": float(values.mean()), "std": float(values.std()), "low": float(low), "high": float(high)}


def _of_halves(features: np.ndarray) -> float:
    order = np.random.default_rng(0).permutation(len(features))
    return frechet(features[order[::2]], features[order[1::2]])


def _typical(real: np.ndarray, device: torch.device, count: int = 64) -> float:
    """Median distance of a training image to its nearest neighbour, among the first ``count``."""
    perceptual = load_perceptual().to(device)
    rows = torch.cat(
        [
            perceptual.embed(_input(real[i : i + BATCH][:count], device), _SKETCH)
            for i in range(0, min(count, len(real)), BATCH)
        ]
    )
    apart = torch.cdist(rows, rows).square().fill_diagonal_(float("inf"))
    return float(apart.min(1).values.median())


def _input(images: np.ndarray, device: torch.device) -> Tensor:
    return to_tensor(images, device)


def _with_progress(parts, name: str, progress: Progress):
    for k, part in enumerate(parts):
        yield part
        progress(name, k + 1, len(parts))
