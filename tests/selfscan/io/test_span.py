"""A part of a clip: which frames, at which times, with which sound; and runs of packets that need no decoding."""

import numpy as np
import pytest

from selfscan.errors import UnreadableVideo, VideoTooLarge
from selfscan.io import video
from selfscan.io.sound import SoundOf
from selfscan.types import Span
from tests.selfscan.io.clips import FPS, clip, heard_beeps, picture, seen_flashes
from tests.selfscan.io.test_clock import SYNC


def times_of(path, *span):
    return np.array([time for time, _ in video.read(path, span=Span(*span))])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eight seconds with a key frame every 12 frames and frames out of order between them."""
    return clip(tmp_path_factory.mktemp("span") / "s.mp4", 8.0, options={"g": "12", "bf": "2"})


@pytest.mark.parametrize(
    "start,end,count,second",
    [
        (0.0, 1.0, 25, 0.04),
        (2.0, 3.0, 25, 0.04),
        (2.01, 3.0, 25, 0.03),  # what is shown at 2.01 s is the frame of 2.00 s
        (5.0, None, 75, 0.04),
        (7.96, None, 1, None),
        (3.0, 3.02, 1, None),
    ],
)
def test_a_part_begins_with_what_is_shown_at_its_start(source, start, end, count, second):
    times = times_of(source, start, end)
    assert len(times) == count and times[0] == 0
    assert second is None or times[1] == pytest.approx(second, abs=1e-6)
    info = video.probe(source, span=Span(start, end))
    assert info.duration == pytest.approx((end or 8.0) - start, abs=0.05)
    assert abs(info.frames_estimate - count) <= 1


@pytest.mark.parametrize("ending,options", [("mp4", {"g": "12", "bf": "2"}), ("mkv", {"g": "50"}), ("ts", {"g": "25"}),
                                            ("avi", {"g": "25", "bf": "2"})])  # fmt: skip
def test_frames_left_out_undecoded_change_nothing(tmp_path, ending, options):
    source = clip(tmp_path / f"s.{ending}", 8.0, options=options)
    whole = [(time, image) for time, image in video.read(source) if time >= 6.1 - 1e-3]
    part = list(video.read(source, span=Span(6.1)))[-len(whole) :]
    assert np.allclose([time + 6.1 for time, _ in part], [time for time, _ in whole], atol=1e-6)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(part, whole))


def test_the_sound_of_a_part_is_cut_with_the_picture(source, tmp_path):
    for ending in ("mp4", "mkv", "webm"):
        out, span = tmp_path / f"o.{ending}", Span(2.4, 5.5)
        frames = list(video.read(source, span=span))
        video.write_stream(out, iter(frames), FPS, SoundOf(source, span.start))
        assert np.abs(seen_flashes(out) - [0.6, 1.6, 2.6]).max() < 0.002
        assert np.abs(heard_beeps(out) - [0.6, 1.6, 2.6]).max() < SYNC


def test_a_part_after_the_end_is_refused_with_the_length(source):
    with pytest.raises(UnreadableVideo, match="which is 8.00 s long, got one from 9 s on"):
        times_of(source, 9.0)
    with pytest.raises(ValueError, match="an end after it"):
        Span(2.0, 2.0)


def test_a_part_of_a_clip_that_is_too_long_is_read(source):
    few = video.Limits(seconds=2.0, frames=60)
    with pytest.raises(VideoTooLarge):
        video.probe(source, few)
    assert len(list(video.read(source, few, span=Span(4.0, 5.0)))) == 25


def test_a_part_of_an_animation_and_of_a_folder(tmp_path):
    video.write(f"{tmp_path}/all/", (picture(k) for k in range(50)), np.arange(50) / FPS)
    video.write(tmp_path / "a.gif", (picture(k) for k in range(50)), np.arange(50) / FPS)
    for path in (tmp_path / "all", tmp_path / "a.gif"):
        assert np.allclose(times_of(path, 0.4, 0.8), np.arange(10) / FPS, atol=1e-6)
