"""Threads between reading and showing: no frames pile up, none is lost unless dropping is on, every thread ends."""

import threading
import time

import numpy as np
import pytest
import torch
from live_person import avatar, frames

from mystudio.engines.personal.settings import ReenactSettings
from mystudio.live.follow import Live
from mystudio.live.stream import Pace, _Slot, play


@pytest.fixture
def live():
    made = Live(avatar(), ReenactSettings())
    yield made
    made.close()


def numbered(count: int, seconds: float):
    """A source that always has a frame ready."""
    timed = frames(6)
    for i in range(count):
        time.sleep(seconds)
        yield i / 25, timed[i % 6][1]


def given(timed):
    yield from timed


def test_every_frame_comes_in_order_when_none_may_be_dropped(live):
    pace = Pace()
    times = [s.time for s in play(numbered(8, 0), live, pace, drop=False, paced=False)]
    assert times == [i / 25 for i in range(8)]
    told = pace.summary()
    assert told["frames"] == 8 and told["dropped"] == 0 and told["outcomes"] == {"followed": 8}
    assert list(told["stages_ms"]) == ["read", "track", "measure", "code", "synthesize", "compose", "output"]
    assert told["latency_ms"]["median"] <= told["latency_ms"]["p95"] and told["frames_per_second"] > 0


def test_when_showing_is_slow_frames_are_left_out_and_the_delay_stays(live):
    """40 frames at 10 ms and 150 ms a picture: a queue would be seconds late at the end."""
    pace, times = Pace(), []
    for shown in play(numbered(40, 0.01), live, pace, drop=True, paced=False):
        times.append(shown.time)
        time.sleep(0.15)
    assert times == sorted(set(times)) and times[-1] == 39 / 25  # the last frame is never dropped
    told = pace.summary()
    assert told["dropped"] >= 20 and told["frames"] + told["dropped"] == 40
    assert max(pace._delays) < 2.0 and told["stages_ms"]["output"]["median"] >= 150


def test_a_file_is_paced_by_its_times(live):
    timed = frames(6)
    source = [(0.3 * i, frame) for i, (_, frame) in enumerate(timed)]
    begun = time.perf_counter()
    shown = list(play(given(source), live, Pace(), drop=True, paced=True))
    assert time.perf_counter() - begun >= 1.5 and shown[-1].time == source[-1][0]


def test_stopping_early_ends_the_threads_and_the_source(live):
    closed = []

    def endless():
        try:
            while True:
                yield from ((time.monotonic(), frame) for _, frame in frames(6))
        finally:
            closed.append(threading.current_thread().name)

    before, workers = threading.active_count(), torch.get_num_threads()
    stream = play(endless(), live, Pace(), drop=True, paced=False)
    next(stream)
    stream.close()
    assert threading.active_count() == before and torch.get_num_threads() == workers
    assert closed == ["read"]  # the reading thread releases the camera


@pytest.mark.parametrize("drop", [False, True])
def test_an_error_of_the_source_arrives_after_its_frames(live, drop):
    def broken():
        yield from frames(3)
        raise OSError("the camera was unplugged")

    times = []
    with pytest.raises(OSError, match="unplugged"):
        for shown in play(broken(), live, Pace(), drop=drop, paced=False):
            times.append(shown.time)
    assert times[-1] == 2 / 25 and (drop or len(times) == 3)


def test_an_empty_source_has_no_speed(live):
    pace = Pace()
    assert list(play(given(()), live, pace, drop=False, paced=False)) == []
    assert pace.summary()["frames_per_second"] is None and pace.summary()["latency_ms"]["median"] is None


@pytest.mark.parametrize("drop", [False, True])
def test_a_slot_keeps_order_between_threads(drop):
    slot, got = _Slot(drop), []
    taker = threading.Thread(target=lambda: got.extend(slot))
    taker.start()
    for number in range(2000):
        slot.put(number)
    time.sleep(0.05)
    slot.close()
    taker.join(5)
    assert not taker.is_alive() and got == sorted(set(got)) and got[-1] == 1999
    assert len(got) + slot.dropped == 2000 and (drop or slot.dropped == 0)
    assert not slot.put("late")


def test_memory_of_times_is_bounded():
    pace = Pace()
    for _ in range(25_000):
        pace.lap("track", 0.01)
    assert len(pace._spent["track"]) == 10_000
    assert np.isclose(pace.summary()["stages_ms"]["track"]["median"], 10)
