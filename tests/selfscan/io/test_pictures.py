"""Pictures as clips: animations, single pictures and folders, written here by Pillow."""

import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, features

from selfscan.errors import UnreadableVideo
from selfscan.io import video
from selfscan.io.digest import clip_digest

LENGTHS = [100, 200, 50, 300, 40]  # ms
TIMES = [0, 0.1, 0.3, 0.35, 0.65]  # s


def picture(level=0, width=64, height=48):
    image = np.full((height, width, 3), (40 + level, 100, 200 - level), np.uint8)
    image[: height // 4, : width // 4] = 255  # the upper left corner
    return Image.fromarray(image)


def read(path):
    said = []
    found = list(video.read(path, warn=said.append))
    return [time for time, _ in found], [frame for _, frame in found], said


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_all_frames_of_an_animation_are_read_with_their_times(tmp_path, kind):
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / f"a.{kind}"
    first, *rest = [picture(40 * k) for k in range(5)]
    first.save(path, save_all=True, append_images=rest, duration=LENGTHS, **({"quality": 95} if kind != "png" else {}))
    times, frames, said = read(path)
    assert np.allclose(times, TIMES, atol=1e-3) and not said
    for k, frame in enumerate(frames):
        assert np.abs(frame[30, 40].astype(int) - [40 + 40 * k, 100, 200 - 40 * k]).max() < 8
    info = video.probe(path)
    assert (info.width, info.height, info.frames_estimate) == (64, 48, 5)


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("length,step,told", [(0, 0.1, True), (10, 0.1, True), (20, 0.02, False)])
def test_frames_without_a_length_last_a_tenth_of_a_second_as_in_browsers(tmp_path, kind, length, step, told):
    path = tmp_path / f"a.{kind}"
    picture().save(path, save_all=True, append_images=[picture(40), picture(80)], duration=[length] * 3)
    times, _, said = read(path)
    assert np.allclose(times, np.arange(3) * step) and len(said) == told
    assert not told or "3 of 3 frames" in said[0] and "as in browsers" in said[0]


@pytest.mark.parametrize(
    "delays,times,short",
    [
        ([0, 0, 0], [0, 0.1, 0.2], 3),
        ([1, 1, 1], [0, 0.1, 0.2], 3),
        ([2, 2, 2], [0, 0.02, 0.04], 0),
        ([5, 1, 30], [0, 0.05, 0.15], 1),
    ],
)
def test_short_delays_of_a_gif_are_those_of_browsers(tmp_path, delays, times, short):
    path = tmp_path / "a.gif"
    picture().save(path, save_all=True, append_images=[picture(40), picture(80)], duration=200)
    data, at = bytearray(path.read_bytes()), 0
    for delay in delays:  # Pillow writes no delay of 0
        at = data.index(b"\x21\xf9\x04", at + 1)
        data[at + 4 : at + 6] = delay.to_bytes(2, "little")
    path.write_bytes(data)
    got, frames, said = read(path)
    assert np.allclose(got, times, atol=1e-4) and len(said) == (short > 0)
    assert not short or f"{short} of 3 frames" in said[0] and "as in browsers" in said[0]
    info = video.probe(path)
    last = delays[-1] / 100 if delays[-1] > 1 else 0.1
    assert info.frames_estimate == 3 and info.duration == pytest.approx(times[-1] + last)
    path.write_bytes(data[:-40])  # a damaged tail
    assert len(read(path)[0]) >= 2


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "bmp"])
def test_a_picture_is_a_clip_of_one_frame_and_this_is_told(tmp_path, kind):
    path = tmp_path / f"p.{kind}"
    picture().save(path)
    times, frames, said = read(path)
    assert times == [0.0] and frames[0].shape == (48, 64, 3)
    assert np.abs(frames[0][30, 40].astype(int) - [40, 100, 200]).max() < 8
    assert len(said) == 1 and "single picture" in said[0]


def test_the_kind_is_told_by_the_content_not_by_the_name(tmp_path):
    picture().save(tmp_path / "p.mp4", "PNG")
    assert read(tmp_path / "p.mp4")[1][0].shape == (48, 64, 3)


@pytest.mark.parametrize("turn,shape", [(3, (48, 64)), (6, (64, 48)), (8, (64, 48))])
def test_the_orientation_of_exif_is_applied(tmp_path, turn, shape):
    exif = Image.Exif()
    exif[0x0112] = turn
    picture().save(tmp_path / "p.jpg", exif=exif, quality=95)
    frame = read(tmp_path / "p.jpg")[1][0]
    assert frame.shape[:2] == shape
    corner = {3: (-1, -1), 6: (0, -1), 8: (-1, 0)}[turn]  # where the upper left corner is shown
    assert frame[corner].min() > 240


def test_transparent_pictures_are_shown_over_grey(tmp_path):
    image = np.zeros((48, 64, 4), np.uint8)
    image[..., 0], image[:, :32, 3] = 200, 255
    Image.fromarray(image).save(tmp_path / "t.png")
    frame = read(tmp_path / "t.png")[1][0]
    assert frame[20, 10].tolist() == [200, 0, 0] and frame[20, 50].tolist() == [128, 128, 128]


def test_16_bits_of_grey_are_scaled(tmp_path):
    Image.fromarray(np.full((48, 64), 100 * 257, np.uint16)).save(tmp_path / "g.png")
    assert read(tmp_path / "g.png")[1][0][20, 20].tolist() == [100, 100, 100]


