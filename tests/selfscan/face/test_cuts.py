"""Finding cuts: every kind of cut is found at its frame; flashes, light, motion and compression are none."""

import cv2
import numpy as np
import pytest
from face_clips import HEIGHT, WIDTH, backdrop, clip, compose

from selfscan.face import align
from selfscan.face.choose import crowd
from selfscan.face.cuts import find_cuts, small
from selfscan.face.observe import observe
from selfscan.face.track import track
from selfscan.types import shots_of

FPS = 25


def room(seed: int) -> np.ndarray:
    """A textured scene, larger than a frame."""
    noise = np.random.default_rng(seed).uniform(0, 255, (300, 460)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 9)
    return ((soft - soft.mean()) * 8 + 120).clip(0, 255)


def shot(seed: int, count: int, speed: float = 1.0, zoom: float = 1.0, first: int = 0) -> list[np.ndarray]:
    """Frames [180, 320] of a scene that the camera pans over with ``speed`` px a frame."""
    scene, frames = room(seed), []
    for k in range(first, first + count):
        x = 40 + 30 * np.sin(k / 8) * speed
        matrix = np.array([[zoom, 0, 160 - zoom * (160 + x)], [0, zoom, 90 - zoom * 130]])
        frames.append(cv2.warpAffine(scene, matrix, (320, 180), borderMode=cv2.BORDER_REFLECT))
    return frames


def cuts_of(frames, faces=None, times=None) -> list[list[int]]:
    noise = np.random.default_rng(1)
    noisy = [(f + noise.normal(0, 2, f.shape)).clip(0, 255).astype(np.uint8) for f in frames]
    pictures = np.stack([small(np.repeat(f[..., None], 3, 2)) for f in noisy])
    faces = np.full((len(frames), 478, 3), np.nan, np.float32) if faces is None else faces
    return find_cuts(pictures, np.arange(len(frames)) / FPS if times is None else times, faces).tolist()


def faces_at(*centres) -> np.ndarray:
    """Landmarks [T, 478, 3] px of a face 60 px wide between the eyes, at centres (x, y)."""
    face = np.random.default_rng(2).uniform(-50, 50, (478, 3))
    face[33], face[263] = (-30, 0, 0), (30, 0, 0)
    return np.stack([face + (*centre, 0) for centre in centres]).astype(np.float32)


def test_hard_cuts_are_found_at_their_frames():
    assert cuts_of(shot(0, 15) + shot(1, 12) + shot(0, 14, first=40)) == [[15, 15], [27, 27]]
    assert cuts_of(shot(0, 15) + shot(0, 15, zoom=1.6, first=15)) == [[15, 15]]


@pytest.mark.parametrize("length", [4, 10, 25])
def test_a_cross_fade_is_one_cut_with_its_length(length):
    one, two = shot(0, 12 + length, speed=0.2), shot(1, 12 + length, speed=0.2)
    share = np.linspace(0, 1, length + 2)[1:-1]
    mixed = [(1 - w) * a + w * b for w, a, b in zip(share, one[12:], two)]
    ((first, last),) = cuts_of(one[:12] + mixed + two[length:])
    assert abs(first - 12) <= 2 and abs(last - (12 + length)) <= 2
    assert shots_of(np.array([[first, last]]), 24 + length)[0].stop == (first + last) // 2


def test_a_dip_to_black_is_a_cut_only_between_two_scenes():
    down = np.linspace(1, 0, 7)
    dark = [f * w for f, w in zip(shot(0, 7, first=10), down)]
    for second, count in ((1, 1), (0, 0)):
        up = [f * w for f, w in zip(shot(second, 7, first=17), down[::-1])]
        assert len(cuts_of(shot(0, 10) + dark + up + shot(second, 10, first=24))) == count


@pytest.mark.parametrize("white", [1, 3, 9])
def test_a_flash_is_no_cut(white):
    frames = shot(0, 40, speed=0.3)
    frames[15 : 15 + white] = [np.full_like(frames[0], 255)] * white
    frames[15 + white] = frames[15 + white] * 0.5 + 127
    assert cuts_of(frames) == []


def test_a_damaged_frame_is_no_cut():
    frames = shot(0, 30)
    frames[12:14] = shot(3, 2)
    assert cuts_of(frames) == []


def test_light_compression_fast_motion_and_a_passing_hand_are_no_cuts():
    lit = shot(0, 30)
    assert cuts_of([f * (0.25 if k < 14 else 1) for k, f in enumerate(lit)]) == []
    coarse = [f if k % 10 == 0 else np.round(f / 24) * 24 for k, f in enumerate(lit)]
    assert cuts_of(coarse) == []
    assert cuts_of(shot(0, 40, speed=3)) == []
    hand = room(5)[:180, :320] * 0.4 + 130
    passing = [f.copy() for f in lit]
    for k, f in enumerate(passing[5:25]):
        edge = int(min(k, 20 - k) * 18)
        f[:, max(edge - 90, 0) : edge] = hand[:, max(edge - 90, 0) : edge]
    assert cuts_of(passing) == []


