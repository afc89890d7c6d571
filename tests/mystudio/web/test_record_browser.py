"""Recording in a real browser, whose camera shows a synthetic person: pieces, a closed tab, a killed server, a scan."""

from __future__ import annotations

import json

import numpy as np
import pytest
from studio_camera import address_of, browser, camera_file, free_port, process, served, until

from mystudio.live.recording import read_words
from mystudio.pipeline import run_scan
from mystudio.recipe import resolve
from mystudio.storage.artifacts import load
from mystudio.web import recording
from mystudio.web.studio import Studio
from selfscan.io import video
from selfscan.scan.guide import AGREE
from selfscan.types import Scan


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    return camera_file(tmp_path_factory.mktemp("camera") / "person.mjpeg")


def turn_on(page, address, person) -> None:
    page.goto(address)
    page.goto(f"{address.split('?')[0]}p/{person}/record")
    page.evaluate("document.getElementById('resolution').value = '640x480'")
    page.click("#turn-on")
    page.wait_for_selector("#recorder[data-state=ready]")


def begin(page) -> None:
    page.click("#begin")
    page.wait_for_selector("#recorder[data-state=recording]")


def kept(page) -> int:
    """Pieces on the disk, by the page's own words."""
    words = page.inner_text("#kept")
    return int(words.split()[0]) if "kept" in words else 0


def test_a_recording_becomes_the_persons_clip(tmp_path, camera):
    with served(tmp_path) as place, browser(camera) as page:
        person = place.studio.people.add("Ada Example", True)
        turn_on(page, address_of(tmp_path, place.port), person.id)
        assert not list(person.folder.glob("unfinished/*")), "something was kept before the recording began"
        page.set_viewport_size({"width": 360, "height": 760})
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        begin(page)
        until(lambda: kept(page) >= 2)
        (left,) = recording.unfinished(person)
        assert left.size == (640, 480) and left.seconds >= 1.5
        until(lambda: AGREE in page.inner_text("#advice"))
        page.click("#end")
        page.wait_for_url("**/scan")
        (clip,) = person.recordings.glob("*.webm")
        assert video.probe(clip).width == 640 and read_words(clip).said[0].text == AGREE
        assert [job.work.inputs["video"] for job in place.studio.queue.jobs()] == [str(clip)]


@pytest.mark.slow
def test_a_closed_tab_costs_two_seconds_at_most_and_the_recording_goes_on(tmp_path, camera):
    with served(tmp_path) as place:
        person = place.studio.people.add("Ada Example", True)
        address = address_of(tmp_path, place.port)
        with browser(camera) as page:
            turn_on(page, address, person.id)
            begin(page)
            until(lambda: kept(page) >= 6)
            passed = page.evaluate("document.querySelector('#clock b').textContent").split(":")
            page.close()
        (left,) = recording.unfinished(person)
        assert left.seconds >= int(passed[1]) - 2
        times = np.array([time for time, _ in video.read(left.parts[0])])
        assert times[-1] >= int(passed[1]) - 2
        with browser(camera) as page:
            page.goto(address)
            page.goto(f"{address.split('?')[0]}p/{person.id}/record")
            page.click("[data-continue]")
            page.wait_for_selector("#recorder[data-state=ready]")
            begin(page)
            until(lambda: kept(page) >= 3)
            page.click("#end")
            page.wait_for_url("**/scan", timeout=120_000)
        (clip,) = person.recordings.glob("*.mp4")
        whole = [time for time, _ in video.read(clip)]
        assert len(whole) > len(times) and whole[-1] >= times[-1] + 2 and np.diff(whole).max() < 1


@pytest.mark.slow
def test_a_killed_server_loses_nothing_that_the_tab_still_holds(tmp_path, camera):
    port = free_port()
    studio = Studio(tmp_path)
    person = studio.people.add("Ada Example", True)
    studio.close()
    with browser(camera) as page:
        with process(tmp_path, port) as server:
            turn_on(page, address_of(tmp_path, port), person.id)
            begin(page)
            until(lambda: kept(page) >= 3)
            server.kill()
            server.wait()
            until(lambda: "does not answer" in page.inner_text("#kept"))
        with process(tmp_path, port):
            until(lambda: kept(page) >= 8)
            until(lambda: page.inner_text("#advice"))
            clock = page.inner_text("#clock b")
            page.click("#end")
            page.wait_for_url("**/scan", timeout=60_000)
    (clip,) = person.recordings.glob("*.webm")
    times = np.array([time for time, _ in video.read(clip)])
    assert times[-1] >= int(clock.split(":")[1]) - 1 and np.diff(times).max() < 1.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_recording_ends_by_itself_and_can_be_scanned(tmp_path, camera):
    """The person of the camera shows nearly everything; what is missing is not asked for here."""
    with served(tmp_path / "studio") as place, browser(camera) as page:
        person = place.studio.people.add("Ada Example", True, fictional=True)
        told = []
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: told.append(frame)))
        turn_on(page, address_of(tmp_path / "studio", place.port), person.id)
        begin(page)
        page.wait_for_url("**/scan", timeout=150_000)  # at the latest after the longest time
        answers = [json.loads(frame) for frame in told if '"groups"' in frame]
        (clip,) = person.recordings.glob("*.webm")
    assert max(sum(answer["groups"]) for answer in answers if answer["groups"]) > 3
    made = run_scan(clip, tmp_path / "me.scan", "Ada Example", resolve("quick", []), fictional=True)
    scan = load(made, Scan)
    assert len(scan) >= 40 and scan.consent.words.said[0].mouth is not None
    assert scan.coverage.share["yaw left"] > 0.01 and scan.coverage.share["mouth wide open"] > 0.01
