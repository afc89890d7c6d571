"""Decode a stream of untrusted small pictures, such as a camera's looks from a browser, in one child with limits.

``picture.read`` starts a child for each picture, which takes longer than a camera's next frame.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time

import numpy as np

from selfscan.errors import UnreadablePicture
from selfscan.io import isolation
from selfscan.types import Array

MAX_BYTES = 1 << 19  # of one encoded picture
MAX_PIXELS = 1 << 20  # 1280 x 720 and some more
SECONDS = 5.0  # for one picture
FIRST_SECONDS = 60.0  # for the first, while the child starts
LENGTH, SIZE = struct.Struct("<I"), struct.Struct("<II")
JPEG = b"\xff\xd8\xff"
RATIONS = isolation.Rations(memory=2 << 30, cpu=24 * 3600)


class PictureStream:
    """A child that decodes one JPEG after the other; a picture that ends it costs only that picture."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, content: bytes) -> Array:
        """Decode a JPEG.

        Returns: [H, W, 3] uint8 RGB.
        Raises: UnreadablePicture: it is no JPEG, is damaged, exceeds the limits, or ends the decoder.
        """
        answer = self._ask(content) if content.startswith(JPEG) and len(content) <= MAX_BYTES else None
        if answer is None:
            raise UnreadablePicture(
                f"a look of the camera: expected a JPEG of at most {MAX_PIXELS} px and {MAX_BYTES >> 10} kB, got "
                "something else or a damaged one; reload the page"
            )
        return answer

    def close(self) -> None:
        """End the child."""
        if self._child:
            isolation.stop(self._child)
        self._child = None

    def _ask(self, content: bytes) -> Array | None:
        seconds = SECONDS if self._child else FIRST_SECONDS
        child = self._child = self._child or isolation.start("selfscan.io.picture_stream:serve", {}, RATIONS)
        stdin, stdout = isolation.pipes(child)
        deadline = time.monotonic() + seconds
        try:
            rest = memoryview(LENGTH.pack(len(content)) + content)
            while rest:
                rest = rest[stdin.write(rest) :]
            head = _exactly(stdout.fileno(), SIZE.size, deadline)
            height, width = SIZE.unpack(head) if head else (0, 0)
            if head is None or height * width > MAX_PIXELS:
                raise OSError
            if not height * width:
                return None  # damaged; the child is well
            pixels = _exactly(stdout.fileno(), 3 * height * width, deadline)
            if pixels is None:
                raise OSError
            return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        except OSError:  # also a broken pipe
            self.close()
            return None


def _exactly(pipe: int, count: int, deadline: float) -> bytes | None:
    """Read ``count`` bytes; None if the child ends or hangs before."""
    out = bytearray()
    while len(out) < count:
        if not isolation.wait_for(pipe, deadline - time.monotonic()):
            return None
        block = os.read(pipe, count - len(out))
        if not block:
            return None
        out += block
    return bytes(out)


def serve(_: dict[str, object]) -> None:
    """Entry point of the child: read length and JPEG, write height, width and pixels; 0, 0 if it is unreadable."""
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # checked against the header before allocation
    import cv2

    cv2.setNumThreads(1)
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := questions.read(LENGTH.size)) == LENGTH.size:
        content = questions.read(LENGTH.unpack(head)[0])
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # more pixels than allowed
            image = None
        if image is None:
            answers.write(SIZE.pack(0, 0))
        else:
            answers.write(SIZE.pack(*image.shape[:2]))
            answers.write(np.ascontiguousarray(image[..., ::-1]).data)
        answers.flush()
