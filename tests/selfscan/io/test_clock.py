"""One clock for picture and sound, from stamps of every kind; each clip has a flash and a beep at whole seconds."""

import itertools

import av
import numpy as np
import pytest

from selfscan.io import video
from selfscan.io.sound import SoundOf
from tests.selfscan.io.clips import FPS, clip, heard_beeps, seen_flashes

FRAME = 1 / FPS
SYNC = 0.007  # s
PAIRS = [
    ("mp4", "libx264", "aac"), ("mp4", "libx264", "libmp3lame"), ("mp4", "libx264", "ac3"),
    ("mp4", "libx264", "libopus"), ("mp4", "libx264", "flac"), ("mov", "libx264", "pcm_s16le"),
    ("mov", "mpeg4", "aac"), ("mkv", "libx264", "libopus"), ("mkv", "libx264", "aac"), ("mkv", "mpeg4", "libmp3lame"),
    ("mkv", "libx264", "flac"), ("mkv", "libx264", "pcm_s16le"), ("avi", "mpeg4", "libmp3lame"),
    ("avi", "mpeg4", "pcm_s16le"), ("avi", "mpeg4", "mp2"), ("avi", "mjpeg", "ac3"), ("ts", "libx264", "aac"),
    ("ts", "mpeg2video", "mp2"), ("ts", "libx264", "libmp3lame"), ("flv", "libx264", "aac"),
    ("webm", "libvpx", "libopus"),
]  # fmt: skip


def again(path, out, **sound):
    """Read a clip and write its pictures with its sound; returns the times and what became of the sound."""
    said, frames = [], list(video.read(path))
    times = [time for time, _ in frames]
    video.write(out, [image for _, image in frames], times, SoundOf(path, **sound), heard=said.append)
    return np.array(times), said[0]


def off(path):
    """Greatest distance of a beep from its flash, s."""
    flashes, sounds = seen_flashes(path), heard_beeps(path)
    assert len(flashes) == len(sounds) >= 2, (flashes, sounds)
    return np.abs(flashes - sounds).max()


@pytest.mark.parametrize("ending,pictures,sound", PAIRS)
def test_sound_stays_in_sync(tmp_path, ending, pictures, sound):
    pix_fmt = {"pictures": pictures, "sounds": (sound,), "rate": 48_000}
    source = clip(tmp_path / f"s.{ending}", **pix_fmt)
    before = off(source)  # what the container itself loses: an AVI drops the delay of its encoder
    _, heard = again(source, tmp_path / "o.mp4")
    assert heard.how in ("copied", "encoded") and heard.track == 1 and not heard.lost
    assert off(tmp_path / "o.mp4") < max(SYNC, before + 0.002)


@pytest.mark.parametrize("start", [0.4, 50.0, 5000.0])
@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_a_clip_starts_at_zero_wherever_its_stamps_start(tmp_path, start, ending):
    source = clip(tmp_path / f"s.{ending}", start=start)
    times, heard = again(source, tmp_path / "o.mp4")
    assert np.allclose(times, np.arange(75) * FRAME, atol=2e-3) and heard.how == "copied"
    assert off(tmp_path / "o.mp4") < SYNC and seen_flashes(tmp_path / "o.mp4")[0] < 1e-3
    assert video.probe(source).duration == pytest.approx(3.0, abs=0.06)


