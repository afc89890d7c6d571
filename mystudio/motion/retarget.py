"""Retargeting: the driver's motion in the avatar's proportions.

PGR (arXiv 2307.06307) uses 66 of MediaPipe's 478 points, in 3D, with every facial part shifted to zero mean. The paper
does not list them; this project's list is ``selfscan.face.landmarks.KEYPOINT_PARTS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

import selfscan
from mystudio.motion.smoothing import smooth_over_time
from mystudio.types import Performance
from selfscan.face import patches
from selfscan.face.headpose import head_pose
from selfscan.face.landmarks import KEYPOINT_PARTS, KEYPOINTS, LIP_GAP, OUTER_EYE_CORNERS, STABLE
from selfscan.face.measures import EXPRESSION_MEASURES
from selfscan.face.measures import measures as face_measures
from selfscan.face.patches import Outlined, Recoloured
from selfscan.types import Array, Scan

#: names of the expression measures (``selfscan.face.measures``)
MEASURES = EXPRESSION_MEASURES
OWN_LOOK = 2.0  # s of a shot that suffice for a neutral face and colours of its own
PART_OF = torch.tensor([k for k, part in enumerate(KEYPOINT_PARTS.values()) for _ in part])


@dataclass(frozen=True)
class Motion:
    """Target of reenactment: the motion of each frame in the avatar's proportions."""

    keypoints: Tensor  # [T, K, 3] in crops, each part of zero mean (see KEYPOINT_PARTS)
    weights: Tensor  # [K] importance of each keypoint
    change: Tensor  # [T, K, 3] the driver's change from the neutral face, in units of part sizes
    mouth: Tensor | Recoloured  # [T, 3, h, w] in [-1, 1], or computed per frame on access
    mouth_mask: Tensor | Outlined  # [T, 1, h, w] 1 inside the driver's inner lips
    irises: Tensor | Recoloured  # [T, 2, 3, h, w] in [-1, 1], or computed as for the mouth
    iris_mask: Tensor | Outlined  # [T, 2, 1, h, w] 1 on the driver's visible iris
    valid: Tensor  # [T] bool
    times: Tensor  # [T] float64 s
    measures: Tensor | None = None  # [T, M] expression measures (MEASURES), scaled to the avatar
    shots: tuple[slice, ...] = ()  # frames between two cuts, in order (``Performance.shots``); () = no cut

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True)
class RetargetSettings:
    """How the driver's motion is transferred to the avatar."""

    motion: Literal["relative", "absolute"] = "relative"  # relative: the driver's change from neutral is added to the
    #   avatar's neutral face; absolute: the driver's face shape is the target (as in the paper, for self-reenactment)
    neutral: Literal["as seen", "frontal"] = "frontal"  # frontal: both neutral faces are rotated to frontal first,
    #   so that a neutral frame with a turned head does not turn the avatar
    part_offsets: float = 0.5  # 0..1: weight of each part's position (such as brow height); 0 as in the paper
    depth: float = 0.1  # weight of z against x and y: the network's z is less exact
    keypoints: Literal["all", "half"] = "all"  # half: every second point, for ablation
    smooth: float = 0.5  # frames: sigma of the Gaussian on the driver's keypoints; 0 = none


def keypoints_of(landmarks: Tensor) -> Tensor:
    """The 66 keypoints [..., 66, 3] of landmarks [..., 478, 3]."""
    return landmarks[..., list(KEYPOINTS), :]


def part_means(keypoints: Tensor) -> Tensor:
    """For each keypoint the mean of its part, [..., 66, 3]."""
    one_hot = torch.nn.functional.one_hot(PART_OF.to(keypoints.device)).to(keypoints.dtype)
    average = one_hot / one_hot.sum(0)
    return one_hot @ (average.t() @ keypoints)


