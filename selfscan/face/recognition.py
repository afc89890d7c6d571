"""Face recognition: each face becomes 128 numbers, which are near for one person and far apart for two people.

The network is dlib's (King, 2017: a ResNet with 29 convolutions, weights in the public domain, CC0). It runs on the
CPU. The package face_recognition_models carries its file and is not imported, because it needs pkg_resources.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np

from selfscan.errors import ModelMissing
from selfscan.face.align import crop
from selfscan.face.headpose import procrustes
from selfscan.face.landmarks import EYE_CORNERS, NOSE_BASE
from selfscan.types import Array

PACKAGES = "dlib-bin face-recognition-models"
FILE = "models/dlib_face_recognition_resnet_model_v1.dat"
NUMBERS = 128
SIDE, MARGIN = 150, 0.25  # px of the network's input; margin around dlib's mean face, in its sides
POINTS = (*EYE_CORNERS[1][::-1], *EYE_CORNERS[0], NOSE_BASE)  # corners of both eyes, outer one first; base of the nose
#: where dlib's mean face has POINTS (x, y); 0..1 without the margin
MEAN_FACE = np.array([(0.8596, 0.2135), (0.6461, 0.2290), (0.1206, 0.2137), (0.3341, 0.2291), (0.4901, 0.6278)])


class FaceRecognition:
    """dlib's network.

    Args:
        path: file of its weights.
    """

    def __init__(self, path: Path):
        import dlib

        self._network = dlib.face_recognition_model_v1(str(path))  # pyright: ignore[reportAttributeAccessIssue]

    def embed(self, images: Array, landmarks: Array) -> Array:
        """Embeddings of faces.

        Args:
            images: [N, S, S, 3] uint8 RGB crops.
            landmarks: [N, 478, 3] in crops (0..1).
        Returns:
            [N, 128] float32.
        """
        rows = [self._network.compute_face_descriptor(_face(image, marks)) for image, marks in zip(images, landmarks)]
        return np.array(rows, np.float32).reshape(-1, NUMBERS)


def likeness(a: Array, b: Array) -> Array:
    """Likeness [N, M] of embeddings [N, 128] and [M, 128]: 1 - Euclidean distance; 1 = equal pictures."""
    return 1 - np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=-1)


def find_weights() -> Path | None:
    """File of the network's weights; None if it or dlib is not installed."""
    package = importlib.util.find_spec("face_recognition_models")
    if package is None or package.origin is None or importlib.util.find_spec("dlib") is None:
        return None
    path = Path(package.origin).parent / FILE
    return path if path.is_file() else None


@lru_cache(maxsize=1)
def load_recognition() -> FaceRecognition:
    """The network, loaded once.

    Raises:
        ModelMissing: one of the two packages is not installed.
    """
    path = find_weights()
    if path is None:
        raise ModelMissing(f"face recognition: expected two packages, at least one is missing; pip install {PACKAGES}")
    return FaceRecognition(path)


def _face(image: Array, landmarks: Array) -> Array:
    """The face [150, 150, 3] as the network expects it."""
    found = landmarks[list(POINTS), :2] * image.shape[1]
    return cut_out(image, found, SIDE * (MEAN_FACE + MARGIN) / (1 + 2 * MARGIN), SIDE)


def cut_out(image: Array, found: Array, places: Array, side: int) -> Array:
    """Cut a face out so that points lie nearest to given places.

    Args:
        image: [S, S, 3] uint8 RGB.
        found: [P, 2] px of the points in the image.
        places: [P, 2] px where a network expects them.
        side: of the result, px.
    Returns:
        [side, side, 3] uint8 RGB.
    """
    scale, rotation, shift = procrustes(found, places)
    return crop(image, np.column_stack([scale * rotation, shift]), side)
