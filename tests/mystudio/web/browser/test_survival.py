"""Tabs are closed, the server is killed: what was asked for stays, and every tab shows the same."""

from __future__ import annotations

import os
import re
import signal
import time

import numpy as np
import pytest
from running import Server

from mystudio.demo import FOLDER as DEMO
from mystudio.jobs import Queue, State
from mystudio.storage.artifacts import load
from selfscan.checkpoints import CHUNK
from selfscan.io import video
from selfscan.scan.scan import ScanSettings, scan_video
from selfscan.types import Scan


@pytest.fixture
def lonely(browser, tmp_path):
    """A server on an empty studio, without a worker: jobs wait."""
    made = Server(tmp_path / "studio")
    yield made
    made.stop()


def test_an_empty_studio_explains_itself_on_one_screen(browser, lonely):
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    tab = context.new_page()
    tab.goto(lonely.link)
    assert tab.evaluate("document.documentElement.scrollHeight") <= 861
    for words in ("Begin with yourself", "Meet the demo person"):
        assert tab.get_by_role("button", name=words).is_visible()
    context.close()


def test_tabs_and_a_killed_server_lose_nothing(browser, lonely, driving_clip):
    context = browser.new_context()
    context.set_default_timeout(60_000)
    first = context.new_page()
    first.goto(lonely.link)
    first.get_by_role("button", name="Begin with yourself").click()
    first.get_by_label("Name").fill("Ada Example")
    first.get_by_role("button", name="Go on").click()  # without the statement
    assert first.get_by_role("dialog").is_visible()
    first.get_by_label("I am the person shown").check()
    first.get_by_role("button", name="Go on").click()
    first.wait_for_url("**/record")
    first.get_by_role("link", name="Scan", exact=True).click()
    first.wait_for_url("**/scan")
    place = first.url
    first.locator("input[type=file]").set_input_files(driving_clip)
    first.get_by_role("heading", name="The scan waits for its turn").wait_for()
    first.close()  # mid-job

    second, third = context.new_page(), context.new_page()
    second.goto(place)
    third.goto(f"{lonely.address}/jobs")
    third.get_by_role("heading", name="Scan of Ada Example").wait_for()

    lonely.kill()
    again = Server(lonely.folder, lonely.port)
    try:
        for page in (second, third):
            page.locator("body[data-online=yes]").wait_for()
        third.get_by_role("button", name="Cancel").click()
        second.get_by_role("button", name="Try again").wait_for()  # the other tab follows by itself
        with Queue(lonely.folder) as queue:
            (job,) = queue.jobs()
        assert job.state == "cancelled" and job.work.options["consent"] == "Ada Example"
    finally:
        again.stop()
        context.close()


def film(path, count=96):
    """The first frames of the demo person's recording."""
    frames = [frame for _, (_, frame) in zip(range(count), video.read(DEMO / "scan.mp4"))]
    video.write(path, frames, np.arange(count) / 25, crf=12)
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_loses_nothing(browser, tmp_path):
    """A scan goes on from its checkpoints, by a new worker that nobody starts; the open tab shows it to its end."""
    clip = film(tmp_path / "me.mp4")
    server = Server(tmp_path / "studio", worker=True)
    context = browser.new_context()
    context.set_default_timeout(300_000)
    try:
        tab = context.new_page()
        tab.goto(server.link)
        tab.get_by_role("button", name="Begin with yourself").click()
        tab.get_by_label("Name").fill("Ada Example")
        tab.get_by_label("I am the person shown").check()
        tab.get_by_role("button", name="Go on").click()
        tab.wait_for_url("**/record")
        tab.get_by_role("link", name="Scan", exact=True).click()
        tab.wait_for_url("**/scan")
        tab.locator("input[type=file]").set_input_files(clip)
        with Queue(server.folder) as queue:
            while not (running := queue.jobs(State.RUNNING)) or (running[0].stage, running[0].done) < ("track", 40):
                assert not queue.jobs(State.DONE, State.FAILED)
                time.sleep(0.05)
            (worker,) = queue.workers()
            os.kill(worker.process, signal.SIGKILL)
            tab.get_by_role("heading", name="The chosen images").wait_for()  # the same tab, without a reload
            (job,) = queue.jobs()
            log = queue.log(job.id).text
        assert (job.state, job.tries, job.error) == (State.DONE, 2, "")
        first, again = re.findall(r"try \d: scan.*?\n\S+ \S+ track (\d+)/", log)
        assert int(first) <= 1 and int(again) >= CHUNK  # its checkpoints were taken over
        made = load(job.out, Scan)
        undisturbed = scan_video(job.work.inputs["video"], made.consent, ScanSettings())
        np.testing.assert_array_equal(made.frame_index, undisturbed.frame_index)
        np.testing.assert_array_equal(made.images, undisturbed.images)
    finally:
        server.stop()
        context.close()
