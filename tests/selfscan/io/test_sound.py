"""Which sound a new clip gets, how, and what is said where it gets none; the clips are made with PyAV alone."""

import av
import numpy as np
import pytest

from selfscan.io import video
from selfscan.io.sound import SoundOf
from tests.selfscan.io.clips import clip, heard_beeps, seen_flashes
from tests.selfscan.io.test_clock import SYNC, again, off


def codec_of(path):
    with av.open(str(path)) as container:
        return [(s.codec_context.codec.canonical_name, s.codec_context.sample_rate) for s in container.streams.audio]


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("rate", [22_050, 32_000, 44_100, 48_000])
def test_mp3_in_avi_is_copied(tmp_path, rate, layout):
    source = clip(tmp_path / "s.avi", pictures="mpeg4", sounds=("libmp3lame",), rate=rate, layout=layout)
    _, heard = again(source, tmp_path / "o.mp4")
    assert heard.how == "copied" and codec_of(tmp_path / "o.mp4") == [("mp3", rate)]
    assert len(heard_beeps(tmp_path / "o.mp4")) == 3


@pytest.mark.parametrize(
    "ending,sound,rate,becomes",
    [
        ("avi", "libmp3lame", 8000, 8000),  # mp4 does not allow such slow MP3
        ("mkv", "pcm_s16le", 96_000, 48_000),
        ("mkv", "pcm_u8", 7000, 48_000),
        ("avi", "adpcm_ms", 22_050, 22_050),
        ("mkv", "mp2", 48_000, 48_000),
        ("mov", "pcm_s24le", 44_100, 44_100),
    ],
)
def test_other_sound_is_encoded_with_a_usual_rate(tmp_path, ending, sound, rate, becomes):
    source = clip(tmp_path / f"s.{ending}", pictures="mpeg4", sounds=(sound,), rate=rate)
    _, heard = again(source, tmp_path / "o.mp4")
    assert (heard.how, heard.lost) == ("encoded", "") and codec_of(tmp_path / "o.mp4") == [("aac", becomes)]
    assert len(heard_beeps(tmp_path / "o.mp4")) == 3


def test_sound_that_cannot_be_decoded_is_reported_as_lost(tmp_path):
    def damaged(packets):
        for number, packet in enumerate(packets):
            if packet.stream.type == "audio":
                noise = av.Packet(np.random.default_rng(number).bytes(packet.size))
                noise.stream, noise.time_base = packet.stream, packet.time_base
                noise.pts, noise.dts, noise.is_keyframe = packet.pts, packet.dts, True
                packet = noise
            yield packet

    source = clip(tmp_path / "s.mkv", sounds=("flac",), restamp=damaged)
    _, heard = again(source, tmp_path / "o.mp4")
    assert (heard.track, heard.how, heard.tracks) == (None, "none", 1) and "decoded" in heard.lost
    assert codec_of(tmp_path / "o.mp4") == []


@pytest.mark.parametrize(
    "sounds,default,track,silent",
    [
        (("-aac", "aac"), None, 2, (1,)),
        (("-libopus", "-aac", "aac"), None, 3, (1, 2)),
        (("aac", "aac"), 1, 2, ()),
        (("aac", "-aac"), 1, 1, (2,)),
        (("-aac", "-aac"), None, 1, ()),
    ],
)
def test_the_default_track_is_used_or_the_first_that_is_not_silent(tmp_path, sounds, default, track, silent):
    source = clip(tmp_path / "s.mkv", sounds=sounds, rate=48_000, **({} if default is None else {"default": default}))
    _, heard = again(source, tmp_path / "o.mp4")
    assert (heard.tracks, heard.track, heard.silent) == (len(sounds), track, silent)
    if "-" not in sounds[track - 1]:
        assert off(tmp_path / "o.mp4") < SYNC


def test_a_track_is_used_if_it_is_asked_for_and_refused_if_it_is_not_there(tmp_path):
    source = clip(tmp_path / "s.mkv", sounds=("aac", "libopus"), rate=48_000)
    _, heard = again(source, tmp_path / "o.mp4", track=2)
    assert heard.track == 2 and codec_of(tmp_path / "o.mp4") == [("opus", 48_000)]
    _, heard = again(source, tmp_path / "o.mp4", track=3)
    assert heard.track is None and "from 1 to 2, got 3" in heard.lost


@pytest.mark.parametrize("ending,codec", [("mp4", "aac"), ("mov", "aac"), ("mkv", "aac"), ("webm", "opus")])
@pytest.mark.parametrize("sound", ["aac", "pcm_s16le", "libopus"])
def test_each_container_gets_the_sound_that_it_can_hold(tmp_path, ending, codec, sound):
    source, out = clip(tmp_path / "s.mkv", sounds=(sound,), rate=48_000), tmp_path / f"o.{ending}"
    _, heard = again(source, out)
    with av.open(str(out)) as container:
        assert ending.replace("mkv", "matroska") in container.format.name
        pictures = container.streams.video[0].codec_context.name
    assert pictures == ("vp9" if ending == "webm" else "h264")
    kept = {"mp4": ("aac", "opus"), "mov": ("aac", "pcm_s16le"), "mkv": ("aac", "pcm_s16le", "opus"), "webm": ("opus",)}
    name = sound.removeprefix("lib")
    assert heard.how == ("copied" if name in kept[ending] else "encoded")
    assert codec_of(out)[0][0] == (name if name in kept[ending] else codec)
    sounds = heard_beeps(out)
    if (ending, name) == ("mkv", "aac"):  # without an edit list, the packet that fades the first one in is left out
        assert 0 <= sounds[0] < 1024 / 48_000
        sounds[0] = 0
    assert np.abs(seen_flashes(out) - sounds).max() < SYNC


def test_pictures_hold_no_sound_and_that_is_said(tmp_path):
    source = clip(tmp_path / "s.mp4")
    for out in ("o.gif", "o.png", "folder/"):
        _, heard = again(source, f"{tmp_path}/{out}")
        assert heard.tracks == 1 and heard.track is None and "holds no sound" in heard.lost
    silent = clip(tmp_path / "q.mp4", sounds=())
    assert again(silent, tmp_path / "o.gif")[1].lost == ""


def test_a_part_of_a_clip_has_its_part_of_the_sound(tmp_path):
    source, said = clip(tmp_path / "s.mp4", 6.0), []
    frames = [(time - 2.6, image) for time, image in video.read(source) if 2.6 <= time + 1e-6 and time < 5.3]
    video.write_stream(tmp_path / "o.mp4", iter(frames), 25, SoundOf(source, start=2.6), heard=said.append)
    assert said[0].how == "copied" and off(tmp_path / "o.mp4") < SYNC
    assert np.abs(heard_beeps(tmp_path / "o.mp4") - [0.4, 1.4, 2.4]).max() < SYNC
