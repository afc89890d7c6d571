"""Looks of a camera: one child decodes them all, and a look that ends it costs only that look."""

import os
import signal
import struct

import cv2
import numpy as np
import pytest

from selfscan.errors import UnreadablePicture
from selfscan.io import isolation, picture_stream
from selfscan.io.picture_stream import MAX_BYTES, PictureStream


def jpeg(height=48, width=64, seed=0) -> tuple[np.ndarray, bytes]:
    smooth = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 255, (height, width, 3)), (0, 0), 9)
    image = smooth.clip(0, 255).astype(np.uint8)
    return image, cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


@pytest.fixture
def decode():
    made = PictureStream()
    yield made
    made.close()


def test_looks_of_any_size_come_back_in_rgb(decode):
    for seed, size in enumerate([(48, 64), (720, 1280), (1, 1)]):
        image, content = jpeg(*size, seed)
        got = decode(content)
        assert got.shape == image.shape and np.abs(got.astype(int) - image).mean() < 3


def bomb() -> bytes:
    """A small JPEG whose header claims 65,000 x 65,000 px."""
    _, content = jpeg()
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", 65_000, 65_000) + content[at + 4 :]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8\xff", b"GIF89a" + bytes(99), jpeg()[1][:120], bomb(), b"\xff\xd8\xff" + bytes(MAX_BYTES),
     cv2.imencode(".png", jpeg()[0])[1].tobytes()],
    ids=["nothing", "head", "gif", "cut", "bomb", "too long", "png"],
)  # fmt: skip
def test_what_is_no_small_jpeg_is_refused_and_the_next_look_is_read(decode, content):
    decode(jpeg()[1])
    with pytest.raises(UnreadablePicture, match="expected a JPEG"):
        decode(content)
    assert decode(jpeg()[1]).shape == (48, 64, 3)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_child_that_ends_or_hangs_costs_one_look(decode, monkeypatch, how):
    monkeypatch.setattr(picture_stream, "SECONDS", 1.0)
    children = []
    start = isolation.start
    monkeypatch.setattr(isolation, "start", lambda *given: children.append(start(*given)) or children[-1])
    decode(jpeg()[1])
    os.kill(children[0].pid, how)
    with pytest.raises(UnreadablePicture):
        decode(jpeg()[1])
    assert decode(jpeg()[1]).shape == (48, 64, 3) and len(children) == 2
    assert children[0].poll() is not None
