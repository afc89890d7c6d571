"""Locating one face in a stream from past frames: equal crops to a track's, and the same face while it is visible."""

import numpy as np
import pytest
from face_clips import FPS, backdrop, compose

from selfscan.face import align
from selfscan.face.follow import Follower
from selfscan.face.locate import PATIENCE, Locator

SIZE = 256


@pytest.fixture(scope="module")
def people(alice, bob):
    return alice, bob


def locate(frames, sigma=2.0):
    locator = Locator(SIZE, sigma)
    try:
        return [locator(frame, i / FPS) for i, frame in enumerate(frames)]
    finally:
        locator.close()


def middles(places):
    return np.array([align.decompose(p.crop_from_frame, SIZE)[2] for p in places])


def test_crops_are_those_of_a_track_smoothed_over_the_past_alone(people):
    frames = [compose((people[0], 120 + 5 * i, 140 + i, 180)) for i in range(14)]
    follower = Follower()
    points = [next(iter(follower.step(frame).values()))[0] for frame in frames]
    follower.close()
    exact = align.ffhq_transform(np.stack(points), SIZE)
    for sigma in (0.0, 2.0):
        places = locate(frames, sigma)
        assert all(p.found for p in places) and [p.is_new for p in places] == [True] + [False] * 13
        for i, place in enumerate(places):
            past = exact[max(0, i - int(np.ceil(4 * sigma))) : i + 1]
            np.testing.assert_allclose(place.crop_from_frame, align.smooth(past, SIZE, sigma)[-1], atol=1e-9)
    late = middles(locate(frames, 2.0))[6:] - align.decompose(exact, SIZE)[2][6:]
    assert np.abs(late.mean(0)).max() < 0.5  # px, of a face that moves 5 px a frame: no delay


def test_a_frame_without_the_face_keeps_the_last_crop(people):
    frames = [compose((people[0], 150 + 3 * i, 144, 180)) if i not in (0, 5, 6) else backdrop() for i in range(9)]
    places = locate(frames)
    assert [p.found for p in places] == [i not in (0, 5, 6) for i in range(9)]
    assert np.array_equal(places[5].crop_from_frame, places[4].crop_from_frame)
    middle = align.apply(align.invert(places[0].crop_from_frame), np.array([[SIZE / 2, SIZE / 2]]))[0]
    assert np.allclose(middle, (448 / 2, 288 / 2))  # nothing yet: the middle of the frame


def test_somebody_else_takes_over_only_after_a_while(people):
    """A small face in the background is not taken for the driver while the driver looks away."""
    away = round(1.6 * PATIENCE * FPS)
    frames = [compose((people[0], 150, 144, 230), (people[1], 390, 200, 90)) for _ in range(3)]
    frames += [compose((people[1], 390, 200, 90)) for _ in range(away)]
    places = locate(frames)
    found = [p.found for p in places]
    assert found[:3] == [True] * 3 and middles(places)[2][0] < 200
    first = found[3:].index(True)
    assert PATIENCE * FPS - 2 <= first <= PATIENCE * FPS + 2 and all(found[3 + first :])
    assert places[3 + first].is_new and not any(p.is_new for p in places[4 + first :])
    assert middles(places)[-1][0] > 350


def test_everything_starts_anew_at_a_cut(people):
    """Another person of the same size, elsewhere: at once the exact crop, and no second of patience."""
    frames = [compose((people[0], 120 + 2 * i, 140, 180), seed=0) for i in range(8)]
    frames += [compose((people[1], 320 - 2 * i, 150, 180), seed=5) for i in range(8)]
    places = locate(frames)
    assert [i for i, place in enumerate(places) if place.is_cut] == [8] and all(place.found for place in places)
    x = middles(places)[:, 0]
    assert np.abs(x[:8] - (120 + 2 * np.arange(8))).max() < 8 and np.abs(x[8:] - (320 - 2 * np.arange(8))).max() < 8


def test_a_flash_and_a_light_are_no_cut(people):
    frames = [compose((people[0], 150 + 2 * i, 140, 190)) for i in range(16)]
    frames[5] = np.full_like(frames[5], 255)
    frames[9:] = [(frame * 0.4).astype(np.uint8) for frame in frames[9:]]
    assert not any(place.is_cut for place in locate(frames))


@pytest.mark.parametrize("wanted, x", [("left", 130), ("right", 330), ("2", 330), ("largest", 330)])
def test_the_wanted_face_is_located(people, wanted, x):
    locator = Locator(SIZE, 0.0, wanted=wanted)
    frame = compose((people[0], 130, 144, 140), (people[1], 330, 144, 200))
    place = locator(frame, 0.0)
    locator.close()
    assert np.abs(middles([place])[0, 0] - x) < 8