def joined(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_joined_broadcast_streams_play_at_their_speed_with_their_sound(tmp_path):
    parts = [clip(tmp_path / f"{k}.ts", seconds=2.0, start=start) for k, start in enumerate((0.0, 0.0, 700.0))]
    source = joined(tmp_path / "s.ts", *parts)
    times, heard = again(source, tmp_path / "o.mp4")
    assert np.allclose(times, np.arange(150) * FRAME, atol=2e-3)
    assert heard.how == "encoded" and off(tmp_path / "o.mp4") < SYNC
    assert len(heard_beeps(tmp_path / "o.mp4")) == 6
    info = video.probe(source)
    assert info.frames_estimate == 150 and info.duration == pytest.approx(6.0, abs=0.06)


def test_joined_streams_of_other_rates_and_layouts_keep_their_sound(tmp_path):
    parts = clip(tmp_path / "a.ts", 2.0), clip(tmp_path / "b.ts", 2.0, rate=48_000, layout="stereo")
    again(joined(tmp_path / "s.ts", *parts), tmp_path / "o.mp4")
    assert off(tmp_path / "o.mp4") < SYNC and len(heard_beeps(tmp_path / "o.mp4")) == 4


def test_stamps_that_wrap_go_on(tmp_path):
    wrap = 2**33 / 90_000
    source = clip(tmp_path / "s.ts", start=round((wrap - 1.5) * FPS) / FPS)
    times, _ = again(source, tmp_path / "o.mp4")
    assert np.allclose(times, np.arange(75) * FRAME, atol=2e-3) and off(tmp_path / "o.mp4") < SYNC


def test_a_gap_without_picture_and_sound_is_closed(tmp_path):
    def later(packets):
        for packet in packets:
            if packet.dts * packet.time_base >= 1.0:
                shift = round(30 / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
        return packets

    source = clip(tmp_path / "s.mkv", restamp=later, options={"g": "25", "bf": "0"})
    times, _ = again(source, tmp_path / "o.mp4")
    assert len(times) == 75 and np.allclose(np.diff(times), FRAME, atol=2e-3)
    assert off(tmp_path / "o.mp4") < 0.03  # one packet of sound straddles the gap


def test_a_still_picture_with_sound_that_goes_on_is_kept(tmp_path):
    def fewer(packets):
        return [p for p in packets if p.stream.type == "audio" or not 1 <= p.dts * p.time_base < 9]

    source = clip(tmp_path / "s.mkv", 10.0, "mjpeg", restamp=fewer)
    times, _ = again(source, tmp_path / "o.mp4")
    assert np.diff(times).max() == pytest.approx(8 + FRAME, abs=0.005) and times[-1] == pytest.approx(
        10 - FRAME, abs=0.005
    )
    assert len(heard_beeps(tmp_path / "o.mp4")) == 10


@pytest.mark.parametrize("reordered", ["1", "2", "3"])
def test_b_frames_in_avi_come_at_an_even_pace_and_in_order(tmp_path, reordered):
    source = clip(tmp_path / "s.avi", sounds=("libmp3lame",), options={"bf": reordered})
    times, _ = again(source, tmp_path / "o.mp4")
    assert np.allclose(times, np.arange(75) * FRAME, atol=1e-6)
    assert np.allclose(seen_flashes(tmp_path / "o.mp4"), [0, 1, 2], atol=1e-3)
    assert len(heard_beeps(tmp_path / "o.mp4")) == 3


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (1, 0, 3, 2), (3, 2, 1, 0)])
def test_stamps_out_of_order_are_put_in_order(tmp_path, order):
    def shuffled(packets):
        moving = [packet for packet in packets if packet.stream.type == "video"]
        for group in itertools.zip_longest(*[iter(moving)] * 4):
            stamps = [packet.pts for packet in group if packet]
            for packet, k in zip(group, order if len(stamps) == 4 else range(4)):
                if packet:
                    packet.pts, packet.dts = stamps[k], packet.dts - 4  # a stamp may not precede its decoding time
        return packets

    source = clip(tmp_path / "s.mkv", pictures="mjpeg", sounds=(), restamp=shuffled)
    times = [time for time, _ in video.read(source)]
    assert np.allclose(times, np.arange(75) * FRAME, atol=2e-3)


def test_repeated_stamps_are_spread(tmp_path):
    def repeated(packets):
        for packet in packets:
            packet.pts, packet.dts = packet.pts // 2 * 2, packet.dts - 2
        return packets

    source = clip(tmp_path / "s.mkv", pictures="mjpeg", sounds=(), restamp=repeated)
    with av.open(str(source)) as container:
        assert len({packet.pts for packet in container.demux(video=0)}) < 50, "the stamps were meant to repeat"
    times = np.array([time for time, _ in video.read(source)])
    assert np.allclose(np.diff(times), FRAME, atol=2e-3)


def test_sound_that_begins_before_the_picture_is_cut_and_later_sound_waits(tmp_path):
    for ahead in (0.4, -0.4):  # s by which the pictures are late

        def moved(packets, ahead=ahead):
            for packet in packets:
                kind = "video" if ahead > 0 else "audio"
                shift = round(abs(ahead) / packet.time_base) if packet.stream.type == kind else 0
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            return sorted(packets, key=lambda packet: packet.dts * packet.time_base)

        source = clip(tmp_path / "s.mkv", restamp=moved)
        times, _ = again(source, tmp_path / "o.mp4")
        assert times[0] == 0 and np.allclose(np.diff(times), FRAME, atol=2e-3)
        sounds = heard_beeps(tmp_path / "o.mp4")
        assert np.abs((sounds + ahead) - np.rint(sounds + ahead)).max() < SYNC
        assert len(sounds) == (2 if ahead > 0 else 3)
