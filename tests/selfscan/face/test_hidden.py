"""Faces that the detectors miss in a whole frame: in profile, partly covered, and at the frame's edge."""

import cv2
import numpy as np
import pytest
from face_clips import photographs

from selfscan.face.detect import Detector

NUMBERS = (3, 12)  # two photographs of different people, both frontal


@pytest.fixture(scope="module")
def detector():
    made = Detector()
    yield made
    made.close()


def frame_of(face, left):
    """A grey frame with a picture [200, w, 3] at a column."""
    frame = np.full((360, 640, 3), 110, np.uint8)
    frame[80:280, left : left + face.shape[1]] = face
    return frame


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("how", ["narrow", "lower half covered", "edge"])
def test_hidden_faces_are_found_at_their_place(shared, detector, number, how):
    face = cv2.resize(photographs(shared, number)[0], (200, 200), interpolation=cv2.INTER_AREA)
    if how == "narrow":  # as wide as a face in profile is beside its height
        frame, x = frame_of(cv2.resize(face, (110, 200), interpolation=cv2.INTER_AREA), 265), 320
    elif how == "edge":
        frame, x = frame_of(face[:, 90:], 0), 10
    else:
        face[110:] = 90
        frame, x = frame_of(face, 220), 320
    found = detector.hidden(frame)
    nearest = min(found, key=lambda face: abs(face.centre[0] - x))
    assert abs(nearest.centre[0] - x) < 40 and abs(nearest.centre[1] - 190) < 60


def test_an_empty_frame_has_no_hidden_face(detector):
    assert not detector.hidden(np.full((360, 640, 3), 110, np.uint8))
