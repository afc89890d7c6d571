"""FFHQ-style square crop of a face, smoothed over time, and its exact inverse.

Coordinates are continuous pixels: (0, 0) is the corner of an image and (0.5, 0.5) the centre of its first pixel, so a
crop of any size is spanned by 0..size.
"""

from __future__ import annotations

import numpy as np

from selfscan.face.landmarks import FFHQ_POINTS
from selfscan.types import Alignment, Array, FaceTrack, check_shape

EYE_FACTOR, MOUTH_FACTOR = 2.0, 1.8  # half the side of the crop in eye distances / eye-mouth distances: FFHQ's own
MESH_FACTOR = 0.991  # FFHQ's 68-point distances / the mesh's, which are slightly larger (458 FFHQ faces)
CENTRE_BELOW_EYES = 0.1  # of the eye-mouth vector: FFHQ's own
KERNEL_RADIUS = 4  # in sigmas, where a Gaussian has fallen to 0.03 %
PREFILTER = 0.4  # sigma, target px: prevents aliasing when shrinking; about as sharp as area averaging


def ffhq_transform(landmarks: Array, size: int) -> Array:
    """Similarity that makes the FFHQ crop: Karras et al., A Style-Based Generator Architecture, 2019, appendix A.

    Args:
        landmarks: [..., 478, 3] or [..., 478, 2] px of the frame.
        size: side of the crop, px.
    Returns:
        crop_from_frame [..., 2, 3] float64, px to px.
    """
    points = np.asarray(landmarks, np.float64)[..., :2]
    right, left, mouth = (points[..., list(FFHQ_POINTS[k]), :].mean(-2) for k in ("right_eye", "left_eye", "mouth"))
    across, eyes = left - right, (left + right) / 2
    down = mouth - eyes
    x = across + np.stack([down[..., 1], -down[..., 0]], -1)  # mean of the eye line and the normal to eyes-to-mouth
    half = np.maximum(np.linalg.norm(across, axis=-1) * EYE_FACTOR, np.linalg.norm(down, axis=-1) * MOUTH_FACTOR)
    side = 2 * MESH_FACTOR * half
    return similarity(size / side, -np.arctan2(x[..., 1], x[..., 0]), eyes + CENTRE_BELOW_EYES * down, size)


def similarity(scale: Array, angle: Array, centre: Array, size: int) -> Array:
    """Similarity that rotates and scales a frame and moves ``centre`` to the middle of the crop.

    Args:
        scale: [...] crop px a frame px.
        angle: [...] rad, turns x towards y.
        centre: [..., 2] px of the frame.
        size: side of the crop, px.
    Returns:
        crop_from_frame [..., 2, 3] float64.
    """
    a: Array = scale * np.cos(angle)
    b: Array = scale * np.sin(angle)
    linear = np.stack([np.stack([a, -b], -1), np.stack([b, a], -1)], -2)
    shift = size / 2 - (linear @ centre[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], -1)


def decompose(crop_from_frame: Array, size: int) -> tuple[Array, Array, Array]:
    """Scale, angle and centre of a similarity: the inverse of ``similarity``.

    Args:
        crop_from_frame: [..., 2, 3].
        size: side of the crop, px.
    Returns:
        scale [...], angle [...] rad, centre [..., 2] px of the frame.
    """
    a, b = crop_from_frame[..., 0, 0], crop_from_frame[..., 1, 0]
    middle = np.full((*crop_from_frame.shape[:-2], 1, 2), size / 2)
    return np.hypot(a, b), np.arctan2(b, a), apply(invert(crop_from_frame), middle)[..., 0, :]


def invert(b_from_a: Array) -> Array:
    """Inverse of affine maps [..., 2, 3]."""
    linear = np.linalg.inv(b_from_a[..., :2])
    return np.concatenate([linear, -linear @ b_from_a[..., 2:]], -1)


def apply(b_from_a: Array, points: Array) -> Array:
    """Transform points by similarities; a third coordinate is only scaled.

    Args:
        b_from_a: [..., 2, 3].
        points: [..., N, 2] or [..., N, 3].
    Returns:
        Points of the same shape.
    """
    moved = points[..., :2] @ np.swapaxes(b_from_a[..., :2], -1, -2) + b_from_a[..., None, :, 2]
    if points.shape[-1] == 2:
        return moved
    scale = np.hypot(b_from_a[..., 0, 0], b_from_a[..., 1, 0])
    return np.concatenate([moved, points[..., 2:] * scale[..., None, None]], -1)


