"""Files joined end to end, whose codecs, streams or sound change from part to part; each has flashes and beeps."""

import av
import numpy as np
import pytest

from selfscan.io import video
from selfscan.io.joined import Slice, parts
from tests.selfscan.io.clips import clip, heard_beeps, picture, seen_flashes
from tests.selfscan.io.test_clock import FRAME, SYNC, again, joined, off

OTHER_PLACES = {"mpegts_start_pid": "0x200", "mpegts_pmt_start_pid": "0x1010"}


def whole(tmp_path, source, parts=2, sync=SYNC):
    """Check that all pictures and beeps of parts of two seconds are kept; returns what became of the sound."""
    times, heard = again(source, tmp_path / "o.mp4")
    assert np.allclose(times, np.arange(parts * 50) * FRAME, atol=2e-3)
    assert off(tmp_path / "o.mp4") < sync and len(heard_beeps(tmp_path / "o.mp4")) == 2 * parts
    assert heard.how == "encoded" and (heard.lost, heard.damaged) == ("", 0)
    return heard


@pytest.mark.parametrize(
    "first,second",
    [
        (("aac", 44_100, "mono"), ("mp2", 44_100, "mono")),
        pytest.param(("mp2", 48_000, "stereo"), ("aac", 48_000, "stereo"), marks=pytest.mark.slow),
        pytest.param(("aac", 48_000, "stereo"), ("ac3", 48_000, "mono"), marks=pytest.mark.slow),
        (("ac3", 48_000, "stereo"), ("libmp3lame", 44_100, "stereo")),
        pytest.param(("aac", 48_000, "mono"), ("libopus", 48_000, "stereo"), marks=pytest.mark.slow),
        (("aac", 48_000, "stereo"), ("aac", 22_050, "mono")),
    ],
)
def test_sound_of_another_codec_in_the_second_part_is_kept(tmp_path, first, second):
    names = [
        clip(tmp_path / f"{k}.ts", 2.0, sounds=(codec,), rate=rate, layout=layout)
        for k, (codec, rate, layout) in enumerate((first, second))
    ]
    whole(tmp_path, joined(tmp_path / "s.ts", *names))


@pytest.mark.parametrize(
    "how",
    [
        {"container": OTHER_PLACES},
        pytest.param({"container": OTHER_PLACES | {"mpegts_service_id": "7"}}, marks=pytest.mark.slow),
        pytest.param({"pictures": "mpeg2video", "sounds": ("mp2",)}, marks=pytest.mark.slow),
        {"pictures": "mpeg2video", "container": OTHER_PLACES},
    ],
)
def test_streams_in_other_places_or_of_other_codecs_go_on(tmp_path, how):
    source = joined(tmp_path / "s.ts", clip(tmp_path / "a.ts", 2.0), clip(tmp_path / "b.ts", 2.0, **how))
    whole(tmp_path, source)
    info = video.probe(source)
    assert info.frames_estimate == 100 and info.duration == pytest.approx(4.0, abs=0.06)


@pytest.mark.parametrize("ending,sound", [("mkv", "mp2"), ("mkv", "aac"), ("flv", "libmp3lame")])
def test_joined_files_with_headers_are_whole(tmp_path, ending, sound):
    names = clip(tmp_path / f"a.{ending}", 2.0), clip(tmp_path / f"b.{ending}", 2.0, sounds=(sound,))
    source = joined(tmp_path / f"s.{ending}", *names)
    whole(tmp_path, source)
    assert video.probe(source).frames_estimate == 100


def test_sound_that_begins_with_the_second_part_begins_there(tmp_path):
    parts = clip(tmp_path / "a.ts", 2.0, sounds=()), clip(tmp_path / "b.ts", 2.0)
    times, heard = again(joined(tmp_path / "s.ts", *parts), tmp_path / "o.mp4")
    assert len(times) == 100 and heard.track == 1
    assert np.abs(heard_beeps(tmp_path / "o.mp4") - [2, 3]).max() < SYNC


