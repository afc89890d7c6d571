"""Clips of known content and timing, written with PyAV alone: a beep and a flash at each whole second."""

from fractions import Fraction

import av
import numpy as np

FPS = 25
BEEP = 0.05  # s, length of a beep


def picture(index, height=48, width=64):
    """A dark picture that is white in each first frame of a second."""
    return np.full((height, width, 3), 230 if index % FPS == 0 else 30, np.uint8)


def beeps(seconds, rate, silent=False):
    """[n] int16: a beep at the beginning of each second."""
    times = np.arange(int(seconds * rate)) / rate
    return np.where((times % 1 < BEEP) & (not silent), np.sin(2 * np.pi * 1000 * times) * 20_000, 0).astype(np.int16)


def clip(path, seconds=3.0, pictures="libx264", sounds=("aac",), rate=44_100, options=None, **how):
    """Write a clip.

    Args:
        sounds: codec of each sound track, "-" before it: silent.
        how: start: s added to all stamps; restamp: function of the list of packets, before they are written;
            container: options of the container; layout: mono or stereo; default: number of the default track.
    """
    with av.open(str(path), "w", options=how.get("container") or {}) as out:
        moving = out.add_stream(pictures, rate=FPS, options=options or {})
        moving.width, moving.height, moving.pix_fmt = 64, 48, "yuvj420p" if pictures == "mjpeg" else "yuv420p"
        tracks = [out.add_stream(name.lstrip("-"), rate=rate) for name in sounds]
        packets = []
        for track in tracks:
            track.codec_context.layout = how.get("layout", "mono")
        if "default" in how:
            for number, track in enumerate(tracks):
                track.disposition = av.stream.Disposition.default if number == how["default"] else 0
        for index in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            packets += moving.encode(frame)
        packets += moving.encode(None)
        for name, track in zip(sounds, tracks):
            packets += spoken(track, beeps(seconds, rate, name.startswith("-")), rate, how.get("layout", "mono"))
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in how.get("restamp", list)(packets):
            shift = round(how.get("start", 0.0) / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            out.mux(packet)
    return path


def spoken(track, wave, rate, layout):
    """The packets of a wave [n] int16."""
    packets = []
    for start in range(0, len(wave), 1024):
        block = np.repeat(wave[start : start + 1024], 2 if layout == "stereo" else 1)[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += track.encode(frame)
    return packets + track.encode(None)


def seen_flashes(path):
    """When a clip's pictures turn white, s, by its own stamps."""
    with av.open(str(path)) as source:
        seen = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24").mean() > 120) for f in source.decode(video=0)]
    return np.array([time for (time, white), (_, before) in zip(seen, [(0, False), *seen]) if white and not before])


def heard_beeps(path, track=0):
    """When the beeps of a clip begin, s, by its own stamps."""
    with av.open(str(path)) as source:
        blocks = [
            (float(f.pts * f.time_base), f.sample_rate, f.to_ndarray(), len(f.layout.channels), f.format.is_planar)
            for f in source.decode(audio=track)
        ]
    times, loud = [], []
    for start, rate, values, channels, planar in blocks:
        wave = values[0] if planar else values.reshape(-1, channels)[:, 0]
        full = 1.0 if wave.dtype.kind == "f" else float(np.iinfo(wave.dtype).max)
        times.append(start + np.arange(len(wave)) / rate)
        loud.append(np.abs(wave.astype(float)) > 0.1 * full)
    times, loud = np.concatenate(times), np.concatenate(loud)
    starts = times[loud]
    return starts[np.append(True, np.diff(starts) > 0.3)] if len(starts) else starts
