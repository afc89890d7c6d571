"""The networks that a user may bring for an evaluation: identity and expression weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfscan.face import recognition
from selfscan.face.landmarks import EYE_CORNERS, MOUTH_CORNERS, NOSE_TIP

#: where ArcFace expects right eye, left eye, nose tip and mouth corners in its 112 px square (x, y)
ARCFACE_POINTS = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
ARCFACE_SIZE = 112


class IdentityNet:
    """An independent face network (ONNX, RGB 0..255 NCHW 112 x 112, ArcFace alignment) run on the CPU."""

    def __init__(self, path: str | Path):
        import cv2

        self.name = Path(path).stem
        self._net = cv2.dnn.readNetFromONNX(str(path))

    def embed(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Unit vectors of the faces, aligned by eyes, nose tip and mouth corners.

        Args: images: [N, H, W, 3] uint8 RGB crops; landmarks: [N, 478, 3] in crops. Returns: [N, E] float32.
        """
        faces = np.stack([_arcface_crop(image, points) for image, points in zip(images, landmarks)])
        self._net.setInput(np.ascontiguousarray(faces.transpose(0, 3, 1, 2), dtype=np.float32))
        vectors = self._net.forward()
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _arcface_crop(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    xy = points[:, :2] * (image.shape[1], image.shape[0])
    right, left = (xy[list(corners)].mean(0) for corners in EYE_CORNERS)
    found = np.stack([right, left, xy[NOSE_TIP], *xy[list(MOUTH_CORNERS)]])
    return recognition.cut_out(image, found, ARCFACE_POINTS, ARCFACE_SIZE)


class Blendshapes:
    """The 52 ARKit-like expression weights of MediaPipe's FaceLandmarker, from its ``face_landmarker.task`` file."""

    def __init__(self, path: str | Path):
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=Path(path).read_bytes()), output_face_blendshapes=True
        )
        self.name = Path(path).name
        self._landmarker = vision.FaceLandmarker.create_from_options(options)

    def weights(self, images: np.ndarray) -> np.ndarray:
        """Expression weights of one face an image.

        Args: images: [N, H, W, 3] uint8 RGB. Returns: [N, 52] in 0..1; NaN where no face is found.
        """
        import mediapipe as mp

        rows = []
        for image in images:
            frame = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
            found = self._landmarker.detect(frame).face_blendshapes
            rows.append([c.score for c in found[0]] if found else [np.nan] * 52)
        return np.asarray(rows, dtype=np.float32)

    def close(self) -> None:
        """Free the network."""
        self._landmarker.close()
