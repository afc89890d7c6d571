"""STAGE scan: a video of one person -> selected, aligned images with coverage and consent."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints, Prefixed
from selfscan.errors import ConsentMissing, TooFewFrames, UnreadableVideo, VideoTooLarge
from selfscan.face.align import frame_corners
from selfscan.face.choose import LARGEST
from selfscan.face.observe import observe
from selfscan.io import video
from selfscan.io.digest import clip_digest
from selfscan.perceptual.metric import Perceptual, load_perceptual, pairwise
from selfscan.scan.consent import with_clip, with_mouth
from selfscan.scan.coverage import coverage
from selfscan.scan.crops import cut_out, embed
from selfscan.scan.identity import faces_of
from selfscan.scan.joined import check_same_person, clips_of, joined, joined_faces, joined_quality, own_frames
from selfscan.scan.quality import Quality, assess
from selfscan.scan.select import k_centre, k_centre_distances
from selfscan.types import WHOLE, Alignment, CodeWords, Consent, Observation, Progress, Scan, Span, silent

EXACT = 1200  # candidates; up to this number distances are exact: 2.5 GB of embeddings at 128 px
CLIP_LANDMARKS = 300  # usable frames whose landmarks a scan keeps: 1.7 MB
FEWEST = 12  # usable frames of a clip: with fewer, something is wrong with it; MyStyle's smallest sets have about 10
SIZES = (256, 512)  # px, sides of images that are chosen by themselves: landmarks are measured at the first
SHOWN = 0.8  # of a side: a crop of so many pixels in the clip is worth that side
SKETCH = 8192  # numbers per candidate above EXACT: distances with a relative standard error of 1.6 %


@dataclass(frozen=True)
class ScanSettings:
    """How a clip becomes a scan."""

    frames: int = 100  # images to choose; PGR chooses about 250 of 20-30 s, MyStyle works with 100
    size: int = 0  # px, side of the images; 0 = 512 where the clip shows the crop at least so large (SHOWN), else 256
    sigma: float = 2.0  # frames, smoothing of the crop over time; PGR (arXiv 2307.06307)
    min_frames: int = 0  # minimum number of usable frames; 0 = FEWEST of a clip, one of photos
    embed_size: int = 128  # px, side of images when they are compared; a larger side costs more without more diversity
    max_blinks: float = 0.12  # maximum share of images with closed eyes: an avatar needs a few to blink
    quality_weight: float = 0.5  # 0..1: how much low quality reduces a frame's squared distance; 0 = not at all
    held_out: tuple[tuple[float, float], ...] = ()  # s, (start, end) of spans held out of the scan, for evaluation
    hold_out_every: int = 0  # s, period in which one second is held out: 5 = every fifth second; 0 = off
    perceptual: str = "auto"  # metric that compares images: squeeze, alex or vgg (LPIPS), or face (distilled);
    #   auto: squeeze where its backbone is there, else face


def scan_video(
    video: str | Path,
    consent: Consent | None,
    settings: ScanSettings = ScanSettings(),
    progress: Progress = silent,
    perceptual: Perceptual | None = None,
    consent_clip: tuple[Path, CodeWords | None] | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    face: str = LARGEST,
    span: Span = WHOLE,
) -> Scan:
    """Select a small, diverse set of good images of one person from a clip, a photo or a folder of photos.

    As ``scan_clips`` with one clip.
    """
    return scan_clips([video], consent, settings, progress, perceptual, consent_clip, checkpoints, face, span)


def scan_clips(
    videos: Sequence[str | Path],
    consent: Consent | None,
    settings: ScanSettings = ScanSettings(),
    progress: Progress = silent,
    perceptual: Perceptual | None = None,
    consent_clip: tuple[Path, CodeWords | None] | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    face: str = LARGEST,
    span: Span = WHOLE,
) -> Scan:
    """Select a small, diverse set of good images of one person from clips, photos or folders of photos.

    Candidates are frames that pass the quality checks and are not held out. k-centre selection by LPIPS distance picks
    images that represent all others (PGR, arXiv 2307.06307, section 3.1). Low quality reduces a frame's weight; the
    number of blinks is limited.

    Args:
        videos: the clips; the images are chosen among the frames of all of them.
        consent: the record of these clips, in their order; see ``selfscan.scan.consent.make_consent``.
        settings: see ``ScanSettings``.
        progress: called with (stage, frames done, frames in all).
        perceptual: metric to use instead of ``settings.perceptual``.
        consent_clip: a separate clip in which the person agrees, and the words shown while it was recorded.
        checkpoints: of the same clips with the same settings; stored chunks are not measured again.
        face: which face to scan where there are several: see ``selfscan.face.choose.check_wanted``.
        span: the part of each clip that is used.

    Returns:
        The scan; its images are in order of the clips and of time.

    Raises:
        ConsentMissing: there is no record, or it is for another clip.
        SecondFace: another face is visible for a second or longer; faces of less than half the width are ignored.
        SecondPerson: for a second and a half or longer the face differs, or the consent clip shows another.
        NoFaceFound, UnreadableVideo, VideoTooLarge: see ``observe``.
        TooFewFrames: fewer than ``min_frames`` usable frames are left, or photos.
    """
    if consent is None or not consent.name:
        raise ConsentMissing("scan: expected a consent record, got none; make one with make_consent(name, video)")
    for path, own in zip_longest(videos, consent.digests[: len(videos)]):
        if Path(path).exists() and clip_digest(path) != own:
            raise ConsentMissing(f"scan: the consent of {consent.name} is for another clip; make one for {path}")
    size, seen = settings.size or SIZES[0], []
    for k, path in enumerate(videos):
        told, own = _of_clip(k, len(videos), progress, checkpoints)
        seen.append(observe(path, size, settings.sigma, told, True, own, face, span))
    return scan_observations(seen, consent, settings, progress, perceptual, consent_clip, checkpoints)


def _of_clip(k: int, count: int, progress: Progress, checkpoints: Checkpoints) -> tuple[Progress, Checkpoints]:
    """Progress and checkpoints of one of several clips; a single clip's have no mark."""
    told = (lambda stage, done, total: progress(f"clip {k + 1}: {stage}", done, total)) if count > 1 else progress
    return told, Prefixed(checkpoints, f"clip{k + 1}.") if k else checkpoints


