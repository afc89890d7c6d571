"""A browser, and a server on a studio with one person who has everything."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from running import Server, chromium

CAMERA = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


@pytest.fixture(scope="module")  # not longer: Playwright's loop would stay in the way of other files' browsers
def browser():
    path = chromium()
    from playwright.sync_api import sync_playwright

    root = ["--no-sandbox"] if os.name != "nt" and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=[*root, *CAMERA])
        yield made
        made.close()


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory, tiny_avatar, performance, take) -> Iterator[Server]:
    from furnished import furnish

    folder = tmp_path_factory.mktemp("served") / "studio"
    furnish(folder, tiny_avatar, performance, take)
    made = Server(folder)
    yield made
    made.stop()
    assert made.said() == ""


@pytest.fixture
def context(browser, server):
    """A fresh browser profile that was opened with the printed address."""
    made = browser.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce")
    made.set_default_timeout(60_000)
    tab = made.new_page()
    tab.goto(server.link)
    tab.close()
    yield made
    made.close()


@pytest.fixture
def tab(context):
    """A tab whose console must stay silent, and which asks this machine alone."""
    made, said, asked = context.new_page(), [], []
    made.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("request", lambda request: asked.append(request.url))
    yield made
    assert said == []
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "blob:"))] == []
