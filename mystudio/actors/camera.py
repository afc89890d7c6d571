"""The camera: its projection, the crop of its view that becomes the image, and effects of lens and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mystudio.errors import StudioError

FOCAL = 4.2  # focal length in half-frames
DISTANCE = 95.0  # cm from the head's origin


@dataclass(frozen=True)
class Sensor:
    """Effects of lens and sensor."""

    exposure: float = 1.0  # factor on the light
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)  # white balance: factors on red, green, blue
    blur: float = 0.0  # standard deviation of a Gaussian, px of an image of 256 px
    noise: float = 0.0  # standard deviation at middle grey; white is 1


@dataclass(frozen=True, eq=False)
class Camera:
    """The pinhole camera in front of the head; ground truth of a frame."""

    image_from_frame: np.ndarray  # [2, 3] px of the image from frames (the camera's whole view is 0..1, y down)
    size: int  # px, side of the image
    focal: float = FOCAL  # half-frames
    distance: float = DISTANCE  # cm

    def project(self, places: np.ndarray) -> np.ndarray:
        """Project points [..., 3], cm in camera axes, to pixels [..., 2] of the image."""
        return in_frame(places) @ self.image_from_frame[:, :2].T + self.image_from_frame[:, 2]


def in_frame(places: np.ndarray) -> np.ndarray:
    """Project points [..., 3], cm in camera axes, to the camera's whole view [..., 2], 0..1."""
    flat = places[..., :2] * np.array([1, -1], places.dtype)
    return flat * (FOCAL * 0.5 / (DISTANCE - places[..., 2:])) + 0.5


def aim(landmarks: np.ndarray, size: int, crop: str | None) -> Camera:
    """Choose the part of the camera's view that becomes the image.

    Args:
        landmarks: [68, 2] frames. size: px. crop: None for the whole view, "ffhq" for the square of FFHQ's alignment
            (Karras et al., 2019, appendix): eyes level, mouth below, side by the distances between them.
    """
    if crop is None:
        return Camera(np.array([[size, 0, 0], [0, size, 0]], np.float64), size)
    if crop != "ffhq":
        raise StudioError(f"expected crop None or 'ffhq', got {crop!r}; choose one of them")
    lm = landmarks.astype(np.float64)
    eyes, mouth = (lm[36:42].mean(0) + lm[42:48].mean(0)) / 2, (lm[48] + lm[54]) / 2
    across, down = lm[42:48].mean(0) - lm[36:42].mean(0), mouth - eyes
    x = across + np.array([down[1], -down[0]])
    x *= max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8) / (np.hypot(*x) + 1e-9)
    y = np.array([-x[1], x[0]])
    corner = eyes + down * 0.1 - x - y
    linear = np.linalg.inv(np.stack([x, y], 1) * 2) * size
    return Camera(np.concatenate([linear, -(linear @ corner)[:, None]], 1), size)


def develop(light: np.ndarray, sensor: Sensor, seed: int) -> np.ndarray:
    """Turn linear light [2 S, 2 S, 3] into an image [S, S, 3] uint8; the seed determines the sensor's noise."""
    import cv2

    size = light.shape[0] // 2
    light = cv2.resize(light, (size, size), interpolation=cv2.INTER_AREA)
    if sensor.blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), max(sensor.blur * size / 256, 0.15))
    light = light * (sensor.exposure * np.array(sensor.balance, np.float32))
    if sensor.noise > 0:
        grain = np.random.default_rng(seed).standard_normal(light.shape, np.float32)
        light = light + sensor.noise * np.sqrt(0.04 + np.clip(light, 0, 1)) * grain
    light = np.clip(light, 0, None)
    light = np.where(light > 0.7, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.3), light)  # compress highlights smoothly
    image = np.where(light < 0.0031, 12.92 * light, 1.055 * np.power(np.maximum(light, 1e-4), 1 / 2.4) - 0.055)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