def test_a_track_goes_on_in_one_that_begins_where_it_ends(tmp_path):
    def halves(packets):
        for packet in packets:
            late = packet.dts * packet.time_base >= 2
            if packet.stream.type == "video" or late == (packet.stream.index == 2):
                yield packet

    for ending in ("mkv", "ts"):
        source = clip(tmp_path / f"s.{ending}", 4.0, sounds=("aac", "mp2"), restamp=lambda p: list(halves(p)))
        heard = whole(tmp_path, source)
        assert (heard.tracks, heard.track, heard.others) == (2, 1, (2,))
    _, heard = again(source, tmp_path / "p.mp4", track=2)  # what is asked for is used alone
    assert heard.others == () and np.abs(heard_beeps(tmp_path / "p.mp4") - [2, 3]).max() < SYNC


def test_two_tracks_that_sound_together_are_not_mixed(tmp_path):
    _, heard = again(clip(tmp_path / "s.mkv", 2.0, sounds=("aac", "mp2")), tmp_path / "o.mp4")
    assert (heard.how, heard.track, heard.others) == ("copied", 1, ())


@pytest.mark.parametrize("codec", ["aac", "mp2", "ac3"])
def test_a_rate_that_changes_without_a_jump_is_not_copied(tmp_path, codec):
    names = (
        clip(tmp_path / "a.ts", 2.0, sounds=(codec,), rate=48_000, layout="stereo"),
        clip(tmp_path / "b.ts", 2.0, sounds=(codec,), rate=32_000, start=2.08),
    )
    source = joined(tmp_path / "s.ts", *names)
    assert parts(source, "mpegts", "") == []
    padded = -2 % (1536 / 48_000) if codec == "ac3" else 0  # s of silence in the first part's last packet
    whole(tmp_path, source, sync=SYNC + padded)


def test_sound_that_cannot_be_decoded_in_part_is_counted(tmp_path):
    def damaged(packets):
        for packet in packets:
            if packet.stream.type == "audio" and packet.dts * packet.time_base >= 2:
                noise = av.Packet(b"\x55" * packet.size)
                noise.stream, noise.time_base, noise.duration = packet.stream, packet.time_base, packet.duration
                noise.pts, noise.dts, noise.is_keyframe = packet.pts, packet.dts, True
                packet = noise
            yield packet

    source = clip(tmp_path / "s.mkv", 4.0, sounds=("ac3",), rate=48_000, restamp=damaged)
    said, images = [], [picture(k) for k in range(100)]
    video.write(tmp_path / "o.webm", images, np.arange(100) * FRAME, source, heard=said.append)
    assert said[0].damaged == pytest.approx(2.0, abs=0.1) and said[0].track == 1


def test_a_part_reads_as_the_file_that_was_joined(tmp_path):
    names = clip(tmp_path / "a.ts", 2.0), clip(tmp_path / "b.ts", 2.0, sounds=("mp2",))
    source = joined(tmp_path / "s.ts", *names)
    first, second = parts(source, "mpegts", "audio")
    assert parts(source, "mpegts", "video") == [] and (first.start, second.end) == (0, source.stat().st_size)
    with Slice(source, second) as part:
        data = part.read()
    assert data.startswith(second.head) and names[1].read_bytes().endswith(data[188:]) and len(second.head) == 188
    assert data[188:] == source.read_bytes()[second.start :]


@pytest.mark.parametrize("stride", [192, 204])
def test_packets_with_a_stamp_or_a_checksum_around_them_are_found(tmp_path, stride):
    data = joined(tmp_path / "s.ts", clip(tmp_path / "a.ts", 2.0), clip(tmp_path / "b.ts", 2.0, sounds=("mp2",)))
    data = data.read_bytes()
    extra = bytes(stride - 188)
    packets = [data[k : k + 188] for k in range(0, len(data), 188)]
    wide = b"".join(extra + packet if stride == 192 else packet + extra for packet in packets)
    (tmp_path / "w.ts").write_bytes(wide)
    assert len(parts(tmp_path / "w.ts", "mpegts", "audio")) == 2
    whole(tmp_path, tmp_path / "w.ts")


def test_a_damaged_table_is_no_change(tmp_path):
    source = clip(tmp_path / "s.ts", 2.0)
    data = bytearray(source.read_bytes())
    places = [k for k in range(0, len(data), 188) if data[k + 1 : k + 3] == b"\x50\x00"]
    data[places[1] + 5 + 12] ^= 0x10  # the type of the first stream
    source.write_bytes(data)
    assert len(places) > 2 and parts(source, "mpegts", "video") == []
    assert len(seen_flashes(source)) == 2
