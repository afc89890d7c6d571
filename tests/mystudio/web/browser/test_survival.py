"""Tabs are closed, the server is killed: what was asked for stays, and every tab shows the same."""

from __future__ import annotations

import pytest
from running import Server

from mystudio.jobs import Queue


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
