"""Paste the avatar's face into the driving frame: soft mask inside both face ovals, colours matched along its rim."""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
from torch import Tensor

from mystudio.motion.smoothing import smooth_over_time
from selfscan.face.align import crop, paste
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.landmarks import OVAL

FIELD = 32  # px, side of the colour field; low, since light and skin tone vary slowly over a face
REACH = 0.12  # sigma, as a share of the field, of the Gaussian that spreads rim colours inwards
OUTLIER = 60  # levels of 255: rim pixels that differ by more are ignored as hair, background or glasses
MEMORY = 0.8  # share of the colour field kept from the frame before; smooths noise, since light changes slowly


class Blend:
    """Pastes an avatar's pictures into the frames of one driving clip, in order.

    Args:
        landmarks: [T, 478, 3] of the driver, in crops.
        valid: [T] bool: True = measured, False = interpolated.
        size: px of the square pictures.
        feather: width of the soft rim as a share of the face's width.
        colour: 0..1, how far the rim's colours follow the driving frame.
        shots: frames between two cuts, in order; light and place of the face start anew in each. () = no cut.
    """

    def __init__(
        self,
        landmarks: np.ndarray,
        valid: np.ndarray,
        size: int,
        feather: float,
        colour: float,
        shots: tuple[slice, ...] = (),
    ):
        self._ovals = smooth_over_time(landmarks[:, list(OVAL), :2].astype(np.float64), 1.5, valid, shots or None)
        self._starts, self._shot = [shot.start for shot in shots], 0
        self._size, self._feather, self._colour = size, feather, colour
        self._field: np.ndarray | None = None  # [FIELD, FIELD, 4]: weighted colour differences and their weight
        self._own: np.ndarray | None = None  # [36, 2] the avatar's oval, smoothed over the past

    def state(self) -> dict[str, np.ndarray]:
        """The state after the frames so far; after ``restore``, the next pictures are the same."""
        memory = {"field": self._field, "own": self._own, "shot": np.array(self._shot)}
        return {name: value for name, value in memory.items() if value is not None}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what ``state`` returned."""
        self._field, self._own, self._shot = state.get("field"), state.get("own"), int(state.get("shot", 0))

    @torch.inference_mode()
    def measure(self, images: Tensor) -> np.ndarray:
        """Landmarks [N, 478, 3] of the avatar's pictures [N, 3, H, W] in [-1, 1]."""
        return crop_landmarks(load_facemesh(device=images.device), images)[0].cpu().numpy()

    def __call__(
        self, frame: np.ndarray, image: np.ndarray, landmarks: np.ndarray, crop_from_frame: np.ndarray, index: int
    ) -> np.ndarray:
        """Paste the avatar's face into a frame; returns [H, W, 3] uint8.

        Args:
            frame: [H, W, 3] uint8 of the driving clip. image: [size, size, 3] uint8, the avatar in the crop.
            landmarks: [478, 3] of the image. crop_from_frame: [2, 3] px to px. index: the frame's index in the clip.
        """
        if (shot := sum(start <= index for start in self._starts)) != self._shot:
            self._shot, self._field, self._own = shot, None, None
        oval = landmarks[list(OVAL), :2]
        self._own = oval if self._own is None else (self._own + oval) / 2
        mask = np.minimum(self._soft(self._ovals[index]), self._soft(self._own))
        image = image.astype(np.float32)
        if self._colour > 0:
            target = crop(frame, crop_from_frame, self._size).astype(np.float32)
            image = image + self._colour * self._difference(target - image, mask)
        return paste(frame, np.clip(np.rint(image), 0, 255).astype(np.uint8), crop_from_frame, mask)

    def _soft(self, oval: np.ndarray) -> np.ndarray:
        """Mask [size, size]: 0 outside the oval, rising smoothly to 1 within the feather's width."""
        import cv2

        points = oval * self._size - 0.5  # OpenCV puts (0, 0) on a pixel's centre
        inside = np.zeros((self._size, self._size), np.uint8)
        hull = cv2.convexHull((points * 16).round().astype(np.int32))
        cv2.fillConvexPoly(inside, hull, (1,), lineType=cv2.LINE_8, shift=4)
        width = self._feather * np.ptp(points[:, 0])
        depth = np.clip(cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / max(width, 1e-6), 0, 1)
        return (depth * depth * (3 - 2 * depth)).astype(np.float32)

    def _difference(self, gap: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Colour correction of the image: the rim's colour differences, spread inwards (an approximate membrane)."""
        import cv2

        rim = (mask > 0.02) & (mask < 0.98)
        if not rim.any():
            return np.zeros_like(gap)
        usual = np.median(gap[rim], axis=0)
        weight = rim * np.clip(1 - np.abs(gap - usual).max(-1) / OUTLIER, 0, 1) + 1e-4 * rim
        stack = np.concatenate([gap * weight[..., None], weight[..., None]], axis=-1).astype(np.float32)
        field = cv2.resize(stack, (FIELD, FIELD), interpolation=cv2.INTER_AREA)
        blurred = (cv2.GaussianBlur(field, (0, 0), REACH * FIELD * k) / 10**k for k in (1, 2, 4))  # wide ones fill gaps
        field = reduce(np.add, blurred)
        field = field if self._field is None else MEMORY * self._field + (1 - MEMORY) * field
        self._field = field
        low = field[..., :3] / np.maximum(field[..., 3:], 1e-12)
        return cv2.resize(low.astype(np.float32), (gap.shape[1], gap.shape[0]), interpolation=cv2.INTER_CUBIC)
