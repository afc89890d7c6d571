"""A camera as a stream of frames, in the form of ``video.read``."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from selfscan.errors import NoCamera
from selfscan.types import Array

SILENT = 0  # OpenCV's LOG_LEVEL_SILENT


def read(number: int) -> Generator[tuple[float, Array], None, None]:
    """Stream a camera's frames until it stops or the iterator is closed.

    Args:
        number: number of the camera; 0 is the first.
    Returns:
        Pairs of time in s since the first frame and image [H, W, 3] uint8 RGB.
    Raises:
        NoCamera: no camera has that number, or it delivers no picture.
    """
    import cv2

    with _silent(cv2):
        camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            where = f"/dev/video{number}" if sys.platform == "linux" else f"number {number}"
            raise NoCamera(
                f"expected a camera at {where}, found none that can be opened; plug one in, close other programs that "
                f"use it, or name a video file instead"
            )
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # always deliver the newest frame
        start = None
        while True:
            there, frame = camera.read()
            now = time.monotonic()
            if not there:
                break
            start = now if start is None else start
            yield now - start, np.ascontiguousarray(frame[..., ::-1])
        if start is None:
            raise NoCamera(f"camera {number} gives no picture; close other programs that use it, or choose another")
    finally:
        camera.release()


@contextmanager
def _silent(cv2):
    """Silence OpenCV, which warns about every driver that it tries; NoCamera replaces those warnings."""
    level = cv2.getLogLevel()
    cv2.setLogLevel(SILENT)
    try:
        yield
    finally:
        cv2.setLogLevel(level)
