"""Make the pictures of these pages from finished runs: python docs/make_pictures.py DEMO_FOLDER [LARGE.mp4].

The folder holds hello.mp4 and smiling.mp4 (side by side), edits.png, me.avatar and me.scan, as ``make demo`` makes
them. Pictures are twice as large as pages show them.

LARGE.mp4 is a take of an avatar of 512 px by the demo's driver, side by side, for docs/pictures/large.jpg:

    mystudio actors clip big.mp4 --seed 21 --script selfscan --seconds 16 --size 1024
    mystudio scan big.mp4 -o big.scan --recipe quick --i-am-the-person-or-have-consent "Actor (synthetic)"
    mystudio personalize big.scan -o big.avatar --recipe quick --option personalize.steps=400
    mystudio reenact big.avatar mystudio/data/demo/driver.mp4 -o big.take
    mystudio render big.take -o LARGE.mp4 --view side-by-side
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mystudio import engines
from mystudio.storage.artifacts import load
from mystudio.types import Avatar
from selfscan.io import video

DOCS = Path(__file__).parent
MOMENTS = (0.16, 1.04, 1.36, 2.24, 2.8, 3.76)  # s, chosen by eye: speech, blink, grin, mouth wide open, turned, speech
EDITS = ("smile", "mouth_open", "gaze_x", "yaw", "pitch")
LABEL, HEAD = 96, 24  # px of an edit sheet's left column and top row (mystudio.editing.sheet)


def moments(clip: Path) -> list[np.ndarray]:
    """Frames [H, W, 3] uint8 of a clip, the nearest one to each moment."""
    frames = list(video.read(clip))
    times = np.array([time for time, _ in frames])
    return [frames[int(np.abs(times - moment).argmin())][1] for moment in MOMENTS]


def demo_picture(folder: Path) -> np.ndarray:
    """Rows of the driver, the avatar, and the avatar with a smile; one column a moment."""
    plain, smiling = moments(folder / "hello.mp4"), moments(folder / "smiling.mp4")
    side = plain[0].shape[0]
    rows = [[f[:, :side] for f in plain], [f[:, side:] for f in plain], [f[:, side:] for f in smiling]]
    return np.concatenate([np.concatenate(row, 1) for row in rows], 0)


def edits_picture(folder: Path) -> np.ndarray:
    """Some rows of the edit sheet with its top row."""
    sheet = cv2.imread(str(folder / "edits.png"))[..., ::-1]
    names = list(engines.directions(load(folder / "me.avatar", Avatar)))
    side = (sheet.shape[0] - HEAD) // len(names)
    starts = [HEAD + names.index(name) * side for name in EDITS if name in names]
    return np.concatenate([sheet[:HEAD], *(sheet[start : start + side] for start in starts)], 0)


def large_picture(clip: Path) -> np.ndarray:
    """The avatar of 512 px at three of the moments, in a row."""
    return np.concatenate([frame[:, frame.shape[0] :] for frame in moments(clip)[1:4]], 1)


def write(path: Path, picture: np.ndarray) -> None:
    """Write a picture [H, W, 3] uint8 RGB as JPEG, or as PNG of 64 colours, by the name's suffix."""
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(np.ascontiguousarray(picture))
    if path.suffix == ".png":
        image.quantize(64).save(path, optimize=True)
    else:
        image.save(path, quality=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DEMO_FOLDER")
    parser.add_argument("large", type=Path, nargs="?", metavar="LARGE.mp4")
    given = parser.parse_args()
    source = given.folder
    write(DOCS / "demo.jpg", demo_picture(source))
    write(DOCS / "pictures" / "edits.jpg", edits_picture(source))
    write(DOCS / "pictures" / "coverage.png", cv2.imread(str(source / "me.scan" / "coverage.png"))[..., ::-1])
    if given.large:
        write(DOCS / "pictures" / "large.jpg", large_picture(given.large))
