"""Finding faces in a frame with the full-range detector that the mediapipe package carries."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

FULL_RANGE = 1  # mediapipe's number of the model that finds faces of 4 % of the frame's width
MIN_SCORE = 0.4  # below mediapipe's 0.5: the landmark network has the last word


@dataclass(frozen=True)
class Detection:
    """One face found by the detector."""

    centre: np.ndarray  # [2] px
    width: float  # px of the box
    side: float  # px, the longer side of the box
    angle: float  # rad of the eye line, x towards y
    score: float  # 0..1


class Detector:
    """MediaPipe's full-range face detector: Bazarevsky et al., BlazeFace, 2019 (arXiv:1907.05047)."""

    def __init__(self):
        with _quiet():
            import mediapipe

            self._net = mediapipe.solutions.face_detection.FaceDetection(
                model_selection=FULL_RANGE, min_detection_confidence=MIN_SCORE
            )
            self._net.process(np.zeros((64, 64, 3), np.uint8))  # its start messages come with the first picture

    def __call__(self, frame: np.ndarray) -> list[Detection]:
        """Find faces.

        Args:
            frame: [H, W, 3] uint8 RGB.
        Returns:
            The faces, widest first.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf deprecations inside mediapipe
            found = self._net.process(frame).detections or []
        faces = [_detection(face, frame.shape[1], frame.shape[0]) for face in found]
        return sorted(faces, key=lambda face: -face.width)

    def close(self) -> None:
        """Free the network."""
        self._net.close()


def _detection(face, width: int, height: int) -> Detection:
    box = face.location_data.relative_bounding_box
    size = np.array([box.width * width, box.height * height])
    right, left = (np.array([p.x * width, p.y * height]) for p in face.location_data.relative_keypoints[:2])
    across = left - right
    centre = np.array([box.xmin * width, box.ymin * height]) + size / 2
    return Detection(centre, float(size[0]), float(size.max()), float(np.arctan2(*across[::-1])), float(face.score[0]))


@contextmanager
def _quiet():
    """Keep the C++ libraries' start messages off the terminal."""
    sys.stderr.flush()
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
