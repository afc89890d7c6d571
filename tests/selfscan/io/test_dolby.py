"""Dolby Vision: its configuration record is put into clips here, whose signal is computed from SMPTE ST 2128."""

from fractions import Fraction

import av
import numpy as np
import pytest

from selfscan.io import dolby, facts
from selfscan.io.joined import checksum
from tests.selfscan.io.test_colour import TO_2020, patches, pq, read

#: linear XYZ of D65 to the cones of Hunt, Pointer and Estevez, BT.2020 to XYZ, and the cones' signals to IPT
LMS = np.array([[0.40024, 0.7076, -0.08081], [-0.2263, 1.16532, 0.0457], [0, 0, 0.91822]])
XYZ = np.array([[0.636958, 0.144617, 0.168881], [0.2627, 0.677998, 0.059302], [0, 0.028073, 1.060985]])
IPT = np.array([[0.4, 0.4, 0.2], [4.455, -4.851, 0.396], [0.8056, 0.3572, -1.1628]])


def ipt_of(light):
    """Planes [H, W, 3] of displayed light in linear BT.2020: cones, 2 % of crosstalk, PQ, IPT."""
    cones = light @ (LMS @ XYZ).T @ (0.02 + 0.94 * np.eye(3))
    return pq(cones) @ IPT.T


def ycc_of(light):
    signal = pq(light)
    y = signal @ np.array([0.2627, 0.678, 0.0593])
    return np.stack([y, (signal[..., 2] - y) / 1.8814, (signal[..., 0] - y) / 1.4746], -1)


def hevc(path, planes, full, tags=(2, 2, 2), tag="hvc1"):
    """Write a lossless clip of 10 bits; tags: matrix, primaries, transfer."""
    numbers = [(1023 if full else 876) * planes[..., 0] + (0 if full else 64)]
    numbers += [(1023 if full else 896) * planes[..., k] + 512 for k in (1, 2)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=25, options={"x265-params": "lossless=1:log-level=none"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv444p10le"
        stream.codec_context.codec_tag = tag
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = tags
        for k in range(3):
            frame = av.VideoFrame(64, 48, "yuv444p10le")
            for plane, values in zip(frame.planes, numbers):
                rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                rows[:, :64] = values.round()
                plane.update(rows)
            frame.colorspace, frame.pts, frame.time_base = tags[0], k, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def marked(path, profile, compatible):
    """Put a configuration record into an mp4's description of its pictures; the index lies behind the pictures."""
    data = bytearray(path.read_bytes())
    bits = profile << 9 | 6 << 3 | 0b101  # level 6, with metadata and a base layer
    record = bytes((1, 0)) + bits.to_bytes(2, "big") + bytes((compatible << 4,)) + bytes(19)
    kind = b"dvvC" if profile > 7 else b"dvcC"
    entry = max(data.rfind(b"hvc1"), data.rfind(b"dvh1"), data.rfind(b"hev1")) - 4
    end = entry + int.from_bytes(data[entry : entry + 4], "big")
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", bytes(data[entry + 4 : entry + 8])):
        at = data.rfind(name) - 4
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 32).to_bytes(4, "big")
    data[end:end] = bytes((0, 0, 0, 32)) + kind + record
    path.write_bytes(data)
    return path


def moved(source, path):
    """Copy a clip's packets into another container, which takes over the record."""
    with av.open(str(source)) as clip, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return path


def described(source, path, profile, compatible):
    """Copy a clip into a transport stream, and put the descriptor into its programme maps, which FFmpeg does not."""
    data = bytearray(moved(source, path).read_bytes())
    bits = profile << 9 | 6 << 3 | 0b101
    descriptor = bytes((0xB0, 5, 1, 0)) + bits.to_bytes(2, "big") + bytes((compatible << 4,))
    for at in range(0, len(data), 188):
        if data[at + 1 : at + 3] != b"\x50\x00":
            continue
        length = int.from_bytes(data[at + 6 : at + 8], "big") & 0xFFF
        section = data[at + 5 : at + 8 + length - 4]
        names = int.from_bytes(section[15:17], "big") & 0xFFF
        section[15:17] = (0xF000 | names + len(descriptor)).to_bytes(2, "big")
        section += descriptor
        section[1:3] = (0xB000 | length + len(descriptor)).to_bytes(2, "big")
        section += checksum(section).to_bytes(4, "big")
        data[at + 5 : at + 188] = section.ljust(183, b"\xff")
    path.write_bytes(data)
    return path


def light():
    return (patches() / 255.0) ** 2.4 @ TO_2020.T


def error_of(got):
    error = np.abs(got - patches())[4::16, 4::16]
    return error.mean(), error.max()


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("tags", [(2, 2, 2), (9, 9, 16)], ids=["untagged", "tagged as HDR10"])
def test_profile_5_is_converted_and_told(tmp_path, ending, tags):
    path = marked(hevc(tmp_path / "a.mp4", ipt_of(light()), True, tags), 5, 0)
    path = moved(path, tmp_path / "a.mkv") if ending == "mkv" else path
    path = described(path, tmp_path / "a.ts", 5, 0) if ending == "ts" else path
    got, said = read(path)
    mean, most = error_of(got)
    assert mean < 1.5 and most < 4
    assert "Dolby Vision" in said[-1] and "approximate" in said[-1]
    assert facts.read_facts(path).light == "PQ"


def test_the_tag_of_the_stream_alone_says_so_where_its_transfer_is_not_tagged(tmp_path):
    got, said = read(hevc(tmp_path / "a.mp4", ipt_of(light()), True, tag="dvh1"))
    assert error_of(got)[0] < 1.5 and "Dolby Vision" in said[-1]


@pytest.mark.parametrize("profile,compatible", [(8, 1), (7, 6), (4, 2)])
def test_profiles_with_a_base_layer_are_read_by_its_tags(tmp_path, profile, compatible):
    path = marked(hevc(tmp_path / "a.mp4", ycc_of(light()), False, (9, 9, 16)), profile, compatible)
    for file in (path, moved(path, tmp_path / "a.mkv"), described(path, tmp_path / "a.ts", profile, compatible)):
        got, said = read(file)
        assert error_of(got)[0] < 1.5 and error_of(got)[1] < 4
        assert len(said) == 1 and "tone-mapped" in said[0]


@pytest.mark.parametrize("profile,compatible,alone", [(5, 0, True), (10, 0, True), (10, 1, False), (8, 4, False)])
def test_the_record_decides(tmp_path, profile, compatible, alone):
    path = marked(hevc(tmp_path / "a.mp4", ipt_of(light()), True, tag="dvh1"), profile, compatible)
    assert dolby.is_ipt(path, "mov,mp4,m4a", "dvh1", 2) == alone
