"""Reading and writing video: PyAV itself makes every test file, so the correct result is known."""

import subprocess
import sys
import tracemalloc
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from drawn_clips import FPS, corners, make, scene

from selfscan.errors import SelfscanError, UnreadableVideo, VideoTooLarge
from selfscan.io import video
from selfscan.io.digest import file_digest


def add_sound(container, stream, seconds, rate=44100):
    wave = (np.sin(np.arange(int(seconds * rate)) * 0.05) * 9000).astype(np.int16)
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def make_with_sound(path, seconds=2.0, codec="aac"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream(codec, rate=44100)
        for i in range(int(seconds * FPS)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene(i), format="rgb24")))
        container.mux(stream.encode(None))
        add_sound(container, sound, seconds)
    return path


def sound_packets(path):
    with av.open(str(path)) as container:
        source = container.streams.audio[0]
        return [(round(float(p.pts * p.time_base), 4), bytes(p)) for p in container.demux(source) if p.dts is not None]


def stamps(path):
    """The stored presentation times of a clip's frames, s, read without the code under test."""
    with av.open(str(path)) as container:
        return np.array([float(frame.pts * frame.time_base) for frame in container.decode(video=0)])


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_display_matrix_is_applied(tmp_path, degrees, mirrored):
    stored = scene()
    path = make(
        tmp_path / "r.mp4", [stored] * 3, prepare=lambda s: s.set_display_rotation(float(degrees), hflip=mirrored)
    )
    shown = np.rot90(stored, degrees // 90)  # the container's angle is counter-clockwise
    shown = shown[:, ::-1] if mirrored else shown
    _, got = next(video.read(path))
    assert got.shape == shown.shape
    assert np.abs(corners(got) - corners(shown)).max() < 12
    info = video.probe(path)
    assert (info.height, info.width) == shown.shape[:2]
    if not mirrored:
        assert info.rotation == -degrees % 360


def test_variable_frame_rate_keeps_the_source_times(tmp_path):
    pts = [0, 3003, 9009, 10_000, 50_000, 90_001]
    path = make(tmp_path / "v.mp4", [scene(i) for i in range(6)], pts=pts, time_base=Fraction(1, 90_000))
    times = [time for time, _ in video.read(path)]
    assert np.allclose(times, np.array(pts) / 90_000, atol=1e-9)


def test_a_clock_that_does_not_start_at_zero_is_moved_to_zero(tmp_path):
    path = make(tmp_path / "t.ts", [scene(i) for i in range(10)])
    times = np.array([time for time, _ in video.read(path)])
    assert 0 <= times[0] < 0.05 and np.allclose(np.diff(times), 1 / FPS, atol=1e-4)


@pytest.mark.parametrize(
    "codec,pix_fmt,suffix",
    [
        ("ffv1", "yuv420p10le", "mkv"),
        ("ffv1", "yuv422p", "mkv"),
        ("ffv1", "yuv444p16le", "mkv"),
        ("ffv1", "bgr0", "mkv"),
        ("libx264", "yuv420p10le", "mp4"),
        ("mjpeg", "yuvj420p", "avi"),
        ("libvpx-vp9", "yuv420p", "webm"),
    ],
)
def test_pixel_formats_give_the_same_colours(tmp_path, codec, pix_fmt, suffix):
    path = make(tmp_path / f"p.{suffix}", [scene(i) for i in range(4)], codec, pix_fmt)
    frames = [image for _, image in video.read(path)]
    assert len(frames) == 4 and frames[0].dtype == np.uint8
    assert np.abs(corners(frames[0]) - corners(scene())).max() < 14


def test_matrix_of_the_stream_is_honoured(tmp_path):
    def clip(name, matrix):
        def prepare(stream):
            stream.codec_context.colorspace = matrix

        return make(tmp_path / name, [scene()] * 2, prepare=prepare, dst_colorspace=matrix)

    for name, matrix in (("709.mp4", video.ITU709), ("601.mp4", video.ITU601)):
        _, got = next(video.read(clip(name, matrix)))
        assert np.abs(corners(got) - corners(scene())).max() < 8, name


def test_anamorphic_pixels_become_square(tmp_path):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    path = make(tmp_path / "a.mp4", [scene()] * 2, prepare=prepare)
    _, got = next(video.read(path))
    info = video.probe(path)
    assert got.shape[:2] == (48, 96) == (info.height, info.width)


def test_odd_sizes_are_read(tmp_path):
    path = make(tmp_path / "o.mkv", [scene(0, 47, 63)] * 2, "ffv1", "yuv444p")
    assert next(video.read(path))[1].shape == (47, 63, 3)


def test_probe_says_what_read_gives(tmp_path):
    path = make_with_sound(tmp_path / "s.mp4")
    info = video.probe(path)
    assert (info.width, info.height, info.has_audio, info.rotation) == (64, 48, True, 0)
    assert info.frames_estimate == 50 == sum(1 for _ in video.read(path))
    assert info.fps == pytest.approx(FPS) and info.duration == pytest.approx(2.0, abs=0.03)


def test_a_recording_without_length_is_measured(tmp_path):
    path = make(tmp_path / "live.mkv", [scene(i) for i in range(30)], container_options={"live": "1"})
    with av.open(str(path)) as container:
        assert not container.duration, "the file was meant to carry no length"
    info = video.probe(path)
    assert info.frames_estimate == 30 and info.duration == pytest.approx(29 / FPS, abs=0.01)
    with pytest.raises(VideoTooLarge):
        video.probe(path, video.Limits(frames=20))


def test_names_with_spaces_colons_percent_and_other_scripts(tmp_path):
    path = tmp_path / "50% concat:täke — 我 %03d.mp4"
    assert video.write(path, [scene(i) for i in range(3)], [0.0, 0.04, 0.08]) == 3
    assert video.probe(path).frames_estimate == 3


def test_reading_and_writing_hold_few_frames(tmp_path):
    path, count = tmp_path / "m.mp4", 300

    def peak(job):
        tracemalloc.start()
        job()
        bytes_ = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return bytes_ / scene(0, 120, 160).nbytes

    frames = (scene(i, 120, 160) for i in range(count))
    assert peak(lambda: video.write(path, frames, np.arange(count) / FPS)) < 12
    assert peak(lambda: sum(image.size for _, image in video.read(path))) < 12


# --- files that are not videos ------------------------------------------------------------------------------------


def broken_files(folder):
    good = make(folder / "good.mp4", [scene(i) for i in range(40)]).read_bytes()
    files = {
        "missing.mp4": None,
        "empty.mp4": b"",
        "garbage.mp4": np.random.default_rng(0).bytes(20_000),
        "text.mp4": b"this is not a video\n" * 50,
        "cut.mp4": good[: int(len(good) * 0.6)],
        "list.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ngood.mp4\n#EXT-X-ENDLIST\n",
    }
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    av.VideoFrame.from_ndarray(scene(), format="rgb24").to_image().save(folder / "whole.jpg")
    (folder / "picture.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:200])
    av.VideoFrame.from_ndarray(scene(), format="rgb24").to_image().save(folder / "picture.psd.tga", "TGA")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        add_sound(container, container.add_stream("aac", rate=44100), 1.0)
    (folder / "folder.mp4").mkdir()
    return [folder / n for n in (*files, "picture.jpg", "picture.psd.tga", "sound.mp4", "folder.mp4")]


def test_files_that_are_no_videos_are_refused_in_one_sentence(tmp_path):
    for path in broken_files(tmp_path):
        for job in (video.probe, lambda p: list(video.read(p))):
            with pytest.raises(UnreadableVideo) as caught:
                job(path)
            text = str(caught.value)
            assert path.name in text and "\n" not in text and 40 < len(text) < 400, text
    with pytest.raises(UnreadableVideo, match="picture"):
        video.probe(tmp_path / "picture.jpg")
    with pytest.raises(UnreadableVideo, match="only sound"):
        video.probe(tmp_path / "sound.mp4")
    with pytest.raises(UnreadableVideo, match="0 bytes"):
        video.probe(tmp_path / "empty.mp4")


def test_a_damaged_tail_ends_the_stream_after_the_readable_frames(tmp_path):
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = make(
        tmp_path / "f.mp4",
        [scene(i) for i in range(60)],
        container_options=options,
        options={"crf": "4", "g": "10", "bf": "0"},
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.7)])
    times = [time for time, _ in video.read(path)]
    assert 20 <= len(times) < 60 and np.allclose(times, np.arange(len(times)) / FPS, atol=1e-6)


