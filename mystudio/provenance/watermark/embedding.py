"""Embedding: the pattern is added to the luma, with a strength that follows the picture's texture."""

from __future__ import annotations

import cv2
import numpy as np

from mystudio.errors import StudioError
from mystudio.provenance.watermark.pattern import WatermarkSettings, cell_size, draw
from mystudio.provenance.watermark.payload import encode

DITHER = np.array([[-0.375, 0.125], [0.375, -0.125]], np.float32)  # grey levels: avoids contours where the mark is weak
ROUNDING = 1 / 6  # grey levels^2: mean squared error of rounding with dither
EDGE = 10.0  # grey levels: more contrast than this does not raise the strength


def embed(images: np.ndarray, payload: int, settings: WatermarkSettings | None = None) -> np.ndarray:
    """Hide a payload in one image or several; equal inputs give equal outputs.

    Args:
        images: [..., H, W, 3] uint8 RGB.
        payload: 0 to 2^48 - 1, see ``payload_of``.
        settings: key and strength.
    Returns: [..., H, W, 3] uint8 RGB.
    Raises: StudioError: wrong type or shape, or payload out of range.
    """
    settings = settings or WatermarkSettings()
    check_images(images)
    images = np.ascontiguousarray(images)
    height, width = images.shape[-3:-1]
    word = encode(payload).astype(np.int8).tobytes()
    pattern = draw(settings.key, word, height, width)
    dither = np.tile(DITHER, (height // 2 + 1, width // 2 + 1))[:height, :width]
    marked = np.empty_like(images)
    flat_in, flat_out = (array.reshape(-1, *images.shape[-3:]) for array in (images, marked))
    for image, out in zip(flat_in, flat_out):
        change = np.rint(pattern * strength(image, settings) + dither).astype(np.int16)
        cv2.add(image, cv2.merge([change] * 3), dst=out, dtype=cv2.CV_8U)  # saturates
    return marked


def strength(image: np.ndarray, settings: WatermarkSettings) -> np.ndarray:
    """Return the strength of the mark at each pixel: high in texture, low on plain surfaces.

    Args:
        image: [H, W, 3] uint8 RGB.
        settings: flat, texture, strongest, psnr.
    Returns: [H, W] float32, rms in grey levels.
    """
    height, width = image.shape[:2]
    cell = cell_size(height, width)
    small = (max(1, round(width / cell)), max(1, round(height / cell)))
    luma = cv2.cvtColor(cv2.resize(image, small, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = np.minimum(np.abs(luma - cv2.GaussianBlur(luma, (0, 0), 1.5)), EDGE)
    contrast = cv2.erode(cv2.GaussianBlur(detail, (0, 0), 1.5), np.ones((13, 13)))  # erosion removes single edges
    contrast = cv2.GaussianBlur(cv2.dilate(contrast, np.ones((9, 9))), (0, 0), 1.5)
    flat = settings.flat * min(1.2, max(1.0, 512 / min(height, width)) ** 0.5)  # small frames are displayed small
    allowed = np.minimum(flat + settings.texture * contrast, settings.strongest)
    limit = max(0.0, 255**2 * 10 ** (-settings.psnr / 10) - ROUNDING)
    allowed *= min(1.0, float(np.sqrt(limit / np.mean(allowed**2))))
    return cv2.resize(allowed, (width, height), interpolation=cv2.INTER_LINEAR)


def check_images(images: np.ndarray) -> None:
    """Raise StudioError unless the images are [..., H, W, 3] uint8."""
    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != 3 or not all(images.shape):
        raise StudioError(f"expected images [..., H, W, 3] uint8 RGB, got {images.shape} {images.dtype}; convert them")
