"""What is measured on a take: pure functions, each with its definition, one value a frame where it can be.

Landmarks are [T, 478, 3] in crops (0..1 spans the crop, z in the scale of x), as ``face.facemesh`` measures them
on real and generated crops alike; images are [N, 3, H, W] RGB in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from selfscan.face import recognition
from selfscan.face.align import crop
from selfscan.face.landmarks import KEYPOINTS, LIPS, OUTER_EYE_CORNERS
from selfscan.face.measures import EXPRESSION_MEASURES, GAZE_MEASURES

STEADY = 0.005  # of the mean detail: less is rounding
STILL = 0.01  # % of the inter-ocular distance; a landmark network cannot see a smaller shake


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio: 10 log10(2^2 / mean squared difference), the peak being the range of [-1, 1].

    Args: x, y: [N, 3, H, W] in [-1, 1]. Returns: [N] dB; equal images have 100 dB, so that means stay finite.
    """
    return 10 * torch.log10(4 / (x - y).square().flatten(1).mean(1).clamp_min(4e-10))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13): 11 x 11 Gaussian window of sigma 1.5, K1 = .01, K2 = .03.

    Taken per colour channel where the whole window fits, then averaged.

    Args: x, y: [N, C, H, W] in [-1, 1], at least 11 px a side. Returns: [N], 1 for equal images.
    """
    down, across = (_window(side).to(x) for side in x.shape[-2:])

    def blur(image: Tensor) -> Tensor:
        return down @ image @ across.t()

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * contrast).flatten(1).mean(1)


def _window(side: int) -> Tensor:
    """The Gaussian window at each place of a line [side]: a matrix [side - 10, side]. Faster than a convolution."""
    window = torch.exp(-(torch.arange(11.0, dtype=torch.float64) - 5).square() / (2 * 1.5**2))
    places = torch.zeros(side - 10, side, dtype=torch.float64)
    for k in range(11):
        places.diagonal(k).fill_(float(window[k] / window.sum()))
    return places


def perceptual(metric: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Perceptual distance to the true image: weighted squared differences of a fixed network's features, as in LPIPS.

    Args: metric: ``selfscan.perceptual.metric.Perceptual.distance``; x, y: [N, 3, H, W] in [-1, 1]. Returns: [N].
    """
    return metric(x, y)


def eye_distance(landmarks: np.ndarray) -> np.ndarray:
    """Inter-ocular distance: between the outer corners of the eyes, in 3D so that turning the head keeps it.

    Args: landmarks: [..., 478, 3]. Returns: [...] in the landmarks' unit.
    """
    return np.linalg.norm(landmarks[..., OUTER_EYE_CORNERS[0], :] - landmarks[..., OUTER_EYE_CORNERS[1], :], axis=-1)


def keypoint_distance(landmarks: np.ndarray, truth: np.ndarray, points: Sequence[int] | None = None) -> np.ndarray:
    """Mean distance in the image between each landmark and its true place, in % of the inter-ocular distance.

    Args: landmarks, truth: [T, 478, 3]; points: which landmarks count, None = all. Returns: [T] %.
    """
    counted = list(points) if points is not None else slice(None)
    gap = np.linalg.norm(landmarks[:, counted, :2] - truth[:, counted, :2], axis=-1)
    return 100 * gap.mean(1) / eye_distance(truth)


def part_distance(
    landmarks: np.ndarray, driver: np.ndarray, parts: Mapping[str, Sequence[int]], valid: np.ndarray
) -> np.ndarray:
    """Keypoint distance between two people, in % of the driver's inter-ocular distance.

    Each part (lips, an eye, ...) is shifted to zero mean in every frame, which drops where parts sit; the first
    person's part is then scaled by the ratio of the two parts' median sizes over the clip and its mean shape over the
    clip replaced by the driver's. What is left to compare is motion and pose, not who somebody is.

    Args: landmarks, driver: [T, 478, 3]; parts: name -> landmark indices; valid: [T] frames that define the clip's
    sizes and mean shapes. Returns: [T] %.
    """
    gaps = []
    for points in parts.values():
        a, b = (
            shape[:, list(points), :2] - shape[:, list(points), :2].mean(1, keepdims=True)
            for shape in (landmarks, driver)
        )
        size_a, size_b = (np.median(np.sqrt(np.square(s[valid]).sum(-1).mean(-1))) for s in (a, b))
        a = a * (size_b / max(size_a, 1e-9))
        a = a - a[valid].mean(0) + b[valid].mean(0)
        gaps.append(np.linalg.norm(a - b, axis=-1))
    return 100 * np.concatenate(gaps, axis=1).mean(1) / eye_distance(driver)


