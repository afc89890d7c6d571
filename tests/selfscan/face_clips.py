"""Clips made from photographs of faces, for which the correct result of a tracker is known."""

import cv2
import numpy as np

from selfscan.io import video

HEIGHT, WIDTH, FPS = 288, 448, 25


def photographs(shared, *numbers):
    files = sorted((shared / "faces256").glob("*.jpg"))
    return [cv2.imread(str(files[number]))[..., ::-1] for number in numbers]


def backdrop(seed=0):
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 12)
    return ((blurred - blurred.mean()) * 4 + 110).clip(0, 255).astype(np.uint8)


def compose(*faces, seed=0):
    """Faces (photograph, x, y, side) in px on a backdrop, drawn one over the other."""
    frame = backdrop(seed)
    for photograph, x, y, side in faces:
        transform = np.array([[side / 256, 0, x - side / 2], [0, side / 256, y - side / 2]])
        shrunk = cv2.GaussianBlur(photograph, (0, 0), max(0.01, 0.4 * 256 / side))
        cv2.warpAffine(
            shrunk, transform, (WIDTH, HEIGHT), dst=frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT
        )
    return frame


def clip(path, frames):
    frames = list(frames)
    video.write(path, frames, np.arange(len(frames)) / FPS, crf=10)
    return path