def test_flipped_bits_never_escape_as_anything_else(tmp_path):
    data = make_with_sound(tmp_path / "g.mp4", 1.0).read_bytes()
    path, rng = tmp_path / "flip.mp4", np.random.default_rng(5)
    readable = 0
    for _ in range(40):
        damaged = np.frombuffer(data, np.uint8).copy()
        where = rng.integers(0, len(damaged), 12)
        damaged[where] ^= (1 << rng.integers(0, 8, 12)).astype(np.uint8)
        path.write_bytes(damaged.tobytes())
        try:
            times = [time for time, _ in video.read(path)]
        except SelfscanError:
            continue
        readable += 1
        assert (np.diff(times) > 0).all()
    assert readable > 5


def test_limits_are_checked_before_decoding(tmp_path):
    path = make(tmp_path / "l.mp4", [scene(i) for i in range(30)])
    for limits in (video.Limits(pixels=64 * 47), video.Limits(seconds=1.0), video.Limits(frames=29)):
        with pytest.raises(VideoTooLarge) as caught:
            video.probe(path, limits)
        assert "\n" not in str(caught.value)
        with pytest.raises(VideoTooLarge):
            next(video.read(path, limits))
    assert video.probe(path, video.Limits(pixels=64 * 48, seconds=1.2, frames=30)).frames_estimate == 30


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height,width", [(48, 64), (47, 63), (48, 63)])
def test_written_frames_come_back(tmp_path, height, width):
    frames = [scene(i, height, width) for i in range(12)]
    path = tmp_path / "w.mp4"
    assert video.write(path, iter(frames), np.arange(12) / FPS, crf=4) == 12
    back = [image for _, image in video.read(path)]
    assert len(back) == 12 and back[0].shape == (height + height % 2, width + width % 2, 3)
    assert max(np.abs(corners(a[:height, :width]) - corners(b)).max() for a, b in zip(back, frames)) < 8
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "times",
    [
        np.cumsum([0.0, 0.01, 0.3, 0.0333, 1.7, 0.02]),
        np.arange(40) * 1001 / 30_000,
        np.arange(40) * 1001 / 24_000,
        0.52 + np.arange(5) / 60,
        np.array([0.0]),
    ],
)
def test_written_times_are_exact(tmp_path, times):
    path = tmp_path / "t.mp4"
    video.write(path, (scene(i) for i in range(len(times))), times)
    assert np.abs(stamps(path) - times).max() < 1e-6
    assert np.abs(np.array([t for t, _ in video.read(path)]) - (times - times[0])).max() < 1e-6


