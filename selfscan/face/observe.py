"""Video to observation: track the face, align it, and measure its landmarks again in the aligned crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.errors import UnreadableVideo
from selfscan.face.align import align, crop, rescale
from selfscan.face.choose import LARGEST
from selfscan.face.facemesh import FaceMesh, crop_landmarks, load_facemesh
from selfscan.face.notes import notes
from selfscan.face.track import fill_gaps, track
from selfscan.io import video
from selfscan.io.digest import clip_digest
from selfscan.io.pixels import to_tensor
from selfscan.types import NUM_LANDMARKS, WHOLE, Array, Observation, Progress, Span, silent

BATCH = 16  # crops a network pass: larger batches are not faster on a CPU


def observe(
    path: str | Path,
    size: int = 256,
    sigma: float = 2.0,
    progress: Progress = silent,
    second_face_stops: bool = False,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    face: str = LARGEST,
    span: Span = WHOLE,
) -> Observation:
    """Track, align and measure a clip in two decoding passes of constant memory.

    The landmarks are measured in the aligned crop, with the network and the region that also measure generated images.
    Both sides of a later comparison then have the same bias.

    Args:
        path: the clip.
        size: side of the crop, px.
        sigma: temporal smoothing of the crop, frames; 2 is PGR's value (arXiv:2307.06307).
        progress: called with ("track" or "measure", frames done, frames in all).
        second_face_stops: reject a clip that shows a second face for a second or longer.
        checkpoints: of the same clip with the same settings; stored chunks are not measured again.
        face: which face to follow where there are several: see ``choose.check_wanted``.
        span: the part of the clip that is measured.
    Returns:
        The observation; frames without a face get interpolated landmarks and presence 0.
    Raises:
        UnreadableVideo, VideoTooLarge, NoFaceFound, SecondFace: see ``track``.
    """
    digest = clip_digest(path) if Path(path).exists() else ""  # ``track`` raises if the file is missing
    warnings: dict[str, None] = {}  # in order, each once
    seen = track(path, progress, second_face_stops, checkpoints, warnings.setdefault, face, span)
    alignment = align(seen, size, sigma)
    landmarks = np.zeros((len(seen), NUM_LANDMARKS, 3), np.float32)
    presence = np.zeros(len(seen), np.float32)
    mesh = load_facemesh()

    def work(chunk: Array, images: Iterator[Array]) -> Arrays:
        rows = []
        for batch in _batches(images):
            rows.append(measure(mesh, batch))
            progress("measure", int(chunk[0]) + sum(len(row[1]) for row in rows), len(seen))
        return dict(zip(("landmarks", "presence"), map(np.concatenate, zip(*rows))))

    def crops(start: int) -> Iterator[tuple[int, Array]]:
        return _crops(path, alignment.crop_from_frame, size, start, warnings.setdefault, span)

    for part, found in in_chunks(
        checkpoints, "measure", range(len(seen)), crops, work, lambda done: progress("measure", done, len(seen))
    ):
        landmarks[part], presence[part] = found["landmarks"], found["presence"]
    presence[~seen.valid] = 0
    fill_gaps(landmarks, seen.valid, seen.shots)
    said = (*warnings, *notes(seen, video.probe(path, span=span).stills))
    return Observation(seen, alignment, landmarks, presence, str(path), digest, said, span)


def iter_crops(observation: Observation, size: int | None = None, start: int = 0) -> Iterator[tuple[int, Array]]:
    """Stream the aligned crops of an observed clip, one a frame, by decoding it again.

    Args:
        observation: the clip as observed.
        size: side of the crops, px; None = the side of the observation. The region is the same for every size.
        start: the first frame; earlier frames are decoded but not returned.
    Returns:
        Pairs of frame index and image [size, size, 3] uint8 RGB.
    Raises:
        UnreadableVideo: the clip is missing or has another number of frames than was observed.
    """
    size = size or observation.alignment.size
    transforms = rescale(observation.alignment.crop_from_frame, size / observation.alignment.size)
    return _crops(observation.video, transforms, size, start, span=observation.span)


def _crops(
    path: str | Path,
    transforms: Array,
    size: int,
    start: int = 0,
    warn: Callable[[str], object] = video.unwarned,
    span: Span = WHOLE,
) -> Iterator[tuple[int, Array]]:
    count = 0
    for count, (_, frame) in enumerate(video.read(path, warn=warn, span=span), start=1):
        if count > len(transforms):
            break
        if count > start:
            yield count - 1, crop(frame, transforms[count - 1], size)
    if count != len(transforms):
        raise UnreadableVideo(f"{path}: expected {len(transforms)} frames as before, got {count}; the file was changed")


def _batches(images: Iterator[Array]) -> Iterator[Array]:
    while batch := list(islice(images, BATCH)):
        yield np.stack(batch)


def measure(mesh: FaceMesh, images: Array) -> tuple[Array, Array]:
    """Landmarks of aligned crops, in the fixed region that is also used for generated images.

    Args:
        mesh: the network.
        images: [N, size, size, 3] uint8 RGB.
    Returns:
        landmarks [N, 478, 3] in crops, presence [N] in 0..1.
    """
    batch = to_tensor(images, next(mesh.buffers()).device)
    with torch.no_grad():
        landmarks, presence = crop_landmarks(mesh, batch)
    return landmarks.cpu().numpy(), presence.cpu().numpy()
