"""A window on the screen for live pictures; importing this opens nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Literal

import numpy as np

from mystudio.errors import NoDisplay

TITLE = "mystudio live: q ends, n = my face is at rest now"
Wish = Literal["", "stop", "neutral"]  # of who watches: go on, end, or look for the driver's neutral face anew
KEYS: dict[int, Wish] = {ord("q"): "stop", 27: "stop", ord("n"): "neutral"}
CHECK_SECONDS = 30.0


def display_is_missing() -> str:
    """Why no window can be opened, in a few words; empty when one can.

    A window library that finds no screen ends the whole program, so a child process tries it first.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "neither DISPLAY nor WAYLAND_DISPLAY is set"
    attempt = [sys.executable, "-c", "import cv2; cv2.namedWindow('x'); cv2.waitKey(1)"]
    try:
        done = subprocess.run(attempt, capture_output=True, timeout=CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        return "the screen does not answer"
    return "" if done.returncode == 0 else "the screen cannot be used"


class Window:
    """Shows pictures and says which key was pressed.

    Args: title: of the window.
    Raises: NoDisplay: there is no screen.
    """

    def __init__(self, title: str = TITLE):
        if reason := display_is_missing():
            raise NoDisplay(
                f"expected a screen to show the avatar on, found none ({reason}); give -o OUT.mp4 to "
                f"record instead, or --no-window to measure speed alone"
            )
        self._title, self._open = title, False

    def __call__(self, picture: np.ndarray) -> Wish:
        """Show a picture [H, W, 3] uint8 RGB; returns "stop", "neutral" or ""."""
        import cv2

        if self._open and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            return "stop"  # closed by its button
        cv2.imshow(self._title, picture[..., ::-1])
        self._open = True
        return KEYS.get(cv2.waitKey(1) & 0xFF, "")

    def close(self) -> None:
        """Take the window away."""
        import cv2

        if self._open:
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)
        self._open = False
