"""The picture that numbers the faces of a clip, so that one can be chosen."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from selfscan.io import video
from selfscan.types import WHOLE, Array, Span

LONG_SIDE = 960  # px of the picture


def draw(path: str | Path, crowd: Array, span: Span = WHOLE) -> bytes:
    """A frame of a clip with numbered boxes around its faces, as PNG.

    Args:
        path: the clip. crowd: [K, 5], K >= 1, from ``FaceTrack.crowd``. span: the part of the clip that was followed.
    """
    frames = islice(video.read(path, warn=video.unwarned, span=span), int(crowd[0, 0]), None)
    return numbered(next(frames)[1], crowd)


def numbered(frame: Array, crowd: Array) -> bytes:
    """The same for a frame [H, W, 3] uint8 RGB at hand."""
    import cv2

    scale = LONG_SIDE / max(frame.shape[:2])
    size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)[..., ::-1].copy()
    for number, box in enumerate(crowd[:, 1:] * scale, start=1):
        left, top, right, bottom = (int(value) for value in box)
        cv2.rectangle(picture, (left, top), (right, bottom), (255, 255, 255), 5, cv2.LINE_AA)
        cv2.rectangle(picture, (left, top), (right, bottom), (40, 40, 200), 2, cv2.LINE_AA)
        for colour, width in (((255, 255, 255), 10), ((40, 40, 200), 4)):
            at = (left + 8, min(max(top + 48, 48), size[1] - 8))
            cv2.putText(picture, str(number), at, cv2.FONT_HERSHEY_SIMPLEX, 1.6, colour, width, cv2.LINE_AA)
    return cv2.imencode(".png", picture)[1].tobytes()
