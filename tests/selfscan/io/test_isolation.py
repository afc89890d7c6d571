"""Clips are decoded in a child process: pictures are equal, and a crash ends only the child."""

import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_video import make, make_with_sound, scene, sound_packets

from selfscan.errors import UnreadablePicture, UnreadableVideo, VideoTooLarge
from selfscan.io import isolation, mux, picture, sound, video
from selfscan.io.containers import MP4

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="there is no /proc to find children in")


def children(job="selfscan.io.decoding:serve"):
    """Return the process ids of this process's children that run a job."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread or a child may end while it is looked at
            for pid in (task / "children").read_text().split():
                if job.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


def decoded_here(path):
    """Times and upright RGB pictures by PyAV alone, in this process."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            matrix = int(frame.colorspace) if int(frame.colorspace) != 2 else 1 if frame.height >= 720 else 5
            width = max(1, round(frame.width * float(stream.sample_aspect_ratio or 1)))
            image = frame.to_ndarray(format="rgb24", width=width, height=frame.height, src_colorspace=matrix)
            if (side := frame.side_data.get("DISPLAYMATRIX")) is not None:
                a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
                if abs(b) + abs(c) > abs(a) + abs(d):
                    image, a, d = image.transpose(1, 0, 2), c, b
                image = image[::-1] if d < 0 else image
                image = image[:, ::-1] if a < 0 else image
            yield float(frame.pts * frame.time_base), image


def anamorphic(stream):
    stream.codec_context.sample_aspect_ratio = Fraction(3, 2)


