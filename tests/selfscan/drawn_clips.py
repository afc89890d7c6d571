"""Small clips of a known scene, written by PyAV alone."""

from fractions import Fraction

import av
import numpy as np

FPS = 25


def scene(index=0, height=48, width=64):
    """Four flat colours, different in every corner, and a bar that moves with the frame number."""
    image = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    image[:h, :w], image[:h, w:] = (200, 40, 40), (40, 180, 60)
    image[h:, :w], image[h:, w:] = (50, 60, 190), (210, 200, 60)
    x = index % (width - 8)
    image[h - 4 : h + 4, x : x + 8] = 255
    return image


def make(path, frames, codec="libx264", pix_fmt="yuv420p", pts=None, time_base=None, prepare=None, options=None, **kw):
    """Write a clip without the code under test."""
    with av.open(str(path), "w", kw.pop("form", None), options=kw.pop("container_options", None)) as container:
        stream = container.add_stream(codec, rate=FPS, options=options or ({"crf": "4"} if codec == "libx264" else {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if time_base:
            stream.codec_context.time_base = time_base
        if prepare:
            prepare(stream)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt, **kw)
            frame.pts, frame.time_base = (pts[i] if pts else i), (time_base or Fraction(1, FPS))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def corners(image):
    h, w = image.shape[:2]
    return np.stack([image[y, x] for y in (h // 5, 4 * h // 5) for x in (w // 5, 4 * w // 5)]).astype(int)
