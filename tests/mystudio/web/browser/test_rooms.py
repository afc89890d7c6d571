"""Every room in a real browser: it is usable by keyboard and screen reader, at 360 px, in the dark."""

from __future__ import annotations

import re
import time
from importlib.resources import files

import pytest
from running import until

from mystudio.jobs import Queue, Work

STATIC = 250_000  # bytes of the page's own scripts, styles and pictures


def rooms_of(server) -> list[str]:
    """Addresses of all rooms."""
    person = next(path.name for path in (server.folder / "people").iterdir())
    own = [f"/p/{person}/{room}" for room in ("scan", "train", "avatar", "takes", "takes/hello", "record")]
    return ["/", *own, "/jobs", "/verify", "/p/nobody"]


@pytest.fixture(scope="module")
def axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, server, axe, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 860}, bypass_csp=True)
    tab = context.new_page()
    tab.goto(server.link)
    found = {}
    for room in rooms_of(server):
        tab.goto(server.address + room)
        tab.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        tab.evaluate(axe)
        faults = tab.evaluate("axe.run().then((found) => found.violations)")
        found |= {(room, fault["id"]): [node["html"][:200] for node in fault["nodes"]] for fault in faults}
    tab.evaluate("document.querySelector('main').append(document.createElement('img'))")
    broken = tab.evaluate("axe.run().then((found) => found.violations.map((fault) => fault.id))")
    context.close()
    assert found == {} and broken == ["image-alt"]


def test_a_phone_shows_every_room_without_scrolling_sideways(browser, server):
    context = browser.new_context(viewport={"width": 360, "height": 740})
    tab = context.new_page()
    tab.goto(server.link)
    for room in rooms_of(server):
        tab.goto(server.address + room)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, room
    context.close()


def test_the_page_is_light(context, server):
    tab, sizes = context.new_page(), {}
    tab.on(
        "response", lambda answer: sizes.update({answer.url: len(answer.body())}) if "/static/" in answer.url else None
    )
    for room in rooms_of(server):
        tab.goto(server.address + room)
        tab.wait_for_load_state("networkidle") if room == "/verify" else None
    assert sizes and sum(sizes.values()) < STATIC


def test_the_keyboard_reaches_the_content_and_the_dialog(tab, server):
    tab.goto(f"{server.address}/")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    tab.get_by_role("button", name="New person").focus()
    tab.keyboard.press("Enter")
    dialog = tab.get_by_role("dialog", name="Who is it?")
    assert dialog.is_visible() and tab.evaluate("document.activeElement.name") == "name"
    tab.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_rooms_say_where_the_person_is(tab, server):
    person = rooms_of(server)[1]
    tab.goto(server.address + person)
    current = tab.get_by_role("link", name="Scan (done)")
    assert current.get_attribute("aria-current") == "page"
    assert tab.get_by_text("look straight into the camera").is_visible()  # what the recording lacks


def test_a_clip_plays_and_seeks_by_ranges(tab, server):
    parts = []
    tab.on("response", lambda answer: parts.append(answer.status) if "/renders/" in answer.url else None)
    tab.goto(server.address + rooms_of(server)[5])
    clip = "document.getElementById('clip')"
    until(tab, f"{clip}.readyState >= 2")
    tab.evaluate(f"{clip}.currentTime = 0.2")
    until(tab, f"!{clip}.seeking && {clip}.currentTime >= 0.19")
    assert set(parts) == {206}
    assert tab.locator("[data-timeline] .mark").count() == 1  # frames 4 and 5 have no face


def test_a_clip_is_downloaded_and_verified(tab, server, tmp_path):
    tab.goto(server.address + rooms_of(server)[5])
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.suffix == ".mp4" and file.stat().st_size > 1000
    tab.goto(f"{server.address}/verify")
    tab.locator("input[type=file]").set_input_files(file)
    tab.get_by_role("heading", name="It is marked as synthetic").wait_for()
    assert not list((server.folder / ".uploads").iterdir())


def test_the_avatar_is_saved_and_brought_to_another_person(tab, server, tmp_path):
    person = rooms_of(server)[3]
    tab.goto(server.address + person)
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Save as a file").click()
    file = tmp_path / "ada.avatar.zip"
    download.value.save_as(file)
    tab.goto(f"{server.address}/")
    tab.get_by_role("button", name="New person").click()
    tab.get_by_label("Name").fill("Ada again")
    tab.get_by_label("I am the person shown").check()
    tab.get_by_role("button", name="Go on").click()
    tab.wait_for_url("**/record")
    tab.get_by_role("link", name="Avatar").click()
    tab.wait_for_url("**/avatar")  # the room before has a place for files, too
    tab.locator("input[type=file]").set_input_files(file)
    tab.get_by_role("heading", name="The avatar", exact=True).wait_for()
    tab.get_by_text("Delete Ada again and everything").click()
    tab.get_by_label("Type the name to confirm").fill("Ada again")
    tab.get_by_role("button", name="Delete everything").click()
    tab.wait_for_url(f"{server.address}/")
    assert tab.get_by_role("link", name="Ada again").count() == 0


def test_images_are_removed_and_brought_back_by_keyboard(tab, server):
    """Enter removes an image; the focus stays on it, so that Enter brings it back; every other tab follows."""
    tab.goto(server.address + rooms_of(server)[1])
    image = tab.get_by_role("button", name="Remove frame 3", exact=True)
    pressed = "document.getElementById('image-3').getAttribute('aria-pressed')"
    image.focus()
    tab.keyboard.press("Enter")
    until(tab, f"{pressed} === 'true' && document.activeElement.id === 'image-3'")
    assert tab.get_by_role("heading", name="11 images of 64 px").is_visible()
    tab.reload()
    assert tab.evaluate(pressed) == "true" and tab.get_by_role("link", name="Train again").is_visible()
    image.focus()
    tab.keyboard.press("Enter")
    until(tab, f"{pressed} === 'false' && document.activeElement.id === 'image-3'")
    assert tab.get_by_role("heading", name="12 images of 64 px").is_visible()


def test_a_room_shows_what_a_pressed_button_did_and_what_happens_then(tab, server):
    tab.goto(server.address + rooms_of(server)[2])
    begin = tab.get_by_role("button", name=re.compile("Train|Begin"))
    begin.focus()
    tab.keyboard.press("Enter")  # the focus stays on the button
    tab.get_by_role("heading", name="Soon").wait_for()
    with Queue(server.folder) as queue:
        (job,) = (job for job in queue.jobs() if job.work.kind == "personalize")
        queue.cancel(job.id)
        tab.get_by_role("heading", name="The training was cancelled").wait_for()  # told by the server
        queue.remove(job.id)
    tab.goto(server.address + rooms_of(server)[4])
    field = tab.get_by_label("From, s").first
    tab.get_by_text("Only a part, or another face").first.click()
    field.fill("0.1")
    with Queue(server.folder) as queue:
        (clip,) = server.folder.glob("people/*/drivers/driver.mp4")
        number = queue.add(Work("scan", {"video": str(clip)}, "no.scan", {"consent": "Ada"})).id
        time.sleep(1.5)  # the page has heard of it
        assert field.input_value() == "0.1"  # what is being filled in stays
        queue.cancel(number)
        queue.remove(number)
