"""The whole way of a person before a camera in a real browser: record, scan, train, drive, edit, download, verify."""

from __future__ import annotations

import time

import pytest
from drawn_clip import downloaded, verified
from running import Server
from studio_camera import browser, camera_file

from mystudio.demo import FOLDER
from mystudio.jobs import Queue


class _Watch:
    """Prints how long each part took; ``pytest -s`` shows it."""

    def __init__(self):
        self.last = time.monotonic()

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        print(f"{what}: {now - self.last:.0f} s")
        self.last = now


def recorded(tab) -> str:
    """A new person records themselves; returns the person's address."""
    tab.get_by_role("button", name="Begin with yourself").click()
    tab.get_by_label("Name").fill("Ada Example")
    tab.get_by_label("I am the person shown").check()
    tab.get_by_role("button", name="Go on").click()
    tab.wait_for_url("**/record")
    tab.locator("#resolution").evaluate("one => one.value = '640x480'")
    tab.get_by_role("button", name="Turn on the camera").click()
    tab.get_by_role("button", name="Begin to record").click()
    tab.wait_for_url("**/scan")  # it ends by itself
    return tab.url.removesuffix("/scan")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_from_a_camera_to_an_edited_and_verified_clip(tmp_path):
    clock = _Watch()
    server = Server(tmp_path / "studio", worker=True)
    clock("the studio opens")
    camera = camera_file(tmp_path / "person.mjpeg", count=600, every=1)
    clock("(the camera's film is made)")
    try:
        with browser(camera) as tab:
            tab.set_default_timeout(1_200_000)
            tab.goto(server.link)
            person = recorded(tab)
            clock("recording")
            tab.get_by_role("link", name="Go on to training").click()
            clock("scan")
            tab.get_by_text("A first look").click()
            tab.get_by_role("button", name="Begin").click()
            tab.get_by_role("link", name="Use it now").click()
            clock("the first avatar can be used")
            tab.goto(f"{person}/train")
            tab.get_by_role("button", name="Train on").wait_for()
            clock("the avatar of the recipe quick is done")
            tab.goto(f"{person}/takes")
            tab.locator("input[type=file]").set_input_files(FOLDER / "driver.mp4")
            tab.get_by_role("button", name="Drive").click()
            tab.get_by_role("link", name="Open").click()
            tab.locator("#clip").wait_for()
            clock("the take is drawn")
            tab.get_by_role("link", name="Edit this take").click()
            tab.get_by_role("slider", name="Smile").fill("1.5")
            tab.get_by_role("button", name="Save as a new take").click()
            tab.locator("#made").get_by_role("link", name="Open").click()
            clock("the edit is saved")
            file = downloaded(tab, tmp_path)
            clock("the clip is downloaded")
            verified(tab, server.address, file)
            clock("it is verified")
        with Queue(server.folder) as queue:
            assert {job.state.value for job in queue.jobs()} == {"done"}
    finally:
        server.stop()
    assert server.said() == ""
