"""Clips that change within, and streams without a container or time stamps."""

from fractions import Fraction

import av
import numpy as np
import pytest
from drawn_clips import FPS, corners, make, scene

from selfscan.errors import UnreadableVideo
from selfscan.io import video


def turning(path, sizes, codec="libvpx", each=5):
    """Write a clip whose frames change their size: packets of one encoder for each size, in one stream."""
    packets = []
    for height, width in sizes:
        encoder = av.CodecContext.create(codec, "w")
        encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = height, width, "yuv420p", Fraction(1, FPS)
        encoder.framerate, encoder.bit_rate, encoder.options = Fraction(FPS), 4_000_000, {"crf": "4"}
        for i in range(each):
            frame = av.VideoFrame.from_ndarray(scene(i, height, width), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        (stream.height, stream.width), stream.pix_fmt = sizes[0], "yuv420p"
        for k, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = k
            container.mux(packet)
    return path


def test_frames_that_change_their_size_are_fitted_into_the_first_and_this_is_told(tmp_path):
    path, said = turning(tmp_path / "t.webm", [(48, 64), (64, 48), (96, 128), (48, 64)]), []
    frames = [image for _, image in video.read(path, warn=said.append)]
    assert {image.shape for image in frames} == {(48, 64, 3)} and len(frames) == 20
    assert len(said) == 1 and "48x64" in said[0] and "0.2 s" in said[0]
    turned = frames[7]
    assert turned[:, :13].max() < 3 > turned[:, -13:].max(), "black beside the upright picture"
    assert np.abs(corners(turned[:, 14:50]) - corners(scene())).max() < 16
    for index in (2, 12, 17):  # another size of the same shape fills the picture
        assert np.abs(corners(frames[index]) - corners(scene())).max() < 16


@pytest.mark.parametrize("rotation", [0.0, 90.0])
def test_a_rotation_holds_for_all_sizes(tmp_path, rotation):
    plain = turning(tmp_path / "t.webm", [(48, 64), (64, 48)])
    path = tmp_path / "r.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(rotation)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    frames = [image for _, image in video.read(path, warn=[].append)]
    assert {image.shape for image in frames} == {(64, 48, 3) if rotation else (48, 64, 3)} and len(frames) == 10


@pytest.mark.parametrize(
    "codec,form,suffix",
    [
        ("libx264", "h264", "h264"),
        ("libx264", "h264", "bin"),
        ("libx265", "hevc", "hevc"),
        ("mpeg4", "m4v", "m4v"),
        ("mpeg2video", "mpeg2video", "m2v"),
        ("mjpeg", "mjpeg", "mjpeg"),
    ],
)
def test_raw_streams_without_time_stamps_play_at_25_frames_a_second_and_this_is_told(tmp_path, codec, form, suffix):
    path, said = tmp_path / f"r.{suffix}", []
    options = {"x265-params": "log-level=error"} if codec == "libx265" else {}
    make(path, [scene(i, 64, 96) for i in range(30)], codec, "yuvj420p" if codec == "mjpeg" else "yuv420p",
         container_options={}, options=options, form=form)  # fmt: skip
    found = list(video.read(path, warn=said.append))
    assert np.allclose([time - found[0][0] for time, _ in found], np.arange(30) / 25, atol=1e-6)
    assert np.abs(corners(found[7][1]) - corners(scene(7, 64, 96))).max() < 16, "frames are in their order"
    assert any("no time stamps" in text and "25 frames a second" in text for text in said)
    info = video.probe(path)
    assert (info.frames_estimate, info.fps) == (30, 25) and info.duration == pytest.approx(1.2)


def test_an_unforeseen_error_of_the_decoder_says_what_failed_and_suspects_nobody(tmp_path):
    path = make(tmp_path / "g.mp4", [scene(i) for i in range(3)])
    with pytest.raises(UnreadableVideo) as caught:
        video.probe(path, video.Limits(frames="many"))  # the child cannot compare a number with a word
    text = str(caught.value)
    assert "TypeError" in text and "g.mp4" in text and "\n" not in text
    assert "malicious" not in text and "damaged" not in text
