"""Sizes and orientation of decoded frames: square pixels, the display matrix, and one size for the whole clip."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import av

from selfscan.errors import VideoTooLarge
from selfscan.io.opening import Limits

Turned = tuple[bool, bool, bool]  # transpose, then flip up-down, then flip left-right, so that a frame is upright


def orientation(frame) -> Turned:
    """How to turn a decoded frame so that it is upright."""
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None or len(bytes(side)) < 20:
        return False, False, False
    a, b, _, c, d = memoryview(bytes(side)[:20]).cast("i").tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


def clockwise(turned: Turned) -> int:
    """Degrees clockwise of an orientation: 0, 90, 180 or 270."""
    transposed, up_down, left_right = turned
    if transposed:
        return 90 if left_right else 270
    return 180 if up_down else 0


class Canvas:
    """The size of a clip: that of its first frame, with square pixels. Other frames are fitted into it, on black."""

    def __init__(self, stream, limits: Limits, tell: Callable[[str], None]):
        self._stream, self._limits, self._tell = stream, limits, tell
        self._upright, self._told, self._ratio = None, False, stream.codec_context.sample_aspect_ratio

    def size(self, name: str, time: float, frame, turned: Turned) -> tuple[int, int]:
        """Width and height, px, to which a frame is scaled, before it is turned.

        Args:
            name: of the clip. time: of the frame, s. turned: of ``orientation``.
        Raises: VideoTooLarge: the frame or the clip's size exceeds the limits.
        """
        width, height = self._square_pixels(frame)
        if max(width * height, frame.width * frame.height) > self._limits.pixels:
            raise VideoTooLarge(
                f"{name}: shown at {width}x{height} px, more than {self._limits.pixels} px; export it in 4K or smaller"
            )
        upright = (height, width) if turned[0] else (width, height)
        if self._upright is None:
            self._upright = upright
        elif upright != self._upright:
            whole = f"{self._upright[0]}x{self._upright[1]}"
            if not self._told:
                self._tell(
                    f"The picture's size changes from {whole} px to {upright[0]}x{upright[1]} px at {time:.1f} s; "
                    f"every picture is fitted into {whole} px."
                )
            self._told = True
            share = min(self._upright[0] / upright[0], self._upright[1] / upright[1])
            return max(1, round(width * share)), max(1, round(height * share))
        return width, height

    def filled(self, picture, turned: Turned):
        """Put a picture, format rgb24, into the middle of the canvas; one of the full size is returned as it is."""
        assert self._upright is not None, "``size`` comes first"
        width, height = self._upright[::-1] if turned[0] else self._upright
        if (picture.width, picture.height) == (width, height):
            return picture
        import numpy as np

        canvas = np.zeros((height, width, 3), np.uint8)
        top, left = (height - picture.height) // 2, (width - picture.width) // 2
        canvas[top : top + picture.height, left : left + picture.width] = picture.to_ndarray()
        return av.VideoFrame.from_ndarray(canvas, format="rgb24")

    def _square_pixels(self, frame) -> tuple[int, int]:
        """Width and height, px, that show the stored frame without distortion."""
        ratio, now = self._stream.sample_aspect_ratio, self._stream.codec_context.sample_aspect_ratio
        if now and now != self._ratio:  # it changed within the clip
            ratio = now
        return max(1, round(frame.width * float(ratio or Fraction(1)))), frame.height