def normalise(landmarks: Tensor, part_offsets: float = 0.0, depth: float = 1.0) -> Tensor:
    """Keypoints with each part at zero mean (PGR), plus the share ``part_offsets`` of its position.

    Args:
        landmarks: [..., 478, 3] in crops. part_offsets: 0 as in the paper. depth: scale of z.
    Returns: [..., 66, 3]; a part's position is relative to the mean of the stable points along the nose.
    """
    points = keypoints_of(landmarks)
    means = part_means(points)
    anchor = landmarks[..., list(STABLE), :].mean(-2, keepdim=True)
    shifted = points - means + part_offsets * (means - anchor)
    return shifted * torch.tensor([1.0, 1.0, depth], device=points.device, dtype=points.dtype)


def part_scale(keypoints: Tensor) -> Tensor:
    """Root mean square size of each point's part, [..., 66]; keypoints [..., 66, 3] in crops."""
    size = (keypoints - part_means(keypoints)).square().sum(-1, keepdim=True)
    return part_means(size)[..., 0].sqrt()


def relative_motion(landmarks: Tensor, neutral: Tensor, size_of: Tensor | None = None) -> Tensor:
    """Keypoints' change from the neutral face, in units of the neutral face's part sizes.

    Args:
        landmarks: [..., 478, 3]; neutral: [478, 3], in crops. size_of: the face whose part sizes are the unit;
            None = ``neutral``.
    Returns: [..., 66, 3]; multiplied by 0.05, so that an eye-sized part (0.05 crops) keeps its scale.
    """
    size = part_scale(keypoints_of(neutral if size_of is None else size_of))[:, None]
    return (normalise(landmarks, 1.0) - normalise(neutral, 1.0)) * (0.05 / size)


def neutral_scores(landmarks: Array, usable: Array) -> Array:
    """Distance of each frame from a neutral face, [T]; infinite for unusable frames.

    The shape of each part, at unit size, is compared with a measured neutral face (``selfscan/data/neutral.npz``, from
    synthetic people at rest). The clip's median counts with half weight: it has the person's proportions, but may
    smile. An open mouth and a turned head add to the distance. Frame 0 is not preferred.

    Args:
        landmarks: [T, 478, 3] in crops. usable: [T] bool.
    """
    usable = usable if usable.any() else np.ones(len(usable), bool)
    points = _unit_parts(torch.as_tensor(landmarks, dtype=torch.float32))
    middle = points[torch.as_tensor(usable)].median(0).values
    away = (points - _unit_parts(reference_face())).norm(dim=-1).mean(1) + 0.5 * (points - middle).norm(dim=-1).mean(1)
    right, left = (landmarks[:, index] for index in OUTER_EYE_CORNERS)
    upper, lower = (landmarks[:, index, :2] for index in LIP_GAP)
    eye = np.linalg.norm(right[:, :2] - left[:, :2], axis=1)
    gap = np.linalg.norm(upper - lower, axis=1) / eye
    turn = np.abs(right[:, 2] - left[:, 2]) / eye
    return np.where(usable, away.numpy() + gap + 0.3 * turn, np.inf)


def _unit_parts(landmarks: Tensor) -> Tensor:
    """Keypoints of each part at zero mean and unit size, z at half weight, [..., 66, 3]."""
    points = keypoints_of(landmarks)
    points = points - part_means(points)
    size = part_means(points.square().sum(-1, keepdim=True)).sqrt()
    return points / size * torch.tensor([1.0, 1.0, 0.5])


def find_neutral(landmarks: Array, usable: Array) -> int:
    """Index of the most neutral frame (``neutral_scores``)."""
    return int(neutral_scores(landmarks, usable).argmin())