KINDS = {
    "h264": dict(name="a.mp4", codec="libx264", pix_fmt="yuv420p"),
    "turned": dict(name="a.mp4", codec="libx264", prepare=lambda s: s.set_display_rotation(90.0)),
    "turned and mirrored": dict(name="a.mp4", codec="libx264", prepare=lambda s: s.set_display_rotation(270.0, True)),
    "upside down": dict(name="a.mp4", codec="libx264", prepare=lambda s: s.set_display_rotation(180.0)),
    "anamorphic": dict(name="a.mp4", codec="libx264", prepare=anamorphic),
    "odd size": dict(name="a.mkv", codec="ffv1", pix_fmt="yuv444p", size=(47, 63)),
    "ten bits": dict(name="a.mkv", codec="ffv1", pix_fmt="yuv420p10le"),
    "plain RGB, bottom up": dict(name="a.avi", codec="rawvideo", pix_fmt="bgr24", size=(47, 63)),
    "plain RGB": dict(name="a.nut", codec="rawvideo", pix_fmt="rgb24", size=(47, 63)),
    "palette": dict(name="a.gif", codec="gif", pix_fmt="rgb8"),
    "HD": dict(name="a.mp4", codec="libx264", size=(720, 1280)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_decoding_here_bit_for_bit(tmp_path, kind):
    given = dict(KINDS[kind])
    size = given.pop("size", (48, 64))
    path = make(tmp_path / given.pop("name"), [scene(i, *size) for i in range(9)], **given)
    here, there = list(decoded_here(path)), list(video.read(path))
    assert len(here) == len(there) == 9
    for (time_here, image), (time_there, same) in zip(here, there):
        assert time_here == time_there and image.shape == same.shape and np.array_equal(image, same)
        assert same.flags["OWNDATA"] and same.flags["C_CONTIGUOUS"] and same.flags["WRITEABLE"]


def test_kept_frames_do_not_change_when_later_ones_come(tmp_path):
    path = make(tmp_path / "k.mkv", [scene(i) for i in range(30)], "ffv1", "bgr0")
    kept = [image for _, image in video.read(path)]
    assert all(np.array_equal(image, scene(i)) for i, image in enumerate(kept))


@needs_proc
@pytest.mark.parametrize("signal_", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_after_some_frames_ends_the_stream_as_a_damaged_tail_does(tmp_path, signal_, caplog):
    path = make(tmp_path / "c.mkv", [scene(i) for i in range(60)], "ffv1", "bgr0")
    got = []
    for _, image in video.read(path):
        got.append(image)
        if len(got) == 5:
            os.kill(children()[0], signal_)
    assert 5 <= len(got) <= 5 + video.SLOTS and all(np.array_equal(image, scene(i)) for i, image in enumerate(got))
    assert signal_.name in caplog.text and f"after {len(got)} frames" in caplog.text and not children()


@needs_proc
def test_a_crash_before_the_first_frame_is_one_sentence(tmp_path):
    path, told = make(tmp_path / "c.mp4", [scene()] * 3), []

    def look():
        try:
            told.append(video.probe(path))
        except UnreadableVideo as error:
            told.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    while not (found := children()):
        time.sleep(0.001)
    os.kill(found[0], signal.SIGSEGV)
    thread.join(30)
    assert isinstance(told[0], UnreadableVideo) and "its decoder crashed (SIGSEGV)" in str(told[0])
    assert "\n" not in str(told[0]) and "c.mp4" in str(told[0])


@needs_proc
def test_a_decoder_that_hangs_is_killed_and_the_clip_refused(tmp_path):
    path = make(tmp_path / "h.mkv", [scene(i) for i in range(60)], "ffv1", "bgr0")
    frames = video.read(path, video.Limits(patience=1.0))
    next(frames)
    os.kill(children()[0], signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(UnreadableVideo, match="hangs"):
        list(frames)
    assert time.monotonic() - start < 10 and not children()


@needs_proc
def test_closing_a_stream_ends_its_child(tmp_path):
    path = make(tmp_path / "c.mp4", [scene(i) for i in range(60)])
    before = len(os.listdir("/proc/self/fd"))
    frames = video.read(path)
    next(frames)
    assert len(children()) == 1
    frames.close()
    assert not children() and len(os.listdir("/proc/self/fd")) == before


ORPHAN = """
import os, sys
from selfscan.io import video
frames = video.read(sys.argv[1])
next(frames)
print(frames.gi_frame.f_locals["decoder"].child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@needs_proc
def test_a_child_whose_parent_was_killed_ends(tmp_path):
    path = make(tmp_path / "o.mp4", [scene(i) for i in range(60)])
    done = subprocess.run([sys.executable, "-c", ORPHAN, str(path)], capture_output=True, text=True, timeout=60)
    child = Path(f"/proc/{int(done.stdout)}")
    for _ in range(100):
        if not child.is_dir() or "Z" in (child / "stat").read_text().rpartition(")")[2]:
            return
        time.sleep(0.1)
    pytest.fail("the decoder outlived its parent")


def png(width, height, pixels=b""):
    """Return a PNG whose header declares a size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def in_mov(path, data, width, height):
    """A clip of pictures in the codec of PNG, whose header says another size than they have."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        for i in range(3):
            packet = av.Packet(data)
            packet.pts = packet.dts = i
            packet.time_base, packet.stream = Fraction(1, 25), stream
            container.mux(packet)
    return path


def test_pictures_larger_than_the_header_says_cost_no_memory(tmp_path):
    path = in_mov(tmp_path / "b.mov", png(30_000, 30_000, bytes(1000)), 64, 48)
    before = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))
    with pytest.raises((UnreadableVideo, VideoTooLarge)) as told:
        list(video.read(path))
    assert "\n" not in str(told.value)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 300_000)  # kB


def test_memory_is_limited_where_the_limits_on_pixels_are_not(tmp_path, monkeypatch):
    path = in_mov(tmp_path / "b.mov", png(12_000, 12_000, bytes(1000)), 12_000, 12_000)
    monkeypatch.setattr(video, "MEMORY", 500 << 20)
    with pytest.raises(UnreadableVideo) as told:
        list(video.read(path, video.Limits(pixels=1 << 40)))
    assert "\n" not in str(told.value)


def test_pixels_that_are_wide_beyond_reason_are_refused(tmp_path):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(1000, 1)

    path = make(tmp_path / "w.mp4", [scene(0, 2000, 64)] * 2, prepare=prepare)
    with pytest.raises(VideoTooLarge, match="shown at"):
        video.probe(path)
    with pytest.raises(VideoTooLarge, match="shown at"):
        next(video.read(path))


def test_times_that_stand_still_can_be_written_again(tmp_path):
    path, stamps = tmp_path / "t.mkv", [0, 0, 0, 40, 40, 80]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(scene(i), format="rgb24").reformat(format="bgr0")
            for packet in stream.encode(frame):
                packet.pts = packet.dts = stamp
                packet.time_base = Fraction(1, 1000)
                container.mux(packet)
    times = [time for time, _ in video.read(path)]
    assert len(times) == 6 and times[0] == 0 and (np.diff(times) >= 0.9e-5).all()
    assert video.write(tmp_path / "w.mp4", (image for _, image in video.read(path)), times) == 6


@needs_proc
def test_sound_that_crashes_what_reads_it_costs_the_sound_alone(tmp_path, caplog):
    source, path = make_with_sound(tmp_path / "s.mp4"), tmp_path / "out.mp4"
    stop = threading.Event()

    def kill():
        while not stop.is_set():
            for pid in children("selfscan.io.sound:serve"):
                os.kill(pid, signal.SIGSEGV)
            time.sleep(0.001)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert video.write(path, [scene(i) for i in range(5)], np.arange(5) / 25, audio_from=source) == 5
    finally:
        stop.set()
        thread.join()
    assert "its sound could not be copied" in caplog.text and not video.probe(path).has_audio
    assert sum(1 for _ in video.read(path)) == 5 and sorted(os.listdir(tmp_path)) == ["out.mp4", "s.mp4"]


def test_sound_of_a_playlist_is_not_followed(tmp_path, caplog):
    make_with_sound(tmp_path / "s.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile s.mp4\n")
    video.write(tmp_path / "out.mp4", [scene()] * 3, [0.0, 0.04, 0.08], audio_from=tmp_path / "list.mp4")
    assert not video.probe(tmp_path / "out.mp4").has_audio and "could not be copied" in caplog.text


def test_joining_in_a_child_gives_the_same_packets(tmp_path):
    source = make_with_sound(tmp_path / "s.mp4")
    times = np.arange(50) / 25
    mux.encode(tmp_path / "p.mp4", ((t, scene(i)) for i, t in enumerate(times)), 25, 18)
    sound.join(tmp_path / "p.mp4", tmp_path / "here.mp4", (0.0, 2.0), sound.SoundOf(source), MP4)
    sound.join_apart(tmp_path / "p.mp4", tmp_path / "there.mp4", (0.0, 2.0), sound.SoundOf(source), MP4)
    assert sound_packets(tmp_path / "here.mp4") == sound_packets(tmp_path / "there.mp4")
    assert (tmp_path / "here.mp4").read_bytes() == (tmp_path / "there.mp4").read_bytes()


# --- the mechanism --------------------------------------------------------------------------------------------------


def asked(job, seconds=20.0, most=1 << 16, **request):
    return isolation.ask(f"child_jobs:{job}", request, isolation.Rations(1 << 30, 1), seconds, most)


def test_a_child_has_its_rations_and_no_more(tmp_path):
    assert asked("grow", bytes=1 << 20) == b"1048576"
    assert asked("grow", bytes=2 << 30) is None
    (tmp_path / "x").touch()
    assert asked("write_file", path=str(tmp_path / "x")) is None and (tmp_path / "x").read_bytes() == b""
    assert asked("shout") is None
    start = time.monotonic()
    assert asked("spin", seconds=0.3) is None and time.monotonic() - start < 5
    assert asked("spin") is None  # by its own limit on processor time


def test_a_decoder_imports_little(tmp_path):
    code = (
        "import sys; from selfscan.io import decoding; "
        "print([m for m in ('torch', 'numpy', 'cv2', 'mystudio', 'mediapipe') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + b"\xff" * 99,
        png(60_000, 60_000, bytes(100)),
        png(64, 64, bytes(10))[:40],
        b"\xff\xd8\xff" + bytes(300),
    ],
)
def test_pictures_that_are_none_are_refused(tmp_path, data):
    (tmp_path / "p.png").write_bytes(data)
    with pytest.raises(UnreadablePicture) as told:
        picture.read(tmp_path / "p.png")
    assert "\n" not in str(told.value)


def test_a_picture_comes_back(tmp_path):
    av.VideoFrame.from_ndarray(scene(), format="rgb24").to_image().save(tmp_path / "p.png")
    assert np.array_equal(picture.read(tmp_path / "p.png"), scene())
