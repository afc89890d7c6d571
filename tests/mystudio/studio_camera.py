"""A studio that is served on a real port, a camera made of clips, and a Chromium that looks through it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from mystudio.demo import FOLDER
from mystudio.web.guard import Guard, read_secret
from mystudio.web.server import guarded
from mystudio.web.studio import Studio
from selfscan.io import video

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@dataclass(frozen=True)
class Served:
    """A studio on a port."""

    studio: Studio
    port: int
    guard: Guard

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """Of the studio's own page in a browser that was opened with the token."""
        return {"Origin": self.address, "Cookie": f"mystudio_{self.port}={self.guard._pass}"}


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve a studio in a thread of this process."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    port, studio = listening.getsockname()[1], Studio(folder)
    guard = guarded(studio, port)
    config = uvicorn.Config(guard, log_level="warning", ws_max_size=1 << 22, timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Served(studio, port, guard)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


@contextmanager
def process(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Serve a studio by the command, in a process that can be killed."""
    command = [sys.executable, "-m", "mystudio", "studio", folder, "--port", port, "--no-open", "--no-worker"]
    made = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert made.stdout and "The studio is open" in made.stdout.readline()
        until(lambda: _answers(port))
        yield made
    finally:
        made.kill()
        made.wait()
        made.stdout.close()


def _answers(port: int) -> bool:
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return made.getsockname()[1]


def address_of(folder: Path, port: int) -> str:
    """The whole address of a studio, with its token."""
    import hmac

    token = hmac.new(read_secret(folder).encode(), b"token", "sha256").hexdigest()[:48]
    return f"http://127.0.0.1:{port}/?token={token}"


@cache
def faces(count: int, height: int = 480, every: int = 1) -> list[np.ndarray]:
    """Frames [height, height, 3] uint8 of the synthetic person of the demo's scan, 25 a second."""
    found = []
    for k, (_, frame) in enumerate(video.read(FOLDER / "scan.mp4")):
        if k % every == 0:
            found.append(cv2.resize(frame, (height, height), interpolation=cv2.INTER_AREA))
        if len(found) == count:
            break
    return found


def jpeg(frame: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def camera_file(path: Path, count: int = 150, width: int = 640, height: int = 480, every: int = 4) -> Path:
    """A file that Chromium plays as a camera, again and again: the synthetic person in a wide picture.

    Args: every: one frame of so many is taken, so that the person does more in less time.
    """
    side = (width - height) // 2
    with open(path, "wb") as file:
        for frame in faces(count, height, every):
            wide = cv2.copyMakeBorder(frame, 0, 0, side, width - height - side, cv2.BORDER_REPLICATE)
            file.write(jpeg(wide))
    return path


@contextmanager
def browser(camera: Path, **context) -> Iterator:
    """A page of a Chromium whose camera is a file; it fails at errors of scripts."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium on this machine")
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags += [f"--use-file-for-fake-video-capture={camera}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    errors: list[str] = []
    with playwright.sync_playwright() as made:
        chromium = made.chromium.launch(executable_path=CHROMIUM, args=flags)
        opened = chromium.new_context(**({"viewport": {"width": 1280, "height": 860}} | context))
        page = opened.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            yield page
        finally:
            chromium.close()
    assert not errors, errors


def until(what, seconds: float = 60.0):
    """Wait until ``what`` returns something true; return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing came within {seconds} s")