def scan_observation(observation: Observation, *rest: Any, **more: Any) -> Scan:
    """Select the images of a scan from an observed clip: ``scan_observations`` with one clip."""
    return scan_observations([observation], *rest, **more)


def scan_observations(
    seen: Sequence[Observation],
    consent: Consent,
    settings: ScanSettings = ScanSettings(),
    progress: Progress = silent,
    perceptual: Perceptual | None = None,
    consent_clip: tuple[Path, CodeWords | None] | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Scan:
    """Select the images of a scan from observed clips; see ``scan_clips``."""
    whole, clips = joined(seen), clips_of(seen)
    each = list(zip(seen, clips, (_of_clip(k, len(seen), progress, checkpoints) for k in range(len(seen)))))
    spans = held_out_spans(whole.track.times, settings)
    faces = [faces_of(one, *own) for one, _, own in each]
    photos = [_are_photos(one.video) for one in seen]
    one_person = check_same_person(seen, faces, photos)
    consent = with_mouth(consent, seen)
    if consent_clip:
        consent = with_clip(consent, joined_faces(faces), *consent_clip, progress, Prefixed(checkpoints, "consent."))
    quality = joined_quality([assess(one, *own) for one, _, own in each])
    allowed = ~inside(whole.track.times, spans)
    candidates = np.flatnonzero(quality.usable & allowed)
    needed = settings.min_frames or (1 if all(photos) else FEWEST)
    if len(candidates) < needed:
        held_out = int((~allowed).sum())
        raise TooFewFrames(_too_few(seen[0].video, len(candidates), needed, quality, held_out, all(photos)))
    metric = perceptual or load_perceptual(settings.perceptual)
    dims = None if len(candidates) <= EXACT else SKETCH
    compared = [
        embed(one, frames, metric, settings.embed_size, dims, *own)
        for one, clip, own in each
        if len(frames := own_frames(candidates, clip))
    ]
    picks = np.sort(candidates[_choose(np.concatenate(compared), quality, candidates, settings)])
    size = settings.size or _fitting(whole.alignment, picks)
    images = [cut_out(one, own_frames(picks, clip), size, *own) for one, clip, own in each]
    corners = [
        frame_corners(one.alignment.crop_from_frame[own_frames(picks, clip)], one.alignment.size, one.track.frame_size)
        for one, clip, _ in each
    ]
    return Scan(
        images=np.concatenate(images),
        landmarks=whole.landmarks[picks],
        frame_index=picks,
        quality=quality.score[picks],
        rejects=quality.rejects(),
        coverage=coverage(whole, quality.usable & allowed),
        consent=consent,
        perceptual=metric.name,
        held_out=spans,
        identity=one_person,
        warnings=whole.warnings,
        cuts=whole.track.cut_spans,
        clip_landmarks=whole.landmarks[_evenly(candidates, CLIP_LANDMARKS)],
        frame_corners=np.concatenate(corners),
        clips=clips,
    )


def held_out_spans(times: np.ndarray, settings: ScanSettings) -> np.ndarray:
    """Spans of a clip that a scan must not use.

    Args:
        times: [T] s.
        settings: ``held_out`` spans and ``hold_out_every``, counted from the first frame: with 5, the fifth second,
            the tenth, and so on.

    Returns:
        [M, 2] s, start and end (exclusive), sorted.

    Raises:
        ValueError: ``hold_out_every`` is negative or 1, or a span ends before it starts.
    """
    spans = [tuple(map(float, span)) for span in settings.held_out]
    every = settings.hold_out_every
    if every < 0 or every == 1:
        raise ValueError(f"hold_out_every: expected 0 (off) or at least 2 s, got {every}")
    if every and len(times):
        ends = np.arange(times[0] + every, times[-1] + 1, every)
        spans += [(float(end) - 1, float(end)) for end in ends]
    for start, end in spans:
        if not end > start:
            raise ValueError(f"held_out: expected spans (start, end) s with end > start, got ({start}, {end})")
    return np.array(sorted(spans), np.float64).reshape(-1, 2)


def inside(times: np.ndarray, spans: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
    """Which times lie in one of the spans.

    Args:
        times: [T] s.
        spans: [M, 2] s, start and end (exclusive).

    Returns:
        [T] bool.
    """
    spans = np.asarray(spans, np.float64).reshape(-1, 2)
    return ((times[:, None] >= spans[:, 0] - 1e-6) & (times[:, None] < spans[:, 1] - 1e-6)).any(1)


def _choose(embeddings: np.ndarray, quality: Quality, candidates: np.ndarray, settings: ScanSettings) -> np.ndarray:
    k = min(settings.frames, len(candidates))
    closed = quality.closed[candidates]
    weight = 1 - settings.quality_weight * (1 - quality.score[candidates])
    blinks = max(1, round(settings.max_blinks * k)) if settings.max_blinks > 0 else 0
    rules = {"weight": np.maximum(weight, 1e-3), "limit": (closed, blinks)}
    if len(candidates) > EXACT:
        return k_centre(embeddings, k, **rules)
    return k_centre_distances(pairwise(embeddings), k, **rules)  # same picks, one matrix product instead of k


def _evenly(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the indices, evenly chosen."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), most)).round().astype(int))]


def _fitting(alignment: Alignment, picks: np.ndarray) -> int:
    """The largest of SIZES that the clip's own pixels fill in most of the picked crops."""
    enlarged = np.sqrt(np.abs(np.linalg.det(alignment.crop_from_frame[picks][:, :, :2])))  # crop px a frame px
    shown = np.median(alignment.size / enlarged)
    return max(size for size in SIZES if size == SIZES[0] or shown >= SHOWN * size)


def _too_few(clip: str, count: int, needed: int, quality: Quality, held_out: int, photos: bool) -> str:
    reasons = [f"{n} {reason}" for reason, n in quality.rejects().items()]
    reasons += [f"{held_out} held out"] if held_out else []
    what, why, advice = "frames", "the clip is too short", "record 20 seconds in good light, face in view"
    if photos:
        what, why = "photos", "there are no more"
        advice = "add photos of the same person in good light, or record a clip of 20 seconds"
    elif Path(clip).is_dir():
        why = "there are no more"
        advice = "numbered pictures count as a clip; give photos of different moments names without numbers"
    what = what if needed > 1 else what[:-1]
    return (
        f"scan: expected at least {needed} usable {what}, got {count} of {len(quality.score)} "
        f"({', '.join(reasons) or why}); {advice}"
    )


def _are_photos(path: str) -> bool:
    """Whether a clip is single photos, or one picture."""
    with suppress(UnreadableVideo, VideoTooLarge):
        info = video.probe(path)
        return info.stills or info.frames_estimate == 1
    return False
