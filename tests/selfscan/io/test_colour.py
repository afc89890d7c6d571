"""Colour tags: the signal is computed here from the standards, so the right colours are known."""

from fractions import Fraction

import av
import numpy as np
import pytest

from selfscan.io import colour, video

WHITE = 203.0  # cd/m2, BT.2408
#: linear BT.709 to linear BT.2020, ITU-R BT.2087, table 1
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def patches():
    """Twelve skin tones, greys and moderate colours, 16 px each."""
    colours = [(224, 172, 140), (141, 85, 60), (90, 56, 40), (198, 134, 110), (128, 128, 128), (40, 40, 40)]
    colours += [(230, 230, 230), (60, 90, 140), (80, 130, 70), (170, 70, 60), (200, 190, 90), (110, 90, 150)]
    image = np.zeros((48, 64, 3), np.uint8)
    for k, value in enumerate(colours):
        image[k // 4 * 16 : k // 4 * 16 + 16, k % 4 * 16 : k % 4 * 16 + 16] = value
    return image


def hlg(light):
    """Displayed light, 1 = white of SDR, to an HLG signal; BT.2100-2, table 5."""
    light = light * WHITE / 1000
    luma = light @ LUMA_2020
    scene = light * np.maximum(luma, 1e-9)[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def pq(light):
    """Displayed light to a PQ signal; BT.2100-2, table 4."""
    y = (light * WHITE / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def stored(signal, matrix, full, bits):
    """R'G'B' in 0..1 as the planes Y, Cb and Cr of 4:4:4 video; BT.2100-2, table 6 and 9."""
    kr, kb = KR_KB[matrix]
    y = signal @ np.array([kr, 1 - kr - kb, kb])
    planes = [y, (signal[..., 2] - y) / (2 - 2 * kb), (signal[..., 0] - y) / (2 - 2 * kr)]
    unit, half = 2 ** (bits - 8), 2 ** (bits - 1)
    if full:
        numbers = [planes[0] * (2**bits - 1)] + [p * (2**bits - 1) + half for p in planes[1:]]
    else:
        numbers = [(219 * planes[0] + 16) * unit] + [224 * unit * p + half for p in planes[1:]]
    return [n.round().astype(np.uint16 if bits > 8 else np.uint8) for n in numbers]


def clip(path, signal, matrix=1, primaries=1, transfer=1, full=False, bits=10, tagged=True, codec="ffv1"):
    """Write a lossless clip of one signal [H, W, 3]."""
    form = "yuv444p10le" if bits == 10 else "yuv444p"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *signal.shape[:2], form
        context = stream.codec_context
        if tagged:
            context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
            context.color_range = 2 if full else 1
        for k in range(3):
            frame = av.VideoFrame(signal.shape[1], signal.shape[0], form)
            for plane, numbers in zip(frame.planes, stored(signal, matrix, full, bits)):
                rows = np.zeros((plane.height, plane.line_size // numbers.itemsize), numbers.dtype)
                rows[:, : numbers.shape[1]] = numbers
                plane.update(rows)
            if tagged:
                frame.colorspace, frame.color_range = matrix, 2 if full else 1
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path):
    said = []
    frames = [frame for _, frame in video.read(path, warn=said.append)]
    assert len(frames) == 3
    return frames[-1].astype(int), said


@pytest.mark.parametrize("transfer,curve", [(18, hlg), (16, pq)], ids=["HLG", "PQ"])
@pytest.mark.parametrize("full", [False, True])
def test_hdr_comes_back_as_the_sdr_picture_that_it_shows(tmp_path, transfer, curve, full):
    light = (patches() / 255.0) ** 2.4 @ TO_2020.T
    got, said = read(clip(tmp_path / "h.mkv", curve(light), 9, 9, transfer, full))
    error = np.abs(got - patches())[4::16, 4::16]
    assert error.mean() < 1.5 and error.max() < 4
    assert len(said) == 1 and ("HLG" if transfer == 18 else "PQ") in said[0] and "tone-mapped" in said[0]
    assert video.probe(tmp_path / "h.mkv").warnings == tuple(said)


def test_light_above_white_is_compressed_and_keeps_its_order(tmp_path):
    light = np.ones((48, 64, 3)) * np.repeat([0.5, 1.0, 1.4, 4.0], 16)[None, :, None]
    got, _ = read(clip(tmp_path / "h.mkv", hlg(light), 9, 9, 18))
    levels = got[8, 8::16, 1]
    assert abs(levels[0] - 255 * 0.5 ** (1 / 2.4)) < 3, "light below white keeps its brightness"
    assert 245 <= levels[1] < levels[2] <= levels[3] <= 255


def test_wide_primaries_of_sdr_are_converted_and_told(tmp_path):
    signal = ((patches() / 255.0) ** 2.4 @ TO_2020.T) ** (1 / 2.4)
    got, said = read(clip(tmp_path / "w.mkv", signal, 9, 9, 14))
    assert np.abs(got - patches())[4::16, 4::16].max() < 4
    assert len(said) == 1 and "BT.2020" in said[0]


@pytest.mark.parametrize("primaries", [4, 5, 6, 7, 8, 9, 11, 12, 22])
def test_grey_stays_grey_in_every_set_of_primaries(primaries):
    grey = np.linspace(0, 1, 11)[:, None].repeat(3, 1)
    assert np.abs(colour.sdr(grey, primaries, 1) - grey).max() < 1e-3


def test_primaries_of_525_lines_are_converted(tmp_path):
    # SMPTE RP 177's normalised matrix of these primaries, from linear BT.709
    to_170m = np.linalg.inv(
        np.array([[0.939542, 0.050181, 0.010277], [0.017772, 0.965793, 0.016435], [-0.001622, -0.004370, 1.005991]])
    )
    signal = ((patches() / 255.0) ** 2.4 @ to_170m.T).clip(0) ** (1 / 2.4)
    got, said = read(clip(tmp_path / "n.mkv", signal, 6, 6, 6, bits=8))
    assert np.abs(got - patches())[4::16, 4::16].max() < 4 and not said


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_matrix_and_range_of_sdr_are_honoured(tmp_path, matrix, full, bits):
    primaries = 9 if matrix == 9 else 1
    signal = patches() / 255.0
    if matrix == 9:
        signal = (signal**2.4 @ TO_2020.T) ** (1 / 2.4)
    got, _ = read(clip(tmp_path / "s.mkv", signal, matrix, primaries, 1, full, bits))
    assert np.abs(got - patches())[4::16, 4::16].max() < 4


def test_untagged_small_video_is_bt601_and_nothing_is_said(tmp_path):
    got, said = read(clip(tmp_path / "u.mkv", patches() / 255.0, 5, tagged=False, bits=8))
    assert np.abs(got - patches())[4::16, 4::16].max() < 4 and not said


def test_a_change_of_tags_within_a_clip_is_followed(tmp_path):
    light = (patches() / 255.0) ** 2.4 @ TO_2020.T
    one, other = tmp_path / "one.mkv", tmp_path / "other.mkv"
    clip(one, patches() / 255.0, 1, 1, 1)
    clip(other, hlg(light), 9, 9, 18)
    convert = colour.Converter()
    for path, word in ((one, []), (other, ["HLG"]), (one, [])):
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            frame = next(container.decode(video=0))
            tags = colour.tags_of(frame, context)
            got = convert(frame, tags, 64, 48).to_ndarray().astype(int)
        assert np.abs(got - patches())[4::16, 4::16].max() < 4
        assert [w for w in word if w in colour.told(tags)[0]] == word and bool(colour.told(tags)) == bool(word)


def test_transparent_video_is_shown_over_grey(tmp_path):
    image = np.zeros((48, 64, 4), np.uint8)
    image[..., 0], image[:, :32, 3], image[:, 32:48, 3] = 200, 255, 128
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgra"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba").reformat(format="bgra")))
        container.mux(stream.encode(None))
    (_, got), *_ = video.read(tmp_path / "a.mkv")
    assert got[20, 10].tolist() == [200, 0, 0] and got[20, 60].tolist() == [128, 128, 128]
    assert np.abs(got[20, 40].astype(int) - [164, 64, 64]).max() <= 1


def camera(light):
    """Light to a signal by the transfer of BT.709 and BT.2020."""
    return np.where(light < 0.018053968510807, 4.5 * light, 1.09929682680944 * light**0.45 - 0.09929682680944)


def camera_back(signal):
    return np.where(signal < 0.0812428583, signal / 4.5, ((signal + 0.09929682680944) / 1.09929682680944) ** (1 / 0.45))


def planes_of(kind):
    """Y, Cb, Cr of the patches in a matrix that swscale does not know, its tags, by the standards' tables."""
    signal, light = patches() / 255.0, (patches() / 255.0) ** 2.4 @ TO_2020.T
    if kind == "YCgCo":
        half, quarter = 0.5, 0.25
        rows = np.array([[quarter, half, quarter], [-quarter, half, -quarter], [half, 0, -half]])
        return signal @ rows.T, (8, 1, 1)
    if kind == "constant luminance":  # BT.2020-2, table 4
        wide = light ** (1 / 2.4)
        y = camera(camera_back(wide) @ LUMA_2020)
        blue, red = wide[..., 2] - y, wide[..., 0] - y
        chroma = blue / np.where(blue <= 0, 1.9404, 1.5816), red / np.where(red <= 0, 1.7184, 0.9936)
        return np.stack([y, *chroma], -1), (10, 9, 14)
    lms = light @ np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]).T / 4096  # BT.2100-2, table 7
    if kind == "ICtCp of PQ":
        return pq(lms) @ np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]).T / 4096, (14, 9, 16)
    luma = (light * WHITE / 1000) @ LUMA_2020
    scene = lms * WHITE / 1000 * np.maximum(luma, 1e-9)[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    curve = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    return curve @ np.array([[2048, 2048, 0], [3625, -7465, 3840], [9500, -9212, -288]]).T / 4096, (14, 9, 18)


@pytest.mark.parametrize("kind", ["YCgCo", "constant luminance", "ICtCp of PQ", "ICtCp of HLG"])
@pytest.mark.parametrize("full", [False, True])
def test_matrices_that_swscale_does_not_know_are_converted_and_told(tmp_path, monkeypatch, kind, full):
    planes, (matrix, primaries, transfer) = planes_of(kind)
    numbers = [(1023 if full else 876) * planes[..., 0] + (0 if full else 64)]
    numbers += [(1023 if full else 896) * planes[..., k] + 512 for k in (1, 2)]
    monkeypatch.setattr(f"{__name__}.stored", lambda *_: [n.round().astype(np.uint16) for n in numbers])
    got, said = read(clip(tmp_path / "m.mkv", planes, matrix, primaries, transfer, full))
    error = np.abs(got - patches())[4::16, 4::16]
    assert error.mean() < 1.5 and error.max() < 4
    assert kind.split(" of ")[0] in said[-1] and "converted to RGB" in said[-1]


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparent_webm_is_shown_over_grey_and_opaque_webm_as_it_is(tmp_path, codec):
    for alpha in (0, 102, 255):
        path = tmp_path / f"{alpha}.webm"
        rgba = np.full((48, 64, 4), (200, 60, 60, 255), np.uint8)
        rgba[:, 32:, 3] = alpha
        with av.open(str(path), "w") as out:
            options = {"auto-alt-ref": "0", "crf": "5", "b": "1M"}
            stream = out.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
            for k in range(4):
                frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="yuva420p")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        timed = list(video.read(path))
        assert [round(time * 25) for time, _ in timed] == [0, 1, 2, 3]
        for _, picture in timed:
            assert np.abs(picture[20, 8].astype(int) - (200, 60, 60)).max() < 5
            shown = (np.array((200, 60, 60)) * alpha + 128 * (255 - alpha)) / 255
            assert np.abs(picture[20, 56] - shown).max() < 5