def test_sound_is_copied_packet_by_packet(tmp_path):
    source, path = make_with_sound(tmp_path / "s.mp4"), tmp_path / "out.mp4"
    times = [time for time, _ in video.read(source)]
    video.write(path, (image for _, image in video.read(source)), times, audio_from=source)
    assert sound_packets(path) == sound_packets(source)
    assert np.allclose([time for time, _ in video.read(path)], times, atol=1e-6)


def test_sound_that_mp4_cannot_hold_becomes_aac(tmp_path):
    source, path = make_with_sound(tmp_path / "s.mkv", codec="pcm_s16le"), tmp_path / "out.mp4"
    video.write(path, [scene(i) for i in range(50)], np.arange(50) / FPS, audio_from=source)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 44100 == pytest.approx(2.0, abs=0.06)


def test_sound_after_the_last_picture_is_dropped_and_silence_is_fine(tmp_path):
    source, path = make_with_sound(tmp_path / "s.mp4", 3.0), tmp_path / "out.mp4"
    video.write(path, [scene(i) for i in range(25)], np.arange(25) / FPS, audio_from=source)
    assert 0.9 < sound_packets(path)[-1][0] < 1.1
    silent = make(tmp_path / "silent.mp4", [scene()] * 3)
    video.write(path, [scene(i) for i in range(5)], np.arange(5) / FPS, audio_from=silent)
    assert not video.probe(path).has_audio


def test_index_is_in_front(tmp_path):
    path = tmp_path / "w.mp4"
    video.write(path, [scene(i) for i in range(5)], np.arange(5) / FPS)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat") and b"moof" not in data


def test_what_is_written_so_far_can_be_played_while_it_runs(tmp_path):
    path, seen = tmp_path / "w.mp4", []

    def frames():
        for i in range(260):
            if i == 255:
                seen.extend(time for time, _ in video.read(tmp_path / "w.part.mp4"))
            yield np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)

    video.write(path, frames(), np.arange(260) / FPS)
    assert len(seen) >= 50


@pytest.mark.parametrize(
    "frames,times",
    [
        ([], []),
        ([scene()] * 2, [0.0]),
        ([scene()], [0.0, 1.0]),
        ([scene()] * 2, [0.0, 0.0]),
        ([scene(), scene(0, 50, 64)], [0.0, 1.0]),
        ([scene()], [np.nan]),
    ],
)
def test_frames_and_times_that_do_not_fit_leave_nothing_behind(tmp_path, frames, times):
    path = tmp_path / "w.mp4"
    path.write_bytes(b"before")
    with pytest.raises(ValueError):
        video.write(path, iter(frames), times)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_stream_of_unknown_length_is_recorded_with_its_times(tmp_path):
    path, times = tmp_path / "w.mp4", [0.2, 0.24, 0.31, 0.32]
    assert video.write_stream(path, ((time, scene(i)) for i, time in enumerate(times)), 25.0) == 4
    assert np.allclose(stamps(path), times, atol=1e-3)
    assert np.allclose([time for time, _ in video.read(path)], np.subtract(times, 0.2), atol=1e-3)


