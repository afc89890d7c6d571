"""Valid pictures, and functions that read one of them."""

from __future__ import annotations

import io
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np

from mystudio.base import sources
from selfscan.io.picture_stream import PictureStream


def picture_clips() -> list[bytes]:
    from PIL import Image

    first, *rest = [Image.fromarray(np.full((16, 24, 3), 40 * k, np.uint8)) for k in range(4)]
    found = []
    for form in ("WEBP", "PNG", "AVIF", "JPEG", "TIFF"):
        data, several = io.BytesIO(), {"save_all": True, "append_images": rest, "duration": 40}
        first.save(data, form, **(several if form in ("WEBP", "PNG", "AVIF") else {}))
        found.append(data.getvalue())
    return found


def pictures() -> list[bytes]:
    import cv2

    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return [cv2.imencode(suffix, image)[1].tobytes() for suffix in (".png", ".jpg")]


def jpegs() -> list[bytes]:
    return pictures()[1:]


def camera_look(data: bytes, _: Path) -> None:
    with closing(PictureStream()) as decode:
        decode(data)


def training_image(data: bytes, folder: Path) -> None:
    for suffix in (".png", ".jpg"):
        shutil.rmtree(folder / "images", ignore_errors=True)
        (folder / "images").mkdir()
        (folder / "images" / f"x{suffix}").write_bytes(data)
        sources.ImageFolder(folder / "images", 8).get(0)