def test_a_numbered_folder_is_a_clip(tmp_path):
    for k in range(12):
        picture(10 * k).save(tmp_path / f"frame_{k + 7}.png")  # 7 ... 18: sorted as numbers, not as text
    (tmp_path / "notes.txt").write_text("not a picture")
    times, frames, said = read(tmp_path)
    assert np.allclose(times, np.arange(12) / 25)
    assert [int(frame[30, 40, 0]) for frame in frames] == [40 + 10 * k for k in range(12)]
    assert len(said) == 1 and "25 frames a second" in said[0] and not video.probe(tmp_path).stills


def test_a_folder_of_photos_of_any_size_is_read_one_a_second(tmp_path):
    picture(0, 64, 48).save(tmp_path / "b.jpg", quality=95)
    picture(40, 48, 96).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(80, 32, 24).save(tmp_path / "c.jpg", exif=exif, quality=95)
    times, frames, said = read(tmp_path)
    assert times == [0.0, 1.0, 2.0] and video.probe(tmp_path).stills
    assert {frame.shape for frame in frames} == {(96, 64, 3)}
    assert (frames[0][:, :8] == frames[0][:, 8:9]).all() and (frames[0][:, -8:] == frames[0][:, -9:-8]).all()
    levels = [round(int(frame[48, 40, 0]) / 40) for frame in frames]
    assert levels == [2, 1, 3], "in the order of their names, in the middle"
    assert len(said) == 1 and "3 pictures" in said[0]


def test_numbered_photos_of_a_camera_are_photos(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:05:01 12:00:00"
    for k in range(3):
        picture(40 * k).save(tmp_path / f"IMG_{k + 1041}.jpg", exif=exif)
    assert video.probe(tmp_path).stills and read(tmp_path)[0] == [0, 1, 2]


def test_pictures_that_cannot_be_read_are_left_out_and_told(tmp_path):
    for name in ("a.png", "d.png"):
        picture().save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    times, _, said = read(tmp_path)
    assert len(times) == 2
    assert any("b.png" in text for text in said) and any("c.heic" in text and "JPEG" in text for text in said)


def test_a_folder_without_pictures_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(UnreadableVideo, match="folder of pictures"):
        video.probe(tmp_path)


def test_the_digest_of_a_folder_follows_names_and_contents(tmp_path):
    picture().save(tmp_path / "a.png")
    before = clip_digest(tmp_path)
    assert before == clip_digest(tmp_path)
    picture(1).save(tmp_path / "b.png")
    assert clip_digest(tmp_path) != before


def test_hdr_tags_of_a_png_are_honoured_alone_and_in_a_folder(tmp_path):
    """PQ of grey light at the white of SDR and below, with the chunk cICP of PNG's third edition."""
    share = np.array([1, 0.5, 0.25, 0.1])  # of SDR's white, 203 cd/m2
    y = (share * 203 / 10_000) ** 0.1593017578125
    signal = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    levels = np.repeat(np.repeat((signal * 65535).round().astype(">u2"), 16)[None], 48, 0)
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, 1).tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"cICP", bytes([9, 16, 0, 1])), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for name, part in chunks:
        data += struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "one.png", tmp_path / "photos" / "b.png"):
        path.write_bytes(data)
    picture().save(tmp_path / "photos" / "a.png")
    for path in (tmp_path / "one.png", tmp_path / "photos"):
        _, frames, said = read(path)
        assert np.abs(frames[-1][24, 24::16, 0] - 255 * share[1:] ** (1 / 2.4)).max() < 3
        assert any("The picture is HDR (PQ, BT.2020)" in text for text in said)


def hdr_avif(path, frames):
    """An AVIF of one PQ level, 203 cd/m2, which is white of SDR."""
    with av.open(str(path), "w", format="avif") as container:
        stream = container.add_stream("libsvtav1", rate=25, options={"preset": "12", "svtav1-params": "lp=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, 16, 1
        for k in range(frames):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, level in zip(frame.planes, (round(64 + 876 * 0.5807), 512, 512)):
                plane.update(np.full(plane.buffer_size // 2, level, np.uint16))
            frame.colorspace, frame.color_range, frame.pts, frame.time_base = 9, 1, k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("frames", [1, 3])
def test_hdr_avif_still_and_animated_is_tone_mapped(tmp_path, frames):
    if not features.check("avif") or "libsvtav1" not in av.codecs_available:
        pytest.skip("this Pillow reads no AVIF, or FFmpeg writes none")
    hdr_avif(tmp_path / "h.avif", frames)
    times, found, said = read(tmp_path / "h.avif")
    assert np.allclose(times, np.arange(frames) / 25)
    assert all(245 < frame.mean() <= 255 for frame in found), "Pillow alone gives 148"
    assert any("HDR (PQ, BT.2020)" in text for text in said)


@pytest.mark.parametrize(
    "name,head,word",
    [
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        ("renamed.mp4", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        ("photo.jxl", b"\xff\x0a\x7a\x1f", "JPEG XL"),
        ("photo.DNG", b"II*\0\x08\0\0\0", "raw camera"),
    ],
)
def test_pictures_that_are_not_read_ask_for_a_jpeg(tmp_path, name, head, word):
    (tmp_path / name).write_bytes(head + bytes(64))
    with pytest.raises(UnreadableVideo, match=f"{word} pictures are not read; export it as JPEG"):
        read(tmp_path / name)
