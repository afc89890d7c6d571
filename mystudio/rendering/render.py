"""STAGE render: a take -> video frames: aligned, beside the driver, or pasted into the driving frame.

Frames stream in small batches, so that memory does not grow with the clip. Their number always equals the driving
clip's. They are encoded in independent segments of a few seconds, which can be stored as checkpoints. A stopped render
resumes after the last one, with the same pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mystudio import engines
from mystudio.compute.compilation import Compile, Precision, drawer
from mystudio.compute.memory import attempt
from mystudio.errors import OutputFailed, StudioError
from mystudio.rendering.blend import Blend
from mystudio.rendering.cover import Cover
from mystudio.types import Avatar, Outcome, Performance, Progress, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints, ShareDone, own_starts, refuse_others
from selfscan.face.align import crop, rescale
from selfscan.io import video
from selfscan.io.containers import Container, container_of
from selfscan.io.mux import unheard
from selfscan.io.pixels import to_uint8
from selfscan.types import Array

SMALLEST = 256  # px: pictures of smaller generators are enlarged to this size
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RenderSettings:
    """Settings of the finished clip."""

    view: Literal["aligned", "side-by-side", "paste"] = "aligned"
    size: int | None = None  # px, side of the avatar's picture; by default the generator's, at least 256
    crf: int = 18  # x264 quality: 18 is visually lossless; higher values give smaller files
    feather: float = 0.15  # paste: width of the soft rim / width of the face
    unpasted: Literal["covered", "driver"] = "covered"  # paste: frames into which the avatar cannot be pasted, since no
    #   face was found: the driver's face is blurred and the avatar's last picture drawn over it, or shown as filmed
    colour: float = 1.0  # paste: 0..1, how much colours are matched to the driving frame; 0 = not at all
    batch: int = 8  # images in a pass of the generator; halved when out of memory
    precision: Precision = "auto"  # of the generator's feature maps; auto: bfloat16 on devices that multiply it fast
    compile: Compile = "no"  # torch.compile of the generator, for long clips; not used if it fails
    keep_seconds: float = 2.0  # s in a stored segment: a resumed render draws at most this much again

    def __post_init__(self):
        if self.batch < 1 or not self.keep_seconds > 0:
            raise ValueError(
                f"render: expected a batch of at least 1 and keep_seconds above 0, got {self.batch} and "
                f"{self.keep_seconds}"
            )


@dataclass(frozen=True)
class Sound:
    """The sound that a render or a recording takes from its clip."""

    track: int | None = None  # number of the sound track, from 1; None = the default or the first that is not silent
    heard: Callable[[video.Heard], None] = unheard  # called with what became of the sound


def synthesize(
    avatar: Avatar, take: Take, batch: int = 8, start: int = 0, precision: Precision = "auto", how: Compile = "no"
) -> Iterator[Tensor]:
    """Draw a take, batch by batch; out of memory halves the batch.

    Args:
        avatar: the avatar of the take.
        take: codes of T frames.
        batch: images in a pass. start: the first frame. precision, how: see ``RenderSettings``.
    Returns: batches [B, 3, H, W] in [-1, 1], T - start images in all.
    """
    draw = drawer(avatar.generator.synthesize, next(avatar.generator.parameters()).device, precision, how)

    def images_of(span: slice) -> Tensor:
        with torch.inference_mode():
            return draw(engines.of(avatar).decode(avatar, take, span)).clamp(-1, 1)

    while start < len(take):
        images = attempt(partial(images_of, slice(start, start + batch)), may_fail=batch > 1)
        if images is None:
            batch //= 2
            log.warning("out of memory: continuing with %d images a pass", batch)
            continue
        yield images
        start += len(images)


def enlarge(image: Array, size: int) -> Array:
    """Resize a square image [H, H, 3] uint8 to ``size`` px: Lanczos if larger, area average if smaller."""
    import cv2

    if image.shape[0] == size:
        return image
    how = cv2.INTER_LANCZOS4 if size > image.shape[0] else cv2.INTER_AREA
    return cv2.resize(image, (size, size), interpolation=how)


def frames(
    avatar: Avatar,
    take: Take,
    performance: Performance,
    settings: RenderSettings | None = None,
    start: int = 0,
    blend: Blend | None = None,
) -> Iterator[Array]:
    """Stream the finished frames.

    A frame without a face shows the codes held before (aligned, side-by-side). With paste it shows the driving frame
    with the driver's face covered (``cover.Cover``), or unchanged if ``settings.unpasted`` is "driver".

    Args:
        avatar: the avatar of the take. take: codes of T frames.
        performance: the driving clip; its file is read again for side-by-side and paste.
        settings: view, sizes, blending.
        start: the first frame. blend: for paste: the blend that pasted the frames before (``blend_for``).
    Returns: T - start images [H, W, 3] uint8 RGB, all of one size.
    Raises:
        StudioError: take and performance do not belong together, or the driving clip changed.
    """
    settings = settings or RenderSettings()
    if len(take) != len(performance):
        raise StudioError(
            f"expected a take as long as its driving clip, got {len(take)} and {len(performance)} frames; "
            "render with the performance that the take was made from"
        )
    size = _size(avatar, settings)
    batches = synthesize(avatar, take, settings.batch, start, settings.precision, settings.compile)
    if settings.view == "aligned":
        return (enlarge(image, size) for batch in batches for image in to_uint8(batch))
    if settings.view == "side-by-side":
        return _beside(batches, performance, size, start)
    if settings.view == "paste":
        blend = blend or blend_for(avatar, performance, settings)
        shown = performance.observation.track.valid & (take.outcome != Outcome.NO_FACE)
        cover = Cover(performance.observation, shown) if settings.unpasted == "covered" else None
        return _pasted(batches, performance, blend, shown, cover, size, start)
    raise StudioError(f"expected the view aligned, side-by-side or paste, got {settings.view!r}")


def render(
    avatar: Avatar,
    take: Take,
    performance: Performance,
    out_path: str | Path,
    settings: RenderSettings | None = None,
    progress: Progress = silent,
    finish: Callable[[Path], None] | None = None,
    stamp: Callable[[Array], Array] | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    sound: Sound = Sound(),
    container: Container | None = None,
) -> Path:
    """Write a take as a video with the driving clip's time stamps and sound, or as pictures.

    Args:
        avatar, take, performance, settings: see ``frames``.
        out_path: target, whose name says the container (``selfscan.io.containers``); replaced only when everything is
            written. One picture shows the first frame with a face.
        progress: called after every frame.
        finish: called with the path of the complete temporary file, before it replaces the target; may change the file.
        stamp: changes every finished frame, such as by a watermark.
        checkpoints: of segments of the same render; stored segments are not drawn again.
        sound: the track to use, and whom to tell what became of it.
        container: of the target; None = what its name says.
    Returns: the target's path.
    Raises:
        StudioError: see ``frames``.
        UnknownContainer: the name asks for a kind of file that is not written.
        OutputFailed: disk full, no permission; an existing target is untouched.
    """
    settings, container = settings or RenderSettings(), container or container_of(out_path)
    span = range(len(take))
    if container.still:
        first = shown_in_still(take)
        span = range(first, first + 1)
    stream = Frames(avatar, take, performance, settings, span, stamp)
    segments = _segments(stream, container.codec, progress, checkpoints)
    seen = performance.observation
    source = video.SoundOf(seen.video, seen.span.start - float(take.times[0]), sound.track)
    try:
        video.assemble(
            out_path, segments, video.rate_of(take.times), source, settings.crf, finish, sound.heard, container
        )
    except OSError as error:
        raise OutputFailed(f"{error.filename}: {error.strerror}") from error
    return Path(out_path)


def shown_in_still(take: Take) -> int:
    """The frame that one picture of a take shows: the first with a face."""
    return int(np.argmax(take.outcome != Outcome.NO_FACE))


@dataclass(frozen=True)
class Frames:
    """The frames of one render."""

    avatar: Avatar
    take: Take
    performance: Performance
    settings: RenderSettings
    span: range  # numbers of the frames that are drawn
    stamp: Callable[[Array], Array] | None  # changes every finished frame

    def of(self, start: int, blend: Blend | None) -> Iterator[Array]:
        """Images [H, W, 3] uint8 from frame ``start`` on."""
        stream = frames(self.avatar, self.take, self.performance, self.settings, start, blend)
        return map(self.stamp, stream) if self.stamp else stream


def _segments(drawn: Frames, codec: str, progress: Progress, checkpoints: Checkpoints) -> Iterator[video.Segment]:
    """Encoded segments of all frames: stored ones up to the first missing one, then new ones."""
    settings, times, done, end = drawn.settings, drawn.take.times, drawn.span.start, drawn.span.stop
    blend = blend_for(drawn.avatar, drawn.performance, settings) if settings.view == "paste" else None
    size = segment_length(settings, rate := video.rate_of(times))
    own = own_starts("segment", () if blend else range(done, end, size))  # a pasted frame needs the one before
    done, end = (done, end) if own is None else (own[0], min(own[-1] + size, end)) if own else (0, 0)
    while done < end and (found := checkpoints.get(f"segment{done:07d}")):
        if blend:
            blend.restore({name[6:]: value for name, value in found.items() if name.startswith("blend.")})
        segment = video.Segment(**{name: value for name, value in found.items() if not name.startswith("blend.")})
        done += len(segment.shown)
        yield segment
    refuse_others("segment")
    stream = _counted(drawn.of(done, blend), done, end, progress)
    for start in range(done, end, size):
        segment = video.encode_segment(zip(times[start : min(start + size, end)], stream), rate, settings.crf, codec)
        memory = {f"blend.{name}": value for name, value in blend.state().items()} if blend else {}
        checkpoints.put(f"segment{start:07d}", asdict(segment) | memory)
        yield segment
    if own is not None:
        raise ShareDone


def segment_length(settings: RenderSettings, rate: float) -> int:
    """Frames in a segment: a multiple of the batch, so that a resumed render draws the same batches."""
    return max(1, round(settings.keep_seconds * rate / settings.batch)) * settings.batch


def driver_frames(performance: Performance, start: int = 0) -> Iterator[Array]:
    """Frames [H, W, 3] uint8 of the driving clip from ``start`` on, exactly as many as were measured.

    Raises: StudioError: the file has fewer frames than were measured.
    """
    seen, count = performance.observation, 0
    for _, frame in video.read(seen.video, warn=video.unwarned, span=seen.span):
        if count == len(seen):
            return
        if count >= start:
            yield frame
        count += 1
    if count < len(seen):
        raise StudioError(
            f"{seen.video}: expected {len(seen)} frames as when it was measured, got {count}; measure the clip again"
        )


def _transforms(performance: Performance, size: int) -> Array:
    alignment = performance.observation.alignment
    return rescale(alignment.crop_from_frame, size / alignment.size)


def blend_for(avatar: Avatar, performance: Performance, settings: RenderSettings) -> Blend:
    """Make the blend that pastes the avatar into the frames of a driving clip, in order."""
    seen = performance.observation
    size = _size(avatar, settings)
    return Blend(seen.landmarks, seen.track.valid, size, settings.feather, settings.colour, performance.shots)


def _size(avatar: Avatar, settings: RenderSettings) -> int:
    return settings.size or max(SMALLEST, avatar.generator.resolution)


def _beside(batches: Iterator[Tensor], performance: Performance, size: int, start: int) -> Iterator[Array]:
    transforms, drivers = _transforms(performance, size), driver_frames(performance, start)
    images = (image for batch in batches for image in to_uint8(batch))
    for index, image in enumerate(images, start):
        left = crop(next(drivers), transforms[index], size)
        yield np.concatenate([left, enlarge(image, size)], axis=1)


def _pasted(
    batches: Iterator[Tensor],
    performance: Performance,
    blend: Blend,
    shown: Array,
    cover: Cover | None,
    size: int,
    start: int,
) -> Iterator[Array]:
    transforms, drivers = _transforms(performance, size), driver_frames(performance, start)
    pictures = (pair for batch in batches for pair in zip(to_uint8(batch), blend.measure(batch)))
    try:
        for index, (image, shape) in enumerate(pictures, start):
            frame = next(drivers)
            if not shown[index] and cover:
                frame = cover(frame, index)
            pasted = shown[index] or (cover is not None and cover.holds(index))
            yield blend(frame, enlarge(image, size), shape, transforms[index], index) if pasted else frame
    finally:
        if cover:
            cover.close()


def _counted(stream: Iterator[Array], done: int, total: int, progress: Progress) -> Iterator[Array]:
    progress("render", done, total)
    for count, frame in enumerate(stream, start=done + 1):
        progress("render", count, total)
        yield frame
