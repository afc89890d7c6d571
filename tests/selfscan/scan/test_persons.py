"""Which shots of a clip show another person."""

import numpy as np
import pytest
from face_clips import clip, compose, photographs

from selfscan.face.observe import observe
from selfscan.scan.persons import find_others

ALICE, BOB = 12, 7  # numbers of two photographs of different people, both frontal


@pytest.fixture(scope="module")
def people(shared):
    return photographs(shared, ALICE, BOB)


def test_a_cut_to_another_person_is_found_and_one_to_the_same_person_is_not(people, tmp_path):
    alice, bob = people
    shots = ((alice, 130, 150, 0), (alice, 300, 230, 1), (bob, 224, 190, 2), (alice, 130, 150, 0))
    frames = (compose((who, x + k % 3, 140, side), seed=seed) for who, x, side, seed in shots for k in range(10))
    seen = observe(clip(tmp_path / "talk.mp4", frames))
    assert seen.track.cuts[:, 0].tolist() == [10, 20, 30]
    assert find_others(seen).tolist() == [False] * 20 + [True] * 10 + [False] * 10


def test_a_clip_without_cuts_shows_one_person(people, tmp_path):
    seen = observe(clip(tmp_path / "one.mp4", [compose((people[0], 224, 144, 180))] * 6))
    assert not find_others(seen).any() and seen.warnings == ()


def test_notes_name_cuts_and_turned_faces_with_their_seconds(people, tmp_path):
    upright = [compose((people[0], 200, 144, 190))] * 10
    frames = [*upright, *(np.ascontiguousarray(f[::-1, ::-1]) for f in upright)]
    seen = observe(clip(tmp_path / "flip.mp4", frames))
    said = " ".join(seen.warnings)
    assert "cut at 0.40 s" in said and "upside down at 0.40 to 0.76 s" in said
    assert seen.track.cut_spans == ((pytest.approx(0.4), pytest.approx(0.4)),)