def smooth(crop_from_frame: Array, size: int, sigma: float = 2.0, valid: Array | None = None) -> Array:
    """Smooth similarities over time without delay: first-order normalised convolution with a Gaussian.

    Log scale, unwrapped angle and centre are smoothed (Knutsson and Westin, Normalized and Differential Convolution,
    1993). Invalid frames have weight 0 and are interpolated between the smoothed valid ones. Linear motion stays
    exact, also at the clip's ends.

    Args:
        crop_from_frame: [T, 2, 3].
        size: side of the crop, px.
        sigma: standard deviation of the Gaussian in frames; 2 is PGR's value (arXiv:2307.06307); 0 = off.
        valid: [T] bool, or None for all.
    Returns:
        crop_from_frame [T, 2, 3].
    Raises:
        ValueError: no frame is valid, or ``valid`` has another length.
    """
    count = len(crop_from_frame)
    valid = np.ones(count, bool) if valid is None else np.asarray(valid, bool)
    check_shape("valid", valid, (count,))
    if not valid.any():
        raise ValueError("valid: expected at least one valid frame, got none")
    index = np.flatnonzero(valid)
    scale, angle, centre = decompose(crop_from_frame[valid], size)
    known = np.column_stack([np.log(scale), np.unwrap(angle), centre])
    if sigma > 0:
        padded = np.zeros((count, known.shape[1]))
        padded[valid] = known - known.mean(0)
        known = _local_lines(padded, valid.astype(float), sigma)[valid] + known.mean(0)
    log_scale, angle, x, y = (np.interp(np.arange(count), index, column) for column in known.T)
    return similarity(np.exp(log_scale), angle, np.column_stack([x, y]), size)


def align(track: FaceTrack, size: int, sigma: float = 2.0) -> Alignment:
    """FFHQ crop of every frame of a track, smoothed inside each shot.

    Args:
        track: the face.
        size: side of the crop, px.
        sigma: temporal smoothing, frames.
    Returns:
        One similarity a frame.
    """
    transforms = ffhq_transform(track.landmarks, size)
    for shot in track.shots:
        if track.valid[shot].any():  # a shot without a face keeps the place that the track holds there
            transforms[shot] = smooth(transforms[shot], size, sigma, track.valid[shot])
    return Alignment(transforms, size)


def rescale(crop_from_frame: Array, factor: float) -> Array:
    """The same crop with ``factor`` times as many pixels a side."""
    return np.asarray(crop_from_frame, np.float64) * factor


def crop(frame: Array, crop_from_frame: Array, size: int) -> Array:
    """Cut an aligned square out of a frame; shrinking is antialiased.

    Outside the frame, its last row and column are repeated. Mirroring would show a second crown above a head near the
    edge; the landmark network also pads by repetition.

    Args:
        frame: [H, W, 3] uint8 RGB.
        crop_from_frame: [2, 3].
        size: side of the crop, px.
    Returns:
        [size, size, 3] uint8 RGB.
    """
    import cv2

    return _warp(frame, np.asarray(crop_from_frame, np.float64), (size, size), cv2.BORDER_REPLICATE)


def paste(frame: Array, image: Array, crop_from_frame: Array, mask: Array | None = None) -> Array:
    """Put an aligned square back where it was cut out: the inverse of ``crop``.

    Args:
        frame: [H, W, 3] uint8 RGB; not changed.
        image: [S, S, 3] uint8 RGB.
        crop_from_frame: [2, 3] that made the crop of side S.
        mask: [S, S] in 0..1, the weight of the image over the frame; None = the whole square.
    Returns:
        [H, W, 3] uint8 RGB.
    """
    import cv2

    size = len(image)
    frame_from_crop = invert(np.asarray(crop_from_frame, np.float64))
    box = _box(apply(frame_from_crop, _corners(size)), frame.shape)
    top, bottom, left, right = box
    out = frame.copy()
    if top >= bottom or left >= right:
        return out
    frame_from_crop[:, 2] -= left, top
    weight = np.ones((size, size), np.float32) if mask is None else np.asarray(mask, np.float32)
    weight = _warp(weight, frame_from_crop, (right - left, bottom - top), cv2.BORDER_CONSTANT)[..., None]
    patch = _warp(image, frame_from_crop, (right - left, bottom - top), cv2.BORDER_REPLICATE)
    below = out[top:bottom, left:right]
    blended = below + np.clip(weight, 0, 1) * (patch.astype(np.float32) - below)
    out[top:bottom, left:right] = np.rint(blended).astype(np.uint8)
    return out


