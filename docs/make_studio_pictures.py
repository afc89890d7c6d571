"""Pictures of every room of the studio page, light and dark, wide and narrow, from a studio folder.

    python docs/make_studio_pictures.py STUDIO -o OUT            every picture as PNG, to look at
    python docs/make_studio_pictures.py STUDIO -o OUT --docs     and the small ones of docs/studio.md

It needs playwright (in the extra ``test``) and Chromium. STUDIO holds at least one person, such as the demo person. The
browser's camera plays the demo person's recording. Nothing is added to STUDIO.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from mystudio.demo import FOLDER as DEMO
from mystudio.web.library.people import People
from selfscan.io import video

DOCS = Path(__file__).parent / "pictures"
SCREENS = {"wide": (1280, 860), "narrow": (360, 740)}
SHOWN = {  # pictures of docs/studio.md: name -> room, scheme, screen
    "studio-empty": ("empty", "light", "wide"),
    "studio-scan": ("scan", "light", "wide"),
    "studio-record": ("recording", "light", "wide"),
    "studio-take": ("take", "light", "wide"),
    "studio-edit": ("edit", "light", "wide"),
    "studio-live": ("live", "dark", "wide"),
    "studio-phone": ("people", "dark", "narrow"),
}
WIDTH, HEIGHT = 640, 520  # px of a picture in the documents, at most
PAUSE = 700  # ms until a room has drawn itself
PATIENCE = 120_000  # ms until the camera is followed, on a busy machine


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The printed address of a server on a folder."""
    words = [sys.executable, "-m", "mystudio", "studio", str(folder), "--port", "0", "--no-open", "--no-worker"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield next(found.group() for line in process.stdout if (found := re.search(r"http://\S+", line)))
    finally:
        process.terminate()
        process.wait()


def rooms_of(folder: Path) -> dict[str, str]:
    """Name -> address of every room; those of a person are the first person's."""
    found = {"people": "/", "jobs": "/jobs", "verify": "/verify", "missing": "/p/nobody"}
    for person in sorted((folder / "people").iterdir())[:1]:
        own = ("record", "scan", "train", "avatar", "takes", "live")
        found |= {room: f"/p/{person.name}/{room}" for room in own}
        for take in sorted([*person.glob("*.take"), *person.glob("takes/*.take")])[:1]:
            found |= {"take": f"/p/{person.name}/takes/{take.stem}", "edit": f"/p/{person.name}/takes/{take.stem}/edit"}
    return found


def film(path: Path) -> Path:
    """Write the demo person's recording as a film that Chromium plays as a camera."""
    with open(path, "wb") as file:
        for index, (_, frame) in enumerate(video.read(DEMO / "scan.mp4")):
            if index % 4 == 0:
                wide = np.pad(frame, ((0, 0), (frame.shape[1] // 6,) * 2, (0, 0)), "edge")
                Image.fromarray(wide).save(file, "jpeg", quality=90)
    return path


def record(tab) -> None:
    """Begin a recording, until it has seen something."""
    tab.locator("#turn-on:enabled").click()
    tab.locator("#begin:visible").click()
    tab.wait_for_selector("#recorder[data-state=recording]", timeout=PATIENCE)
    tab.wait_for_timeout(12_000)


def follow(tab) -> None:
    """Let the avatar follow the camera."""
    tab.locator("#turn-on:enabled").click()
    tab.locator("#pace", has_text="frames a second").wait_for(timeout=PATIENCE)
    tab.evaluate("document.querySelector('#camera option').textContent = 'Camera'")  # not the film's path
    tab.wait_for_timeout(2_000)


def edit(tab) -> None:
    """Move two sliders, until the picture has followed."""
    tab.locator("#shown").wait_for(timeout=PATIENCE)
    for slider in tab.locator("#sliders [type=range]").all()[:2]:
        slider.fill("1")
    tab.wait_for_timeout(4_000)


ACTS = {"recording": record, "live": follow, "edit": edit}  # what is done in a room before its picture


def shoot(browser, link: str, rooms: dict[str, str], out: Path) -> None:
    """Write ROOM-SCHEME-SCREEN.png for rooms that exist."""
    for scheme in ("light", "dark"):
        for screen, (width, height) in SCREENS.items():
            size = {"width": width, "height": height}
            context = browser.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce")
            tab = context.new_page()
            tab.goto(link)
            for room, path in rooms.items():
                answer = tab.goto(link.split("/?")[0] + path)
                if answer.status == 404 and room != "missing":
                    continue
                tab.evaluate("for (const image of document.images) image.loading = 'eager'")
                tab.wait_for_timeout(PAUSE)
                if room in ACTS and tab.locator("#turn-on, #sliders").count():
                    ACTS[room](tab)
                    tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
                tab.screenshot(path=out / f"{room}-{scheme}-{screen}.png", full_page=True)
            context.close()


def shrink(source: Path, target: Path) -> None:
    """Write the upper part of a picture as a small JPEG."""
    picture = Image.open(source).convert("RGB")
    picture.thumbnail((WIDTH, 10_000))
    picture.crop((0, 0, picture.width, min(HEIGHT, picture.height))).save(target, quality=80, optimize=True)


@click.command()
@click.argument("studio", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
@click.option("--docs", is_flag=True, help="Write the pictures of docs/studio.md, too.")
def main(studio: Path, out: Path, docs: bool) -> None:
    """Write pictures of every room of STUDIO into OUT."""
    out.mkdir(parents=True, exist_ok=True)
    path = os.environ.get("MYSTUDIO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    root = ["--no-sandbox"] if os.name != "nt" and os.geteuid() == 0 else []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as empty:
        camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        camera.append(f"--use-file-for-fake-video-capture={film(Path(empty) / 'camera.mjpeg')}")
        browser = playwright.chromium.launch(executable_path=path, args=[*root, *camera])
        with served(Path(empty) / "studio") as link:
            shoot(browser, link, {"empty": "/"}, out)
            person = People(Path(empty) / "studio" / "people").add("Demo Person", True, fictional=True)
            shoot(browser, link, {"recording": f"/p/{person.id}/record"}, out)
        with served(studio) as link:
            shoot(browser, link, rooms_of(studio), out)
        browser.close()
    for name, (room, scheme, screen) in SHOWN.items() if docs else ():
        shrink(out / f"{room}-{scheme}-{screen}.png", DOCS / f"{name}.jpg")


if __name__ == "__main__":
    main()
