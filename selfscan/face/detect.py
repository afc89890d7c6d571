"""Find faces in a frame with the two detectors of the mediapipe package."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from selfscan.face import align

FULL_RANGE = 1  # mediapipe's number of the full-range model; finds faces down to 4 % of the frame's width
SHORT_RANGE = 0  # the model for near faces; finds some large faces that the full-range model misses
SURE = {FULL_RANGE: 0.0, SHORT_RANGE: 0.7}  # minimum scores: the short-range model scores noise at up to 0.68
TURN_MARGIN = 0.1  # by which both scores together are higher after a half turn; upright faces lose 0.3
SURE_FACE = 1.3  # both scores together, of an upright face in close-up: 1.6 to 1.9; upside down 0.5 to 1.5
REFINEMENTS, UPRIGHT = 3, 0.3  # times that the angle is corrected in close-up; rad: a smaller rest is upright
CLOSE_UP, AROUND = 256, 3.0  # px, side of the picture in which a face is turned; and its side / the side of the box
TILES, RIM = 3, 3  # squares of a frame in which hidden faces are searched; and its sides / the width of a mirrored rim
SAME_FACE = 0.5  # share of a box's width: boxes with closer centres are one face


@dataclass(frozen=True)
class Detection:
    """One face found by the detector."""

    centre: np.ndarray  # [2] px
    width: float  # px of the box
    side: float  # px, the longer side of the box
    angle: float  # rad of the eye line, x towards y
    score: float  # 0..1

    def is_near(self, point: np.ndarray) -> bool:
        """Whether a face centred at ``point`` [2] px counts as this face."""
        return bool(np.linalg.norm(self.centre - point) < SAME_FACE * self.width)


class Detector:
    """MediaPipe's full-range and short-range detectors: Bazarevsky et al., BlazeFace, 2019 (arXiv:1907.05047)."""

    def __init__(self):
        with _quiet():
            from mediapipe.python.solutions.face_detection import FaceDetection

            self._nets = {model: FaceDetection(model_selection=model) for model in SURE}
            for net in self._nets.values():
                net.process(np.zeros((64, 64, 3), np.uint8))  # the first picture triggers the start messages

    def __call__(self, frame: np.ndarray) -> list[Detection]:
        """Find faces.

        Args:
            frame: [H, W, 3] uint8 RGB.
        Returns:
            The faces, widest first.
        """
        return self._found(frame, SURE)

    def _found(self, frame: np.ndarray, least: Mapping[int, float]) -> list[Detection]:
        found: list[Detection] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf deprecations inside mediapipe
            for model, net in self._nets.items():
                answer: Any = net.process(frame)  # a named tuple whose type mediapipe creates at run time
                seen = [_detection(face, *frame.shape[1::-1]) for face in answer.detections or []]
                seen = [face for face in seen if face.score >= least.get(model, 0.0)]
                found += [face for face in seen if not any(face.is_near(other.centre) for other in found)]
        return sorted(found, key=lambda face: -face.width)

    def hidden(self, frame: np.ndarray) -> list[Detection]:
        """Find faces that the whole frame does not show well: in profile, partly covered, or cut off by its edge.

        Patterns that are no face are found too: the scores of such faces are as low.

        Args:
            frame: [H, W, 3] uint8 RGB.
        Returns:
            The faces in coordinates of the frame, from squares of it and from the frame with a mirrored rim.
        """
        height, width = frame.shape[:2]
        side, found = min(height, width), list[Detection]()
        for share in np.linspace(0, 1, TILES):
            x, y = round(share * (width - side)), round(share * (height - side))
            tile = np.ascontiguousarray(frame[y : y + side, x : x + side])
            found += [replace(face, centre=face.centre + (x, y)) for face in self._found(tile, {})]
        rim = (height // RIM, width // RIM)
        wide = np.pad(frame, ((rim[0],) * 2, (rim[1],) * 2, (0, 0)), mode="reflect")
        return found + [replace(face, centre=face.centre - rim[::-1]) for face in self._found(wide, {})]

    def turned(self, frame: np.ndarray) -> list[Detection]:
        """Find faces that lie on their side or upside down: both networks expect upright ones.

        Args:
            frame: [H, W, 3] uint8 RGB.
        Returns:
            The faces in coordinates of the frame, from the one turn of it that shows them best.
        """
        height, width = frame.shape[:2]
        best, surest = list[Detection](), SURE_FACE
        for quarters in (2, 1, 3):
            found = [_turned_back(face, quarters, width, height) for face in self(_quarters(frame, quarters))]
            found = [self.upright(frame, face) for face in found]
            sure = max((self._sureness(_close_up(frame, face)) for face in found), default=0.0)
            if sure > surest:
                best, surest = found, sure
        return best

    def upright(self, frame: np.ndarray, detection: Detection) -> Detection:
        """The detection with its true angle, also if the face lies on its side or is upside down.

        The landmark network is as sure of an upside-down face as of an upright one. The detectors are not.
        """
        here, turned = (self._refined(frame, replace(detection, angle=detection.angle + turn)) for turn in (0.0, np.pi))
        sure, other = (self._sureness(_close_up(frame, face)) for face in (here, turned))
        return turned if other > sure + TURN_MARGIN else here

    def _refined(self, frame: np.ndarray, face: Detection) -> Detection:
        """The face turned by the angle that it still has in close-up."""
        for _ in range(REFINEMENTS):
            found = [near for near in self(_close_up(frame, face)) if near.is_near(np.full(2, CLOSE_UP / 2))]
            rest = max(found, key=lambda near: near.score).angle if found else 0.0
            face = replace(face, angle=face.angle + rest)
            if abs(rest) < UPRIGHT:
                break
        return face

    def _sureness(self, picture: np.ndarray) -> float:
        """Both networks' best scores together."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers: list[Any] = [net.process(picture) for net in self._nets.values()]
        return sum(max((face.score[0] for face in answer.detections or []), default=0.0) for answer in answers)

    def close(self) -> None:
        """Free the networks."""
        for net in self._nets.values():
            net.close()


def _detection(face, width: int, height: int) -> Detection:
    box = face.location_data.relative_bounding_box
    size = np.array([box.width * width, box.height * height])
    right, left = (np.array([p.x * width, p.y * height]) for p in face.location_data.relative_keypoints[:2])
    across = left - right
    centre = np.array([box.xmin * width, box.ymin * height]) + size / 2
    return Detection(centre, float(size[0]), float(size.max()), float(np.arctan2(*across[::-1])), float(face.score[0]))


def _quarters(frame: np.ndarray, quarters: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(frame, quarters))


def _close_up(frame: np.ndarray, face: Detection) -> np.ndarray:
    """The face and its surroundings, turned by its angle: [CLOSE_UP, CLOSE_UP, 3] uint8."""
    scale = CLOSE_UP / (AROUND * max(face.side, 1.0))
    region = align.similarity(np.array(scale), np.array(-face.angle), face.centre, CLOSE_UP)
    return np.ascontiguousarray(align.crop(frame, region, CLOSE_UP))


def _turned_back(face: Detection, quarters: int, width: int, height: int) -> Detection:
    """A detection in a frame of ``width`` x ``height`` px that was turned by ``np.rot90``, in its own coordinates."""
    x, y = face.centre
    centre = {1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[quarters]
    return replace(face, centre=np.array(centre), angle=face.angle + quarters * np.pi / 2)


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