def neutral_face(landmarks: Array, usable: Array, frames: int = 5) -> Tensor:
    """The person's neutral landmarks [478, 3], in crops: the mean of the most neutral frames.

    At most a twentieth of the usable frames are averaged: a short clip may contain only one neutral frame.
    """
    count = max(1, min(frames, int(usable.sum()) // 20))
    best = np.argsort(neutral_scores(landmarks, usable), kind="stable")[:count]
    return torch.as_tensor(landmarks[best].mean(0), dtype=torch.float32)


def neutral_of(scan: Scan) -> Tensor:
    """The neutral face [478, 3] in crops of a scan's person, turned to the camera.

    It comes from the whole clip: the chosen images show extremes, and hardly one of them is neutral. Scans of older
    versions hold no other landmarks.
    """
    landmarks = scan.clip_landmarks if len(scan.clip_landmarks) else scan.landmarks
    return frontal(neutral_face(landmarks, np.ones(len(landmarks), bool)))


def usable_frames(performance: Performance) -> Array:
    """[T] bool: frames whose face was found and is recognised in its crop."""
    seen = performance.observation
    return seen.track.valid & (seen.presence > 0.5)


def frames_by_shot(performance: Performance) -> list[Array]:
    """The usable frames, [T] bool, that say for each shot how the driver looks in it.

    Another camera, light or person looks otherwise, so a shot of OWN_LOOK seconds or more uses its own frames. A
    shorter one shows too little: it uses the frames of all shots of the same person.
    """
    seen, usable = performance.observation, usable_frames(performance)
    other = np.zeros(len(seen), bool) if performance.other is None else performance.other
    found = list[Array]()
    for shot in performance.shots:
        frames = np.zeros(len(seen), bool)
        frames[shot] = usable[shot]
        at = seen.track.times[frames]
        if len(performance.shots) > 1 and (not len(at) or at[-1] - at[0] < OWN_LOOK):
            same = usable & (other == other[shot.start])
            frames = same if same.any() else usable
        found.append(frames)
    return found


def neutral_faces(performance: Performance) -> list[Tensor]:
    """The driver's neutral face [478, 3] in crops, one for each shot (``frames_by_shot``)."""
    return [neutral_face(performance.observation.landmarks, frames) for frames in frames_by_shot(performance)]


def frontal(face: Tensor) -> Tensor:
    """Rotate a face [478, 3] in crops about its centre to the frontal pose."""
    points = face.double().numpy()
    turn = head_pose(points)[:3, :3].astype(np.float64)
    middle = points.mean(0)
    return torch.as_tensor((points - middle) @ (turn / np.cbrt(np.linalg.det(turn))) + middle, dtype=face.dtype)


def measures(landmarks: Tensor) -> Tensor:
    """Expression measures [T, M] of faces [T, 478, 3] (``MEASURES``)."""
    points = landmarks.numpy()
    named = face_measures(points)
    return torch.as_tensor(np.stack([named[name] for name in MEASURES], 1), dtype=landmarks.dtype)


def wanted_measures(driver: Tensor, neutral: Tensor, driver_neutral: Tensor, motion: str = "relative") -> Tensor:
    """The driver's expression measures transferred to the avatar, [T, M].

    Mouth and eye openings must reach exactly zero when closed. The mouth's gap (in eye distances) is the driver's. The
    eyes' opening is the avatar's neutral opening times the driver's opening relative to the driver's neutral one. Other
    measures are the avatar's neutral values plus the driver's change.

    Args: driver: [T, M]; neutral, driver_neutral: [M] of the two neutral faces.
    """
    if motion == "absolute":
        return driver
    wanted = neutral + driver - driver_neutral
    mouth, eyes = MEASURES.index("mouth_open"), MEASURES.index("eyes_open")
    wanted[:, mouth] = driver[:, mouth]
    wanted[:, eyes] = driver[:, eyes] * neutral[eyes] / driver_neutral[eyes].clamp_min(1e-3)
    return wanted


@lru_cache(maxsize=1)
def reference_face() -> Tensor:
    """A measured neutral face [478, 3] in crops: the mean of synthetic people at rest. All callers share it."""
    with np.load(Path(selfscan.__file__).parent / "data/neutral.npz", allow_pickle=False) as z:
        return torch.as_tensor(z["landmarks"])


def retarget(
    performance: Performance,
    neutral: Tensor,
    statistics: dict[str, Tensor],
    settings: RetargetSettings = RetargetSettings(),
    driver_neutral: Tensor | None = None,
) -> Motion:
    """Retarget a driving clip to an avatar.

    Relative: k_t = n_avatar + s (d_t - n_driver), with s the ratio of the two neutral faces' part sizes.
    Absolute: k_t = s d_t, the driver's shape at the avatar's part sizes, as in the paper; for the same person.

    Args:
        performance: the driver. neutral: [478, 3] the avatar's neutral landmarks, in crops.
        statistics: the avatar's mouth and iris pixel statistics (``patches.statistics``).
        driver_neutral: [478, 3] the driver's neutral landmarks, in crops; None = ``neutral_faces`` of the shots.
    """
    seen, shots = performance.observation, performance.shots
    usable = usable_frames(performance)
    marks = torch.as_tensor(seen.landmarks, dtype=torch.float32)
    faces = [driver_neutral] * len(shots) if driver_neutral is not None else neutral_faces(performance)
    parts = [_transferred(marks[shot], neutral, face, settings) for shot, face in zip(shots, faces)]
    target, change, wanted = (
        torch.as_tensor(smooth_over_time(torch.cat(part).numpy(), settings.smooth, usable, shots))
        for part in zip(*parts)
    )
    weights = torch.ones(len(KEYPOINTS))
    if settings.keypoints == "half":
        weights[1::2] = 0
    mouth, mouth_mask, irises, iris_mask = patches.targets(
        performance.mouth, performance.irises, marks, statistics, list(zip(shots, frames_by_shot(performance)))
    )
    return Motion(
        target,
        weights,
        change,
        mouth,
        mouth_mask,
        irises,
        iris_mask,
        torch.as_tensor(usable),
        torch.as_tensor(seen.track.times),
        wanted,
        shots,
    )


def _transferred(
    driver: Tensor, neutral: Tensor, driver_neutral: Tensor, settings: RetargetSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints [T, 66, 3], change [T, 66, 3] and measures [T, M] for the landmarks [T, 478, 3] of one shot."""
    change, wanted = change_and_measures(driver, neutral, driver_neutral, settings)
    if settings.neutral == "frontal":
        neutral, driver_neutral = frontal(neutral), frontal(driver_neutral)
    shape = dict(part_offsets=settings.part_offsets, depth=settings.depth)
    mine, theirs = normalise(neutral, **shape), normalise(driver_neutral, **shape)
    ratio = (part_scale(keypoints_of(neutral)) / part_scale(keypoints_of(driver_neutral)))[:, None]
    points = normalise(driver, **shape)
    target = mine + ratio * (points - theirs) if settings.motion == "relative" else ratio * points
    return target, change, wanted


def change_and_measures(
    landmarks: Tensor, neutral: Tensor, driver_neutral: Tensor, settings: RetargetSettings
) -> tuple[Tensor, Tensor]:
    """A driver's change from neutral and expression measures, the inputs of the regressor and ``expression``.

    Args:
        landmarks: [T, 478, 3] of the driver. neutral, driver_neutral: [478, 3] of the avatar and the driver, in crops.
    Returns: change from the neutral face [T, 66, 3] (``relative_motion``), and expression measures [T, M] that are
        scaled to the avatar.
    """
    seen_neutral = neutral
    if settings.neutral == "frontal":
        neutral, driver_neutral = frontal(neutral), frontal(driver_neutral)
    change = relative_motion(landmarks, driver_neutral) + relative_motion(neutral, seen_neutral)
    if settings.motion == "absolute":  # the target is the driver's shape: its change from the avatar's neutral face
        change = change + relative_motion(driver_neutral, torch.zeros_like(neutral), driver_neutral)
        change = change - relative_motion(neutral, torch.zeros_like(neutral), neutral)
    faces = measures(torch.stack([neutral, driver_neutral]))
    return change, wanted_measures(measures(landmarks), faces[0], faces[1], settings.motion)
