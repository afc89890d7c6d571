"""Frames of a performance, clips with ground truth, and contact sheets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mystudio.actors.actor import Actor
from mystudio.actors.basis import EXPRESSIONS, Basis
from mystudio.actors.factors import MOTION, N_FACTORS
from mystudio.actors.motion import Score, frame_from_factors
from mystudio.actors.render import Frame, render
from mystudio.errors import OutputFailed
from mystudio.types import Progress, silent
from selfscan.io.naming import derived

CRF = 16  # x264 quality of clips


def film(actor: Actor, score: Score, size: int = 512, crop: str | None = None, seed: int = 0) -> Iterator[Frame]:
    """Draw a performance, one frame after the other.

    Args:
        size: px. crop: None for the camera's view, "ffhq" for aligned squares. seed: of the sensor's noise.
    """
    for k, (expression, pose) in enumerate(zip(score.expressions, score.poses)):
        yield render(actor, expression, pose, size, crop, seed=seed * 1_000_003 + k)


def write_clip(
    path: str | Path,
    actor: Actor,
    score: Score,
    size: int = 512,
    crop: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Path:
    """Write a performance as an mp4, and the ground truth beside it as an .npz.

    Returns: path of the ground truth: ``expression`` [T, 53] and its ``expression_names``, ``pose`` [T, 6], ``gaze``
        [T, 2, 2], ``landmarks68`` [T, 68, 2] px, ``image_from_frame`` [T, 2, 3], ``times`` [T] s, ``identity`` [38].
    Raises: OutputFailed: a file cannot be written.
    """
    from selfscan.io import video

    path, truth = Path(path), {name: [] for name in ("pose", "expression", "gaze", "landmarks68", "image_from_frame")}

    def images() -> Iterator[np.ndarray]:
        for k, frame in enumerate(film(actor, score, size, crop, seed), start=1):
            values = (frame.pose, frame.expression, frame.gaze, frame.landmarks, frame.camera.image_from_frame)
            for kept, value in zip(truth.values(), values):
                kept.append(value)
            yield frame.image
            progress("film", k, len(score))

    beside = derived(path, after=".npz", stem=path.stem)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        video.write(path, images(), score.times, crf=CRF)
        save_npz(
            beside,
            times=score.times,
            identity=actor.look,
            expression_names=np.array(EXPRESSIONS),
            **{name: np.stack(values) for name, values in truth.items()},
        )
    except OSError as error:
        raise OutputFailed(
            f"{path} could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from error
    return beside


def sheet(
    rows: int,
    columns: int,
    size: int = 256,
    seed: int = 0,
    neutral: bool = False,
    crop: str | None = "ffhq",
    basis: Basis | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Draw a contact sheet [rows * size, columns * size, 3] uint8 of different people."""
    pictures = []
    for k in range(rows * columns):
        code = np.random.default_rng((seed, k)).normal(size=N_FACTORS)
        expression, pose = frame_from_factors(code[MOTION] * (not neutral))
        pictures.append(render(Actor.from_code(code, basis), expression, pose, size, crop, seed=k).image)
        progress("sheet", k + 1, rows * columns)
    grid = np.stack(pictures).reshape(rows, columns, size, size, 3)
    return grid.swapaxes(1, 2).reshape(rows * size, columns * size, 3)


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays uncompressed and atomically. Raises OSError."""
    part = derived(path, ".", f".{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
