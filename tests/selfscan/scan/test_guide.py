"""Guiding the recording of a self-scan: words, advice, and the end of the recording."""

from contextlib import closing
from datetime import date

import numpy as np
import pytest
from face_clips import compose, photographs

from selfscan.errors import ConsentMissing
from selfscan.face.headpose import canonical_head
from selfscan.scan.guide import (
    AGREE,
    FIRST_SECONDS,
    ITEM_SECONDS,
    MOVED,
    WORDS,
    Advice,
    Guide,
    code_words,
    draw,
    from_json,
    guided,
    mouth_moved,
    to_json,
)
from selfscan.types import CodeWords, Said

ITEMS = ("one", "two")


def camera(count, closed=None, frame=None):
    """A camera of ten frames a second; ``closed`` records its release."""
    try:
        for k in range(count):
            yield k / 10, np.full((48, 64, 3), k, np.uint8) if frame is None else frame
    finally:
        if closed is not None:
            closed.append(True)


def test_words_are_random_distinct_and_dated():
    drawn = {code_words(date(2026, 3, 9)) for _ in range(8)}
    assert len(drawn) == 8  # equal draws of three out of 64: one in 9,000
    for agree, day, *words in drawn:
        assert agree == AGREE and day == "9 March 2026" and len(set(words)) == 3 and set(words) <= set(WORDS)
    assert len(WORDS) == len(set(WORDS)) == 64


def test_a_recording_ends_in_time_unchanged_and_lets_the_camera_go():
    for stop, most, expected in ((None, 1.0, 10), (4, 1.0, 5)):
        closed, shown = [], []

        def show(frame, advice, stop=stop, shown=shown):
            shown.append(advice)
            return "stop" if advice.time == (stop or -10) / 10 else ""

        with closing(Guide(ITEMS, 1.0)) as guide:
            kept = list(guided(camera(30, closed), guide, show, most))
        assert [round(10 * time) for time, _ in kept] == list(range(expected)) and closed == [True]
        assert all((frame == k).all() for k, (_, frame) in enumerate(kept))
        assert all("no face" in advice.wrong[0] and not advice.enough for advice in shown)


def test_each_item_is_shown_in_its_time():
    with closing(Guide(ITEMS, 10.0)) as guide:
        seen = {}
        list(guided(camera(80), guide, lambda _, advice: seen.setdefault(advice.say, advice.time) and "", 8.0))
        assert seen == {"": 0.0, "one": FIRST_SECONDS, "two": FIRST_SECONDS + ITEM_SECONDS}
        assert guide.said(5.0) == (Said("one", 2.0, 4.5), Said("two", 4.5, 5.0)) and guide.said(1.0) == ()
        assert guide.last_word == 7.0


def test_the_picture_s_faults_are_told(shared):
    one, two = photographs(shared, 3, 12)
    large = (one, 224, 150, 260)
    cases = {"": compose(large), "too dark": compose(large) // 12, "second face": compose((one, 120, 144, 210),
             (two, 340, 144, 200)), "too far": compose((one, 224, 144, 120))}  # fmt: skip
    for told, frame in cases.items():
        with closing(Guide(ITEMS, 10.0)) as guide:
            advice = guide(frame, 0.0)
        assert any(told in text for text in advice.wrong) if told else advice.wrong == (), (told, advice.wrong)


def test_what_was_shown_long_enough_is_not_asked_for_again(shared):
    frame = compose((photographs(shared, 3)[0], 224, 150, 260))
    with closing(Guide(ITEMS, 5.0)) as guide:
        for k in range(8):
            advice = guide(frame, k / 8)
        assert advice.todo == guide._todo[:2] and len(guide._todo) > 5
        assert "turn the head right" not in guide._todo and "turn the head left" in guide._todo  # as the photograph


def words(**changes):
    return CodeWords(
        (Said("amber", 0.0, 1.0), Said("river", 1.0, 2.0)), "2026-01-01T00:00:00+00:00", "ab" * 32, **changes
    )


def test_a_record_of_words_survives_the_file_and_refuses_another_recording():
    assert from_json(to_json(words()), "ab" * 32, "x") == words()
    saved_again = to_json(words()).decode().replace("\n", "\r\n").encode("utf-8-sig")
    assert from_json(saved_again, "ab" * 32, "x") == words()
    with pytest.raises(ConsentMissing, match="another recording"):
        from_json(to_json(words()), "cd" * 32, "x")
    for bad in (b"", b"[]", b'{"said": 3}', to_json(words())[:40], b"{" * 10_000):
        with pytest.raises(ConsentMissing, match="me.words.json: expected the words"):
            from_json(bad, "ab" * 32, "me.words.json")


def test_a_mouth_that_moves_is_told_from_one_at_rest():
    times = np.arange(40) / 20
    marks = np.repeat(canonical_head()[None], 40, 0).astype(np.float32)
    marks[times < 1, 14, 1] += 0.2 * np.abs(np.sin(12 * times[times < 1]))
    one, two = mouth_moved(words(), marks, times, np.ones(40, bool)).said
    assert one.mouth > 3 * MOVED and two.mouth == pytest.approx(0) and one.text == "amber"
    assert mouth_moved(words(), marks, times, times > 1).said[0].mouth is None


def test_advice_is_written_on_a_mirror_and_not_on_the_recording():
    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    kept = frame.copy()
    silent = draw(frame, Advice(0.0, "", (), (), True))
    np.testing.assert_array_equal(silent, frame[:, ::-1])
    for advice in (
        Advice(0.0, "amber", (), ("smile broadly",), False),
        Advice(0.0, "", ("too dark: turn on a light",), (), False),
    ):
        changed = (draw(frame, advice) != silent).any(-1)
        rows = np.flatnonzero(changed.any(1))
        assert 200 < changed.sum() < changed.size / 4 and (rows.min() > 120) == bool(advice.say)  # words below
    np.testing.assert_array_equal(frame, kept)