def test_a_jump_of_the_face_is_a_cut_only_as_a_peak():
    still = shot(0, 30, speed=0.0)
    jumped = [*still[:15], *shot(0, 15, speed=0.0, zoom=1.12)]
    there = [(160 + 0.2 * k, 90) for k in range(15)]
    assert cuts_of(jumped, faces_at(*there, *[(x + 14, 97) for x, _ in there])) == [[15, 15]]
    assert cuts_of(still, faces_at(*there, *[(x + 14, 97) for x, _ in there])) == []  # landmarks alone may be wrong
    turning = [(160 + 50 * np.sin(k / 4), 90) for k in range(30)]
    assert cuts_of(shot(0, 30), faces_at(*turning)) == []


def test_dropped_seconds_are_a_cut_and_a_frozen_picture_is_none():
    times = np.concatenate([np.arange(15), np.arange(15) + 60]) / FPS
    assert cuts_of(shot(0, 15) + shot(0, 15, first=27), times=times) == [[15, 15]]
    assert cuts_of(shot(0, 30, speed=0.0), times=times) == []


def test_short_clips_have_no_cuts():
    assert cuts_of(shot(0, 1)) == [] and cuts_of(shot(0, 2)) == []


def place(transform):
    scale, angle, centre = align.decompose(transform, 256)
    return np.concatenate([centre, [256 / scale, np.degrees(angle)]])


def test_the_crop_is_exact_on_both_sides_of_a_jump_and_zoom_cut(alice, tmp_path):
    """Before a cut at frame 12 the face is at (110, 130), 150 px; after it at (300, 150), 240 px."""
    frames = (compose((alice, 110, 130, 150) if k < 12 else (alice, 300, 150, 240), seed=k // 12) for k in range(24))
    seen = observe(clip(tmp_path / "cut.mp4", frames))
    assert seen.track.cuts.tolist() == [[12, 12]] and seen.track.valid.all() and seen.presence.min() > 0.9
    crops = np.array([place(t) for t in seen.alignment.crop_from_frame])
    for part, centre, side in ((slice(0, 12), (110, 130), 150), (slice(12, 24), (300, 150), 240)):
        assert np.abs(crops[part, :2] - centre).max() < 0.06 * side
        assert np.abs(crops[part, 2] / side - 1).max() < 0.08


def test_gaps_are_held_not_bridged_where_a_cut_lies_in_them(alice, tmp_path):
    def frames():
        for k in range(36):
            yield backdrop(9) if 12 <= k < 24 else compose((alice, 110 if k < 12 else 330, 140, 180), seed=k // 24)

    face = track(clip(tmp_path / "away.mp4", frames()))
    assert face.cuts.tolist() == [[12, 12], [24, 24]] and set(np.flatnonzero(~face.valid)) == set(range(12, 24))
    x = np.array([place(align.ffhq_transform(points, 256))[0] for points in face.landmarks])
    assert np.abs(x[:12] - 110).max() < 8 and np.abs(x[24:] - 330).max() < 8
    assert (np.minimum(np.abs(x[12:24] - x[11]), np.abs(x[12:24] - x[24])) < 1e-3).all()


@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_face_is_turned_and_followed(alice, tmp_path, turn, mirrored):
    upright = [compose((alice, 200 + 3 * k, 144, 190)) for k in range(8)]
    turned = [np.ascontiguousarray(np.rot90(f[:, ::-1] if mirrored else f, turn)) for f in upright]
    height, width = turned[0].shape[:2]
    seen = observe(clip(tmp_path / "turned.mp4", turned))
    assert seen.track.valid.all() and seen.track.frame_size == (width, height)
    angles = np.array([place(t)[3] for t in seen.alignment.crop_from_frame])
    away = (angles - 90 * turn + 180) % 360 - 180
    assert np.abs(away).max() < 6  # the crop undoes the turn: its angle is known


def test_upright_faces_keep_their_turn_below_sixty_degrees(alice, tmp_path):
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 35, 1)
    frames = [cv2.warpAffine(compose((alice, 224, 144, 170)), turn, (WIDTH, HEIGHT))] * 4
    seen = observe(clip(tmp_path / "tilted.mp4", frames))
    assert seen.track.valid.all()
    assert np.abs(np.array([place(t)[3] for t in seen.alignment.crop_from_frame]) - 35).max() < 6


def test_one_of_several_faces_can_be_chosen(alice, bob, tmp_path):
    path = clip(tmp_path / "two.mp4", [compose((alice, 130, 144, 140), (bob, 330, 144, 200))] * 12)
    wanted = {"largest": 330, "left": 130, "right": 330, "1": 130, "2": 330}
    for face, x in wanted.items():
        found = track(path, face=face)
        middle = np.array([place(align.ffhq_transform(points, 256))[0] for points in found.landmarks])
        assert np.abs(middle - x).max() < 8, face
        assert len(found.crowd) == 2 and found.crowd[0, 1] < 130 < found.crowd[0, 3] < found.crowd[1, 1] < 330
    with pytest.raises(ValueError, match="largest, left, right or a number"):
        track(path, face="middle")
    with pytest.raises(Exception, match="number 3, but at most 2"):
        track(path, face="3")
    assert crowd([]).shape == (0, 5)
