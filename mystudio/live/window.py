"""A window for live pictures; importing the module opens nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Literal

import numpy as np

from mystudio.errors import NoDisplay

TITLE = "mystudio live: q ends, n = my face is at rest now"
Wish = Literal["", "stop", "neutral"]  # the viewer's choice: continue, stop, or find the neutral face again
KEYS: dict[int, Wish] = {ord("q"): "stop", 27: "stop", ord("n"): "neutral"}
CHECK_SECONDS = 30.0


def display_is_missing() -> str:
    """Reason why no window can be opened; empty if one can.

    A window library without a screen ends the whole program. A child process therefore tries it first.
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
    """Shows pictures and returns the pressed key's meaning.

    Args: title: title of the window.
    Raises: NoDisplay: no window can be opened.
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
            return "stop"  # the window was closed
        cv2.imshow(self._title, picture[..., ::-1])
        self._open = True
        return KEYS.get(cv2.waitKey(1) & 0xFF, "")

    def close(self) -> None:
        """Close the window."""
        import cv2

        if self._open:
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)
        self._open = False