@pytest.mark.parametrize("timed", [[], [(0.0, scene()), (0.0, scene())], [(-1.0, scene())], [(np.nan, scene())],
                                   [(0.0, scene()), (1.0, scene(0, 50, 64))]])  # fmt: skip
def test_a_stream_that_makes_no_video_leaves_nothing_behind(tmp_path, timed):
    path = tmp_path / "w.mp4"
    path.write_bytes(b"before")
    with pytest.raises(ValueError):
        video.write_stream(path, iter(timed), 25.0)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_failing_source_leaves_the_target_untouched(tmp_path):
    path = tmp_path / "w.mp4"
    path.write_bytes(b"before")

    def frames():
        yield from [scene()] * 5
        raise RuntimeError("the generator failed")

    with pytest.raises(RuntimeError, match="the generator failed"):
        video.write(path, frames(), np.arange(10) / FPS)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import resource, signal, sys
import numpy as np
from selfscan.io import video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
noise = (np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8) for i in range(200))
try:
    video.write(sys.argv[1], noise, np.arange(200) / 25)
except OSError as error:
    print("refused:", error)
"""


def test_a_file_that_may_not_grow_is_reported_and_cleaned_up(tmp_path):
    path = tmp_path / "w.mp4"
    path.write_bytes(b"before")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused:") and "could not be written" in done.stdout, done.stdout + done.stderr
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for target in (tmp_path / "file" / "w.mp4", tmp_path / "absent" / "w.mp4"):
        with pytest.raises(OSError, match="could not be written"):
            video.write(target, [scene()] * 2, [0.0, 0.04])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def shown_pictures(path):
    return [(time, image.tobytes()) for time, image in video.read(path)]


@pytest.mark.parametrize("shape", [(120, 160), (96, 144), (101, 75)])
def test_equal_pictures_are_equally_encoded_whatever_lay_in_memory_before(shape):
    noise = np.random.default_rng(0)
    scene = cv2.GaussianBlur(noise.integers(0, 255, (*shape, 3), dtype=np.uint8), (0, 0), 5)
    frames = [np.roll(scene, i, 1) for i in range(12)]
    seen = set()
    for _ in range(12):
        dirt = [np.full(noise.integers(1000, 400_000), noise.integers(256), np.uint8) for _ in range(40)][::2]
        seen.add(video.encode_segment(zip(np.arange(12) / 10, frames), 10, 18).data.tobytes())
        del dirt
    assert len(seen) == 1


UNEVEN = 0.52 + np.append(0, np.cumsum(np.random.default_rng(3).uniform(0.005, 0.4, 39)))


@pytest.mark.parametrize("times", [np.arange(40) / FPS, UNEVEN])
def test_segments_are_one_video_with_its_times_whichever_encoder_made_them(tmp_path, times):
    frames, rate = [scene(i) for i in range(40)], video.rate_of(times)
    cuts = [(0, 12), (12, 13), (13, 24), (24, 40)]

    def segments():
        return [video.encode_segment(zip(times[a:b], frames[a:b]), rate, 18) for a, b in cuts]

    first, second = segments(), segments()
    assert video.assemble(tmp_path / "a.mp4", first, rate) == 40
    video.assemble(tmp_path / "b.mp4", [*first[:2], *second[2:]], rate)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    seen = list(video.read(tmp_path / "a.mp4"))
    assert np.abs(stamps(tmp_path / "a.mp4") - times).max() < 1e-6
    assert np.abs(np.array([time for time, _ in seen]) - (times - times[0])).max() < 1e-6
    assert all(np.abs(image.astype(int) - frame).mean() < 4 for (_, image), frame in zip(seen, frames))
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.dts is not None]
    assert all(a.dts < b.dts for a, b in zip(packets, packets[1:])) and all(p.dts <= p.pts for p in packets)


def test_segments_that_do_not_fit_leave_nothing_behind(tmp_path):
    one = video.encode_segment([(0.0, scene()), (0.1, scene(1))], 10.0, 18)
    other = video.encode_segment([(0.2, scene(0, 50, 64))], 10.0, 18)
    for segments in ([], [one, one], [one, other]):
        with pytest.raises(ValueError):
            video.assemble(tmp_path / "w.mp4", segments, 10.0)
    assert list(tmp_path.iterdir()) == []
