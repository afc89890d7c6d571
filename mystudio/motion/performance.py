"""Driving clip -> Performance: track, align, and cut mouth and eye patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mystudio.types import Performance, Progress, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.face import patches
from selfscan.face.choose import LARGEST
from selfscan.face.notes import ANOTHER, in_words, left_out, spans_of
from selfscan.face.observe import iter_crops, observe
from selfscan.scan.persons import find_others
from selfscan.types import WHOLE, Array, Span


def perform(
    video: Path,
    size: int = 256,
    sigma: float = 2.0,
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    face: str = LARGEST,
    span: Span = WHOLE,
) -> Performance:
    """Measure a driving clip; the performance drives any avatar.

    Args:
        video: the clip. size: px of the measured crops. sigma: frames of alignment smoothing (PGR: 2).
        checkpoints: of the same clip with the same settings; stored chunks are not measured again.
        face: which face drives where there are several: see ``selfscan.face.choose.check_wanted``.
        span: the part of the clip that is measured.
    Raises: UnreadableVideo, VideoTooLarge, NoFaceFound.
    """
    seen = observe(video, size=size, sigma=sigma, progress=progress, checkpoints=checkpoints, face=face, span=span)
    return from_observation(seen, progress, checkpoints)


def from_observation(seen, progress: Progress = silent, checkpoints: Checkpoints = NO_CHECKPOINTS) -> Performance:
    """Cut the mouth and eye patches of an Observation, one frame at a time in constant memory."""
    total = len(seen)
    mouth = np.zeros((total, *patches.MOUTH_SIZE, 3), np.uint8)
    irises = np.zeros((total, 2, *patches.IRIS_SIZE, 3), np.uint8)
    marks = torch.as_tensor(seen.landmarks, dtype=torch.float32)

    def work(chunk: Array, crops: Iterator[Array]) -> Arrays:
        for index, crop in zip(chunk.tolist(), crops):
            image = torch.as_tensor(crop).permute(2, 0, 1)[None].float()
            m, e = patches.mouth_and_irises(image, marks[index : index + 1])
            mouth[index] = m[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
            irises[index] = e[0].permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()
            progress("patches", index + 1, total)
        return {"mouth": mouth[chunk], "irises": irises[chunk]}

    for part, found in in_chunks(
        checkpoints,
        "patches",
        range(total),
        lambda start: iter_crops(seen, start=start),
        work,
        lambda done: progress("patches", done, total),
    ):
        mouth[part], irises[part] = found["mouth"], found["irises"]
    other = find_others(seen, progress, checkpoints)
    if spans := spans_of(other, seen.track):
        said = f"{ANOTHER}{in_words(spans)} s; with --others leave-out it does not."
        seen = replace(seen, warnings=(*seen.warnings, said))
    return Performance(seen, mouth, irises, other)


def without_others(performance: Performance) -> Performance:
    """The performance without the shots that show another person: they count as frames without a face."""
    if performance.other is None or not performance.other.any():
        return performance
    seen = performance.observation
    mine = ~performance.other
    track = replace(seen.track, valid=seen.track.valid & mine, score=seen.track.score * mine)
    seen = replace(seen, track=track, presence=seen.presence * mine, warnings=left_out(seen.warnings))
    return replace(performance, observation=seen)