def _local_lines(values: Array, weight: Array, sigma: float) -> Array:
    """Fit a line to each frame's neighbours, weighted by a Gaussian; return its value at the frame."""
    radius = min(int(np.ceil(KERNEL_RADIUS * sigma)), len(values) - 1)
    offset = np.arange(-radius, radius + 1, dtype=float)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)

    def correlate(signal, power):
        full = np.convolve(signal, (kernel * offset**power)[::-1])
        return full[radius : radius + len(signal)]

    m0, m1, m2 = (correlate(weight, power) for power in range(3))
    det = m0 * m2 - m1**2
    lonely = det < 1e-9 * np.maximum(m0, 1) ** 2  # a single neighbour defines no slope: use the mean
    out = np.empty_like(values)
    for k, column in enumerate(values.T):
        p0, p1 = correlate(column * weight, 0), correlate(column * weight, 1)
        line = (m2 * p0 - m1 * p1) / np.where(lonely, 1, det)
        out[:, k] = np.where(lonely, p0 / np.maximum(m0, 1e-300), line)
    return out


def _warp(image: Array, b_from_a: Array, size: tuple[int, int], border: int) -> Array:
    import cv2

    shrink = 1 / np.sqrt(abs(np.linalg.det(b_from_a[:, :2])))
    inside = _corners(size[0], size[1])
    top, bottom, left, right = _box(apply(invert(b_from_a), inside), image.shape, margin=3 + int(3 * shrink))
    if top >= bottom or left >= right:  # the crop lies outside the source: repeat its nearest row or column
        top, left = min(max(top, 0), image.shape[0] - 1), min(max(left, 0), image.shape[1] - 1)
        bottom, right = top + 1, left + 1
    source = image[top:bottom, left:right]
    if shrink > 1:
        sigma = PREFILTER * np.sqrt(shrink**2 - 1)
        source = cv2.GaussianBlur(source, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    matrix = b_from_a.copy()
    matrix[:, 2] += b_from_a[:, :2] @ (left + 0.5, top + 0.5) - 0.5  # OpenCV puts (0, 0) on a pixel's centre
    return cv2.warpAffine(source, matrix, size, flags=cv2.INTER_CUBIC, borderMode=border)


def frame_corners(crop_from_frame: Array, size: int, frame_size: tuple[int, int]) -> Array:
    """Corners of the frame in crops.

    Args:
        crop_from_frame: [N, 2, 3] that made the crops of side ``size``.
        size: side of the crops, px.
        frame_size: width and height of the frame, px.
    Returns:
        [N, 4, 2], 0..1 spans the crop: top left, top right, bottom right, bottom left of the frame.
    """
    return apply(np.asarray(crop_from_frame, np.float64), _corners(*frame_size)) / size


def inside_frame(corners: Array, size: int, margin: float = 1.0) -> Array:
    """Which pixels of crops the camera saw; the others repeat the frame's last row and column.

    Args:
        corners: [N, 4, 2] from ``frame_corners``.
        size: side of the crops, px.
        margin: px from the frame's edge inwards that count as outside, because resampling mixes both.
    Returns:
        [N, size, size] bool.
    """
    centres = (np.arange(size) + 0.5) / size
    inside = np.ones((len(corners), size, size), bool)
    for start, end in zip(np.moveaxis(corners, 1, 0), np.moveaxis(np.roll(corners, -1, axis=1), 1, 0)):
        (along_x, along_y), (x, y) = ((end - start) / np.linalg.norm(end - start, axis=-1, keepdims=True)).T, start.T
        down = along_x[:, None, None] * (centres[:, None] - y[:, None, None])
        across = along_y[:, None, None] * (centres[None, :] - x[:, None, None])
        inside &= down - across >= margin / size
    return inside


def _corners(width: float, height: float | None = None) -> Array:
    height = width if height is None else height
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], float)


def _box(points: Array, shape: tuple[int, ...], margin: int = 1) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right) of an image that points enclose."""
    low, high = np.floor(points.min(0)).astype(int) - margin, np.ceil(points.max(0)).astype(int) + margin
    return max(low[1], 0), min(high[1], shape[0]), max(low[0], 0), min(high[0], shape[1])
