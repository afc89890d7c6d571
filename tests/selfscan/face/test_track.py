"""Tracking a face: gaps, other people, insets, cuts, and clips without a face."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from face_clips import FPS, HEIGHT, WIDTH, backdrop, clip, compose
from hypothesis import given, settings
from hypothesis import strategies as st

from selfscan.errors import NoFaceFound, SecondFace, UnreadableVideo
from selfscan.face import align
from selfscan.face.follow import DETECT_EVERY
from selfscan.face.track import fill_gaps, track
from selfscan.io import video


def middle(face, index):
    return align.decompose(align.ffhq_transform(face.landmarks[index], 256), 256)[2]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_gaps_are_straight_lines_and_ends_are_held(seed, missing):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    valid = rng.uniform(size=count) > missing
    valid[rng.integers(count)] = True
    truth = np.arange(count)[:, None, None] * rng.normal(size=(1, 5, 3)) + rng.normal(size=(1, 5, 3))
    values = np.where(valid[:, None, None], truth, np.nan)
    fill_gaps(values, valid)
    known = np.flatnonzero(valid)
    assert np.allclose(values[known[0] : known[-1] + 1], truth[known[0] : known[-1] + 1])
    assert (values[: known[0]] == values[known[0]]).all() and (values[known[-1] :] == values[known[-1]]).all()


def test_a_moving_face_is_followed_to_the_pixel(alice, tmp_path):
    x, y, side = np.linspace(120, 330, 30), np.linspace(130, 160, 30), np.linspace(150, 220, 30)
    path = clip(tmp_path / "c.mp4", (compose((alice, *p)) for p in zip(x, y, side)))
    calls = []
    face = track(path, progress=lambda *call: calls.append(call))
    assert face.valid.all() and not face.second_face.any() and (face.score > 0.9).all()
    assert face.frame_size == (WIDTH, HEIGHT) and np.allclose(face.times, np.arange(30) / FPS)
    assert calls[-1] == ("track", 30, 30)
    scale, angle, centre = align.decompose(align.ffhq_transform(face.landmarks, 256), 256)
    off = centre - np.column_stack([x, y])  # the photographs are FFHQ crops: their middle is the crop's middle
    assert np.abs(off - off.mean(0)).max() < 2.5 and np.abs(off).max() < 6
    assert np.allclose(scale * side / 256, 1, atol=0.06) and np.abs(np.degrees(angle)).max() < 4


def test_frames_without_a_face_keep_their_slot(alice, tmp_path):
    gone = {0, 1, 10, 11, 12, 13, 14, 15, 22, 23}
    covered = cv2.GaussianBlur(alice, (0, 0), 40)  # as behind frosted glass: the same shot, but no face
    frames = (compose((covered if i in gone else alice, 150 + 4 * i, 144, 180)) for i in range(24))
    face = track(clip(tmp_path / "c.mp4", frames))
    assert set(np.flatnonzero(~face.valid)) == gone
    assert (face.score[~face.valid] == 0).all() and len(face) == 24
    assert np.isfinite(face.landmarks).all() and np.isfinite(face.pose).all()
    assert (face.landmarks[:2] == face.landmarks[2]).all() and (face.landmarks[22:] == face.landmarks[21]).all()
    inside = np.array([middle(face, i) for i in range(9, 17)])[:, 0]
    assert np.allclose(np.diff(inside), 4, atol=0.7)


def test_a_face_that_is_gone_from_one_frame_to_the_next_is_a_cut_and_held_on_both_sides(alice, tmp_path):
    gone = set(range(10, 16))
    frames = (backdrop() if i in gone else compose((alice, 150 + 4 * i, 144, 180)) for i in range(24))
    face = track(clip(tmp_path / "c.mp4", frames))
    assert set(np.flatnonzero(~face.valid)) == gone and face.cuts.size
    steps = np.diff(np.array([middle(face, i) for i in range(24)])[:, 0])
    assert (np.abs(steps[10:15]) > 1).sum() == 1  # one jump, where the frames before and after meet


def test_no_face_is_an_error_that_names_the_clip(tmp_path):
    path = clip(tmp_path / "empty room.mp4", [backdrop(i) for i in range(6)])
    with pytest.raises(NoFaceFound, match="empty room.mp4"):
        track(path)
    with pytest.raises(UnreadableVideo):
        track(tmp_path / "absent.mp4")


def test_a_second_person_is_noticed_and_a_scan_can_refuse_them(alice, bob, tmp_path):
    def frames():
        for i in range(50):
            yield compose((alice, 130, 144, 190), *([(bob, 340, 144, 150)] if i >= 12 else []))

    path = clip(tmp_path / "two.mp4", frames())
    face = track(path)
    assert face.valid.all() and np.abs(middle(face, slice(None))[:, 0] - 130).max() < 8
    assert not face.second_face[:12].any() and face.second_face[20:].all()
    with pytest.raises(SecondFace, match="two.mp4"):
        track(path, second_face_stops=True)


def test_a_small_inset_is_ignored_even_when_it_comes_first(alice, bob, tmp_path):
    def frames():
        for i in range(26):
            yield compose(*([(alice, 200, 130, 240)] if i >= 6 else []), (bob, 60, 240, 84))

    path = clip(tmp_path / "inset.mp4", frames())
    face = track(path, second_face_stops=True)
    late = DETECT_EVERY  # the large face appears while another is tracked: the next detection finds it
    assert np.abs(middle(face, slice(late, None)) - (200, 130)).max() < 8 and face.valid[late:].all()
    assert not face.valid[:6].any() and not face.second_face.any()


def test_faces_that_grow_and_cross_in_size_do_not_swap(alice, bob, tmp_path):
    size = np.linspace(0, 50, 30)
    frames = (compose((alice, 125, 144, 200 - s), (bob, 325, 144, 150 + s)) for s in size)
    face = track(clip(tmp_path / "swap.mp4", frames))
    x = middle(face, slice(None))[:, 0]
    assert face.valid.all() and np.ptp(x) < 8 and face.second_face.all()


def test_a_cut_keeps_the_only_face(alice, tmp_path):
    frames = (compose((alice, *((110, 130) if i < 12 else (330, 150)), 170), seed=i // 12) for i in range(24))
    face = track(clip(tmp_path / "cut.mp4", frames))
    assert face.valid.all()
    assert np.abs(middle(face, slice(None))[:, 0] - np.repeat([110, 330], 12)).max() < 8


@pytest.mark.parametrize("name", ["driver-mouth", "driver-largepose", "scan-turning", "scan-longhair"])
def test_landmarks_agree_with_the_reference_pipeline(shared, tmp_path, name):
    """Every landmark agrees with MediaPipe's own graph, frame by frame."""
    mediapipe = pytest.importorskip("mediapipe")
    frames = (image for _, image in video.read(shared / f"clips/{name}.mp4"))
    path = clip(tmp_path / "c.mp4", (image for _, image in zip(range(12), frames)))
    face, errors = track(path), []
    with mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True) as reference:
        for points, (_, image) in zip(face.landmarks, video.read(path)):
            found = reference.process(image).multi_face_landmarks[0].landmark
            truth = np.array([[p.x * image.shape[1], p.y * image.shape[0]] for p in found])
            eyes = np.linalg.norm(truth[33] - truth[263])
            errors.append(np.linalg.norm(points[:, :2] - truth, axis=1) / eyes)
    later = np.array(errors[4:])  # both tracks started from different regions and converged to the same one
    assert np.median(later) < 0.01 and np.median(later[:, 468:]) < 0.012 and later.max() < 0.04


def test_inset_of_a_real_clip_is_ignored(shared, tmp_path):
    clips = ((i, image) for i, (_, image) in enumerate(video.read(shared / "clips/scan-longhair.mp4")))
    path = clip(tmp_path / "c.mp4", (image for i, image in clips if i % 15 == 0))
    face = track(path, second_face_stops=True)
    assert face.valid.all() and not face.second_face.any()
    assert np.ptp(face.landmarks[:, :468, 0], axis=1).min() > 180


QUIET = """
import sys
import selfscan.face.track
assert "mediapipe" not in sys.modules, "mediapipe is only needed when a clip is tracked"
print(selfscan.face.track.track(sys.argv[1]).valid.all())
"""


def test_tracking_says_nothing_and_imports_nothing_early(alice, tmp_path):
    path = clip(tmp_path / "c.mp4", [compose((alice, 224, 144, 200))] * 2)
    done = subprocess.run([sys.executable, "-c", QUIET, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
