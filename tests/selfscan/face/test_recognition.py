"""dlib's face recognition network, given our landmarks."""

import cv2
import numpy as np
import pytest
from face_clips import photographs

from selfscan.errors import ModelMissing
from selfscan.face import recognition
from selfscan.face.facemesh import load_facemesh
from selfscan.face.observe import measure
from selfscan.face.recognition import likeness, load_recognition

PEOPLE = (12, 7, 3, 30)  # numbers of photographs of different people


@pytest.fixture(scope="module")
def people(shared):
    images = np.stack([cv2.resize(image, (256, 256)) for image in photographs(shared, *PEOPLE)])
    marks, presence = measure(load_facemesh(), images)
    assert presence.min() > 0.9
    return images, marks, load_recognition().embed(images, marks)


def test_another_picture_of_a_person_is_nearer_than_another_person(people):
    images, marks, vectors = people
    assert vectors.shape == (len(PEOPLE), 128) and vectors.dtype == np.float32
    ramp = np.linspace(0.5, 1.3, 256)[None, None, :, None]
    soft = np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in images])
    for changed in (images * 0.5, images * ramp, soft):
        others = load_recognition().embed(np.clip(changed, 0, 255).astype(np.uint8), marks)
        like = likeness(vectors, others)
        assert np.diag(like).min() > 0.7
        assert like[~np.eye(len(like), dtype=bool)].max() < 0.5


def test_the_face_is_cut_out_as_dlib_does_it(people):
    """Against dlib's own crop from the same five points."""
    dlib = pytest.importorskip("dlib")
    images, marks, _ = people
    for image, points in zip(images, marks):
        large = cv2.resize(image, (1024, 1024))  # dlib takes whole pixels
        places = [dlib.point(*map(int, np.rint(p))) for p in points[list(recognition.POINTS), :2] * 1024]
        found = dlib.full_object_detection(dlib.rectangle(240, 240, 800, 800), places)
        theirs, ours = dlib.get_face_chip(large, found, recognition.SIDE, 0.25), recognition._face(large, points)
        assert np.abs(ours.astype(float) - theirs).mean() < 6  # half a pixel apart
        vectors = [np.array(load_recognition()._network.compute_face_descriptor(face)) for face in (ours, theirs)]
        assert np.linalg.norm(vectors[0] - vectors[1]) < 0.1


def test_likeness_is_one_minus_the_distance():
    a, b = np.random.default_rng(0).normal(size=(3, 128)), np.random.default_rng(1).normal(size=(2, 128))
    assert likeness(a, b)[2, 1] == pytest.approx(1 - np.sqrt(((a[2] - b[1]) ** 2).sum()))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(recognition, "find_weights", lambda: None)
    load_recognition.cache_clear()
    with pytest.raises(ModelMissing, match="pip install dlib-bin face-recognition-models"):
        load_recognition()
