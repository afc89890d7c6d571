"""A cartoon face for tests without photographs, and how far two sets of landmarks are apart."""

import cv2
import numpy as np
import torch


def draw_face(size: int = 192, shift=(0.0, 0.0), degrees: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Draw a cartoon face that MediaPipe accepts as one: [size, size, 3] uint8 RGB."""
    image = np.full((768, 768, 3), (90, 110, 130), np.uint8)
    brown, skin, shade, light = (60, 40, 30), (224, 180, 150), (179, 144, 120), (242, 194, 162)

    def ellipse(centre, axes, colour, start=0):
        at, radii = [int(4 * c) for c in centre], [int(4 * a) for a in axes]
        cv2.ellipse(image, at, radii, 0, start, 360, colour, -1, cv2.LINE_AA)

    ellipse((96, 84), (66, 76), brown)
    ellipse((96, 102), (54, 70), skin)
    for x in (72, 120):
        ellipse((x, 84), (14, 9), shade)
        ellipse((x, 85), (11, 5), (245, 245, 245))
        ellipse((x, 85), (5, 5), (70, 50, 40))
        ellipse((x, 85), (2, 2), (10, 10, 10))
        ellipse((x, 72), (15, 4), brown, start=180)
    ellipse((96, 112), (9, 7), shade)
    ellipse((96, 100), (4, 18), light)
    ellipse((96, 138), (20, 7), (190, 90, 90))
    ellipse((96, 138), (19, 1), (110, 40, 40))
    image = cv2.GaussianBlur(image, (0, 0), 5)
    matrix = cv2.getRotationMatrix2D((384, 384), degrees, scale)
    matrix[:, 2] += np.multiply(shift, 768)
    image = cv2.warpAffine(image, matrix, (768, 768), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def to_unit(images) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def percent_of_eye_distance(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    eyes = want[..., [33, 133], :2].mean(-2) - want[..., [362, 263], :2].mean(-2)
    return 100 * np.linalg.norm(got[..., :2] - want[..., :2], axis=-1) / np.linalg.norm(eyes, axis=-1)[..., None]
