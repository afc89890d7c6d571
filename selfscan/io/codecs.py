"""The encoders of pictures: their options, clock and colours."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from selfscan.types import Array

TIME_BASE = Fraction(1, 720_000)  # s; divides 1/24, 1/25, 1/30, 1/50, 1/60 s, their 1001/1000, 1/1000 and 1/90000 s
ITU709 = 1  # FFmpeg's number of the BT.709 matrix, primaries and transfer curve
LIMITED_RANGE = 1
KEY_SECONDS = 2  # s between key frames
VP9_CRF = 4 / 3  # VP9's quality number / that of x264 for a similar quality
SAME_BITS = "cpu-independent=1"  # x264's AVX-512 code reads uninitialised memory unless the width is a multiple
#   of 128; equal pictures then gave different files
HELD_BACK = {"libx264": 2}  # pictures by which a codec may delay its output to reorder them: two, for a B-pyramid


def add_stream(container, shape: tuple[int, ...], rate: float, crf: float, codec: str):
    """Add a stream of pictures [H, W, 3] to an open output."""
    stream = container.add_stream(codec, rate=rational(rate), options=options_of(rate, crf, codec))
    prepare(stream.codec_context, shape, codec)
    return stream


def rational(rate: float) -> Fraction:
    """Frames a second as a fraction that encoders take."""
    return Fraction(min(rate, 240.0)).limit_denominator(1001)


def options_of(rate: float, crf: float, codec: str) -> dict[str, str]:
    """The options of an encoder; ``crf`` is in the scale of x264."""
    key = str(max(1, round(KEY_SECONDS * rational(rate))))
    if codec == "png":
        return {"compression_level": "3"}
    if codec == "libvpx-vp9":
        return {"crf": str(min(63, round(crf * VP9_CRF))), "b": "0", "g": key, "cpu-used": "4", "row-mt": "1"}
    return {"crf": str(crf), "g": key, "x264-params": SAME_BITS}


def prepare(context, shape: tuple[int, ...], codec: str) -> None:
    """Set size, pixel format, clock and colours of an encoder for pictures [H, W, 3]."""
    context.height, context.width = shape[:2] if codec == "png" else (n + n % 2 for n in shape[:2])
    context.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
    context.time_base = TIME_BASE
    if codec != "png":
        context.colorspace = context.color_primaries = context.color_trc = ITU709
        context.color_range = LIMITED_RANGE


def stored(image: Array, time: float, codec: str):
    """A picture [H, W, 3] uint8 RGB at ``time`` s as the frame that a codec takes; odd sizes are padded."""
    height, width = image.shape[:2]
    if codec != "png" and (height % 2 or width % 2):
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    if codec != "png":
        frame = frame.reformat(format="yuv420p", dst_colorspace=ITU709, dst_color_range=LIMITED_RANGE)
    frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
    return frame
