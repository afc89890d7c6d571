"""Actors with the real head: the landmark network's measurements agree with the truth of each frame."""

import numpy as np
import pytest
import torch

from mystudio.actors.actor import Actor
from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS, load_basis
from mystudio.actors.motion import frame_from_factors, gaze_angles
from mystudio.actors.render import render
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.headpose import euler, head_pose
from selfscan.face.measures import measures
from selfscan.io.pixels import to_tensor

SIZE, PEOPLE = 256, 24
#: Multi-PIE landmark -> the same place in the 478 points
PAIRS = {36: 33, 39: 133, 42: 362, 45: 263, 30: 4, 33: 2, 48: 61, 54: 291, 51: 0, 57: 17}


@pytest.fixture(scope="module")
def basis(shared):
    return load_basis(shared / "actors" / "ict_basis.npz")


def seen(frames):
    """Landmarks [N, 478, 3] px and presence [N]."""
    images = to_tensor(np.stack([frame.image for frame in frames]))
    with torch.inference_mode():
        marks, presence = crop_landmarks(load_facemesh(), images)
    return marks.numpy() * SIZE, presence.numpy()


@pytest.fixture(scope="module")
def crowd(basis):
    """Return frames of many people with many motions, and the network's measurements."""
    frames = []
    for k in range(PEOPLE):
        r = np.random.default_rng((77, k))
        expression, pose = frame_from_factors(r.normal(size=26))
        frames.append(render(Actor(r.normal(size=38), basis), expression, pose, SIZE, "ffhq", seed=k))
    return frames, *seen(frames)


@pytest.fixture(scope="module")
def person(basis):
    """Return an actor without hair or glasses in front of the face."""
    look = np.random.default_rng(5).normal(size=38) * 0.5
    look[[32, 33]] = -0.8, 0.0  # cropped hair, no glasses
    return Actor(look, basis)


def acted(person, poses=None, **weights):
    """Render frames for a sequence of weights; everything else is neutral."""
    count = len(poses) if poses is not None else len(next(iter(weights.values())))
    frames = []
    for k in range(count):
        e = np.zeros(len(EXPRESSIONS), np.float32)
        for name, values in weights.items():
            for n in [name] if name in EXPRESSION_ID else [f"{name}_L", f"{name}_R"]:
                e[EXPRESSION_ID[n]] = values[k]
        pose = np.zeros(6, np.float32) if poses is None else np.asarray(poses[k], np.float32)
        frames.append(render(person, e, pose, SIZE, "ffhq", seed=k))
    return frames


def test_faces_are_found(crowd):
    _, _, presence = crowd
    assert (presence > 0.9).mean() >= 0.9, np.sort(presence)[:5]


def test_true_landmarks_agree(crowd):
    frames, marks, presence = crowd
    truth = np.stack([frame.landmarks for frame in frames])[presence > 0.9]
    marks = marks[presence > 0.9]
    eyes = np.linalg.norm(truth[:, 36:42].mean(1) - truth[:, 42:48].mean(1), axis=1)
    error = np.linalg.norm(truth[:, list(PAIRS)] - marks[:, list(PAIRS.values()), :2], axis=2) / eyes[:, None]
    assert np.median(error) < 0.06 and np.median(error, 0).max() < 0.14, np.median(error, 0).round(3)


def test_head_pose_agrees(crowd):
    frames, marks, presence = crowd
    found, good = euler(head_pose(marks)), presence > 0.9
    truth = np.stack([frame.pose[:3] for frame in frames])
    turned = np.array([np.arctan2(*frame.camera.image_from_frame[[1, 0], 0]) for frame in frames])  # clockwise
    error = np.degrees(found - truth)[good]
    yaw, pitch, roll = error[:, 0], error[:, 1] - np.median(error[:, 1]), error[:, 2] + np.degrees(turned[good])
    assert np.abs(yaw).mean() < 3.5 and np.abs(pitch).mean() < 3.5 and np.abs(roll).mean() < 3
    assert abs(np.median(error[:, 1])) < 7  # zero pitch is defined differently (see headpose)


def test_gaze_moves_the_irises(person):
    x = np.linspace(-0.9, 0.9, 7)
    sides = dict(eyeLookOut_L=x.clip(0), eyeLookIn_L=(-x).clip(0), eyeLookOut_R=(-x).clip(0), eyeLookIn_R=x.clip(0))
    frames = acted(person, **sides)
    marks, _ = seen(frames)
    found = measures(marks)["gaze_x"]
    truth = np.array([gaze_angles(frame.expression)[:, 0].mean() for frame in frames])
    assert np.corrcoef(found, truth)[0, 1] > 0.95 and np.ptp(found) > 0.15
    y = np.linspace(-0.8, 0.8, 7)
    marks, _ = seen(acted(person, eyeLookUp=y.clip(0), eyeLookDown=(-y).clip(0)))
    assert np.corrcoef(measures(marks)["gaze_y"], y)[0, 1] > 0.85


def test_a_blink_closes_the_eyes_and_a_jaw_opens_the_mouth(person):
    frames = acted(person, eyeBlink=[0, 0.5, 1], jawOpen=[0, 0, 0])
    marks, _ = seen(frames)
    opening = measures(marks)["eyes_open"]
    assert opening[0] > opening[1] > opening[2] and opening[2] < 0.55 * opening[0]
    truth = [np.linalg.norm(frame.landmarks[[37, 38]] - frame.landmarks[[41, 40]], axis=1).mean() for frame in frames]
    assert truth[2] < 0.35 * truth[0]
    marks, _ = seen(acted(person, jawOpen=[0, 0.4, 0.8]))
    mouth = measures(marks)["mouth_open"]
    assert mouth[0] < 0.06 < mouth[1] < mouth[2] and mouth[2] > 0.3


def test_closed_eyes_show_no_white(person):
    still, closed = acted(person, eyeBlink=[0, 1])
    x0, y0 = np.floor(still.landmarks[36:42].min(0)).astype(int)
    x1, y1 = np.ceil(still.landmarks[36:42].max(0)).astype(int)
    open_, shut = (frame.image[y0:y1, x0:x1].astype(float) for frame in (still, closed))
    spread = [np.ptp(np.percentile(eye.mean(2), (2, 98))) for eye in (open_, shut)]
    assert spread[1] < 0.75 * spread[0]
