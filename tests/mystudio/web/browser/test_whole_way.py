"""The whole way in a real browser, from an empty studio to a downloaded and verified clip."""

from __future__ import annotations

import time

import pytest
from drawn_clip import downloaded, verified
from running import Server

from mystudio.jobs import Queue, State


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_an_empty_studio_to_a_verified_clip(browser, tmp_path):
    server = Server(tmp_path / "studio", worker=True)
    context = browser.new_context()
    context.set_default_timeout(1_200_000)
    try:
        tab = context.new_page()
        tab.goto(server.link)
        tab.get_by_role("button", name="Meet the demo person").click()
        tab.wait_for_url("**/takes")
        place = tab.url
        tab.close()  # nobody watches
        with Queue(server.folder) as queue:
            while not queue.jobs(State.RUNNING):
                time.sleep(0.2)
            assert len(queue.workers()) == 1
        server.kill()  # its worker goes on
        server = Server(tmp_path / "studio", server.port, worker=True)
        tab = context.new_page()
        tab.goto(place)
        tab.locator("video[data-hover]").wait_for()
        tab.get_by_role("link", name="Open").click()
        verified(tab, server.address, downloaded(tab, tmp_path))
        with Queue(server.folder) as queue:
            assert {job.state.value for job in queue.jobs()} == {"done"}
            assert [job.tries for job in queue.jobs()] == [1, 1, 1, 1, 1]  # nothing was done twice
    finally:
        server.stop()
        context.close()