def pose_error(angles: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average pose distance (APD): mean absolute difference of yaw, pitch and roll.

    Args: angles, truth: [T, 3] rad. Returns: [T] degrees.
    """
    difference = (angles - truth + math.pi) % (2 * math.pi) - math.pi
    return np.degrees(np.abs(difference).mean(-1))


def expression_error(measures: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean absolute difference of the mouth's opening, width and smile, the eyes' opening and the brows' height.

    The unit is the inter-ocular distance.

    Args: measures, truth: name -> [T], as ``selfscan.face.measures`` gives them. Returns: [T] inter-ocular distances.
    """
    return _difference(measures, truth, EXPRESSION_MEASURES)


def gaze_error(measures: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean absolute difference of the place of the irises, sideways and upwards, in widths of the eye.

    Args: measures, truth: name -> [T], as ``selfscan.face.measures`` gives them. Returns: [T] widths of the eye.
    """
    return _difference(measures, truth, GAZE_MEASURES)


def _difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    return np.mean([np.abs(one[name] - other[name]) for name in names], axis=0)


def dynamics(series: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> float:
    """How far a motion swings relative to the true result's or else the driver's: 1 = as lively, 0 = frozen.

    Ratio of the spreads: standard deviation over time, root mean square over the measures.

    Args: series, truth: [T] or [T, C]; valid: [T] bool. Returns: ratio, NaN where the driver does not move.
    """
    spread, own = (float(np.sqrt(np.square(np.std(s[valid], axis=0)).mean())) for s in (series, truth))
    return spread / own if own > 1e-9 else float("nan")


def shake(landmarks: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """High-frequency energy of the landmarks: mean squared second difference over time, in the image.

    Args: landmarks: [T, 478, 3]; valid: [T] bool. Returns: [T] in (% of the inter-ocular distance)^2; NaN at both ends
    and next to frames that are not valid.
    """
    energy = np.full(len(landmarks), np.nan)
    if len(landmarks) < 3:
        return energy
    xy = 100 * landmarks[..., :2] / np.median(eye_distance(landmarks))
    second = xy[2:] - 2 * xy[1:-1] + xy[:-2]
    whole = valid[2:] & valid[1:-1] & valid[:-2]
    energy[1:-1] = np.where(whole, np.square(second).sum(-1).mean(-1), np.nan)
    return energy


def jitter(landmarks: np.ndarray, driver: np.ndarray, valid: np.ndarray) -> float:
    """Shake of the avatar relative to that of the true result or else the driver: 1 = as steady, 2 = twice.

    Ratio of the root mean squares of the landmarks' second differences over time, in the same frames. NaN where the
    driver is still, as in a picture: a ratio to rounding errors means nothing.
    """
    own, drivers = shake(landmarks, valid), shake(driver, valid)
    measured = np.isfinite(own) & np.isfinite(drivers)
    if not measured.any() or drivers[measured].mean() < STILL**2:
        return float("nan")
    return float(np.sqrt(own[measured].mean() / drivers[measured].mean()))


def sharpness(images: np.ndarray, landmarks: np.ndarray, size: int = 64) -> np.ndarray:
    """Laplacian energy of the mouth: variance of the 4-neighbour Laplacian of luma in a square around the lips.

    The square is one inter-ocular distance wide and resampled to ``size`` px, so images of any size compare.

    Args: images: [N, H, W, 3] uint8 RGB crops; landmarks: [N, 478, 3] in crops. Returns: [N] in (luma 0..255)^2.
    """
    return np.array([_fine(i, p, list(LIPS), 1.0, size).var() for i, p in zip(images, landmarks)], dtype=np.float64)


def detail(images: np.ndarray, landmarks: np.ndarray, size: int = 128, cells: int = 8) -> np.ndarray:
    """Fine detail by place: root mean square of the Laplacian of luma in each cell of a square around the face.

    The square is two inter-ocular distances wide and moves with the face.

    Args: images: [N, H, W, 3] uint8 RGB crops; landmarks: [N, 478, 3] in crops. Returns: [N, cells^2] luma 0..255.
    """
    shape = (cells, size // cells, cells, size // cells)
    found = [_fine(i, p, list(KEYPOINTS), 2.0, size).reshape(shape) for i, p in zip(images, landmarks)]
    return np.array([np.sqrt(np.square(one).mean((1, 3))).ravel() for one in found], dtype=np.float64)


def flicker(details: np.ndarray, driver: np.ndarray, valid: np.ndarray) -> float:
    """Flicker of fine detail against the true result's or else the driver's: 2 = detail comes and goes twice as much.

    Ratio of the root mean squares of the second differences over time of ``detail``, each relative to its mean.
    NaN where the driver's detail is constant, as in a picture.

    Args: details, driver: [T, C]; valid: [T] bool. Returns: ratio.
    """
    whole = valid[2:] & valid[1:-1] & valid[:-2]
    if not whole.any():
        return float("nan")

    def unsteady(d: np.ndarray) -> float:
        return float(np.sqrt(np.square(d[2:] - 2 * d[1:-1] + d[:-2])[whole].mean()) / max(d[valid].mean(), 1e-9))

    own, drivers = unsteady(details), unsteady(driver)
    return own / drivers if drivers > STEADY else float("nan")


def _fine(image: np.ndarray, points: np.ndarray, centred: list[int], width: float, size: int) -> np.ndarray:
    """Laplacian of luma [size, size] in a square around some landmarks, ``width`` inter-ocular distances wide."""
    import cv2

    scale = size / max(width * eye_distance(points) * image.shape[1], 1e-6)
    centre = points[centred, :2].mean(0) * image.shape[1]
    patch = crop(image, np.column_stack([scale * np.eye(2), size / 2 - scale * centre]), size)
    return cv2.Laplacian(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), cv2.CV_32F)


def blendshape_error(weights: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average expression distance (AED): mean absolute difference of the 52 blendshape weights.

    Args: weights, truth: [T, 52] in 0..1. Returns: [T], NaN where a face was not found.
    """
    return np.abs(weights - truth).mean(-1)


def likeness(faces: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Likeness to the person by dlib's face recognition network: 1 - distance, mean over the scan's images.

    Pictures of one person mostly have 0.5 or more, those of two people less than 0.45.

    Args: faces: [T, 128]; person: [N, 128], both of ``selfscan.face.recognition``. Returns: [T].
    """
    return recognition.likeness(faces, person).mean(1)


def own_likeness(person: np.ndarray) -> float:
    """How alike the person's own scan images are by the same network: mean over all pairs of different images."""
    pairs = recognition.likeness(person, person)[~np.eye(len(person), dtype=bool)]
    return float(pairs.mean()) if len(pairs) else float("nan")


def csim(vectors: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Likeness to a person: mean cosine between each face and all scan images (CSIM).

    Args: vectors: [T, E] unit vectors of the faces; person: [N, E] of the scan images. Returns: [T] in -1..1.
    """
    return (vectors @ person.T).mean(1)


def own_spread(person: np.ndarray) -> float:
    """How alike a person's own scan images are: mean cosine over all pairs of different images."""
    n = len(person)
    gram = person @ person.T
    return float((gram.sum() - np.trace(gram)) / (n * (n - 1))) if n > 1 else float("nan")


def csim_share(vectors: np.ndarray, person: np.ndarray) -> float:
    """Identity relative to the person's own spread: mean cosine to the scan / mean cosine within the scan."""
    return float(csim(vectors, person).mean()) / own_spread(person) if len(vectors) else float("nan")
