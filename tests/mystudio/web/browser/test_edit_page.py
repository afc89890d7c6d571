"""The edit room in a real browser: the picture follows the sliders, also by keyboard; nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator

import editable_take
import pytest
from furnished import furnish
from running import Server

from mystudio.jobs import Queue

SHOWN = "document.getElementById('shown')"
#: some of the picture's pixels
PIXELS = f"""() => {{
  const image = {SHOWN}, canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  return [...pen.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, k) => k % 64 < 3);
}}"""


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory, tiny_avatar, performance, take) -> Iterator[Server]:
    """A server on a studio whose avatar offers edits."""
    folder = tmp_path_factory.mktemp("served") / "studio"
    furnish(folder, editable_take.with_edits(tiny_avatar, "smile", "gaze_x", "yaw"), performance, take)
    made = Server(folder)
    yield made
    made.stop()
    assert made.said() == ""


@pytest.fixture
def room(tab, server):
    """The room, open."""
    person = next(path.name for path in (server.folder / "people").iterdir())
    tab.goto(f"{server.address}/p/{person}/takes/hello/edit")
    tab.locator("#shown").wait_for(timeout=60_000)
    return tab


def shows(tab, edits: dict, frame: int = 6) -> list[int]:
    """Wait until the picture of exactly these edits is shown in its whole size; its pixels."""
    condition = f"""([edits, frame]) => {{
      const {{ edits: drawn, frame: at, full }} = {SHOWN}.dataset, list = JSON.parse(drawn ?? "[]");
      const found = Object.fromEntries(list.map((edit) => [edit.name, edit.keys ?? edit.strength]));
      return full === "true" && Number(at) === frame && JSON.stringify(found) === edits;
    }}"""
    tab.wait_for_function(condition, arg=[json.dumps(edits, separators=(",", ":")), frame])
    return tab.evaluate(PIXELS)


def away(one: list[int], other: list[int]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def test_the_picture_follows_a_slider_and_reset_brings_it_back(room):
    plain = shows(room, {})
    smile = room.get_by_role("slider", name="Smile")
    smile.fill("1.5")
    smiling = shows(room, {"smile": 1.5})
    assert away(smiling, plain) > 2
    assert smile.get_attribute("aria-valuetext") == "+1.50"
    assert "Smile +1.50" in room.locator("#shown").get_attribute("alt")
    room.get_by_role("button", name="Reset Smile").click()
    assert shows(room, {}) == plain
    smile.fill("1.5")
    room.get_by_role("button", name="Reset all").click()
    assert shows(room, {}) == plain
    room.get_by_role("button", name="Bring the edits back").click()
    assert shows(room, {"smile": 1.5}) == smiling


def test_a_held_button_shows_it_unedited(room):
    plain = shows(room, {})
    room.get_by_role("slider", name="Head, turned").fill("-2")
    turned = shows(room, {"yaw": -2})
    button = room.get_by_role("button", name="Hold to compare")
    for press, release in ((room.mouse.down, room.mouse.up), (None, None)):
        button.hover()
        button.focus()
        press() if press else room.keyboard.down("Space")
        room.wait_for_function(f"() => {SHOWN}.dataset.unedited === 'true'")
        assert room.evaluate(PIXELS) == plain and room.get_by_text("Unedited", exact=True).is_visible()
        release() if release else room.keyboard.up("Space")
        room.wait_for_function(f"() => {SHOWN}.dataset.unedited === 'false'")
        assert room.evaluate(PIXELS) == turned


def test_the_keyboard_alone_edits_over_time(room):
    """Arrows move a slider; the diamond sets a key frame; between two the strength is linear, as in the command."""
    smile = room.get_by_role("slider", name="Smile")
    smile.focus()
    room.keyboard.press("ArrowRight")
    shows(room, {"smile": 0.05})
    room.keyboard.press("End")
    shows(room, {"smile": 3})
    key = room.get_by_role("button", name="Key frame of Smile")
    key.focus()
    room.keyboard.press("Enter")
    moment = room.get_by_role("slider", name="Moment of the take")
    moment.focus()
    for _ in range(4):
        room.keyboard.press("ArrowLeft")
    smile.focus()
    room.keyboard.press("Home")
    marks = room.locator("#lanes .at")
    assert marks.count() == 2
    drawn = f"() => {SHOWN}.dataset.frame === '2' && JSON.parse({SHOWN}.dataset.edits)[0].keys?.length === 2"
    room.wait_for_function(drawn)
    (edit,) = json.loads(room.locator("#shown").get_attribute("data-edits"))
    (early, low), (late, high) = edit["keys"]
    assert (low, high) == (-3, 3) and early < late
    moment.fill("4")
    value = float(room.get_by_label("Smile, strength").input_value())
    now = float(room.locator("#moment").text_content().split()[0])
    assert value == pytest.approx(-3 + 6 * (now - early) / (late - early), abs=0.15)
    marks.first.focus()
    room.keyboard.press("Enter")
    assert moment.input_value() == "2"
    room.keyboard.press("Delete")
    assert marks.count() == 1


def keys_of_smile(tab) -> list[list[float]]:
    """The key frames that this browser keeps."""
    kept = tab.evaluate("() => JSON.parse(localStorage.getItem(`edit:${location.pathname}`))")
    return dict(kept)["smile"]["keys"]


def test_a_key_frame_follows_the_pointer_and_never_covers_another(room):
    room.get_by_role("slider", name="Smile").fill("2")
    room.get_by_role("button", name="Key frame of Smile").click()
    moment = room.get_by_role("slider", name="Moment of the take")
    moment.fill("2")
    room.get_by_role("slider", name="Smile").fill("-1")
    marks, last = room.locator("#lanes .at"), int(moment.get_attribute("max"))
    lane = room.locator("#lanes .keys").bounding_box()

    def drag(start: int, end: int) -> list[int]:
        """Frames of the key frames after one is dragged."""
        box = room.locator(f"#lanes [data-at='{start}']").bounding_box()
        room.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        room.mouse.down()
        room.mouse.move(lane["x"] + lane["width"] * end / last, box["y"], steps=12)
        room.mouse.up()
        return [int(mark.get_attribute("data-at")) for mark in marks.all()]

    assert drag(6, 9) == [2, 9]
    (low, high) = before = keys_of_smile(room)
    assert [low[1], high[1]] == [-1, 2]
    shows(room, {"smile": before}, 2)
    assert drag(2, 9) == [8, 9]  # as near as it gets
    assert drag(8, 11) == [9, 11]  # past the other one
    after = keys_of_smile(room)
    assert after[0] == high and after[1][1] == -1
    shows(room, {"smile": after}, 2)
    assert moment.input_value() == "2"  # dragging moves the key frame, not the moment
    marks.first.click()
    assert moment.input_value() == "9"


#: notes every picture that is shown: when (ms), frame, edits, whether it is the whole size
NOTE = f"""() => {{
  window.noted = [];
  new MutationObserver(() => {{ const {{ frame, edits, full }} = {SHOWN}.dataset;
    window.noted.push([performance.now(), Number(frame), edits, full === "true"]); }}
  ).observe({SHOWN}, {{ attributes: true, attributeFilter: ["data-size"] }});
}}"""


def test_edits_that_are_not_saved_play_at_the_rate_that_is_told(tab, server):
    """The clip is slowed down twenty times, so that a busy machine draws most of its frames."""

    def slower(route):
        answer = route.fetch()
        facts = answer.json()
        route.fulfill(response=answer, json=facts | {"times": [20 * time for time in facts["times"]]})

    tab.route("**/edit/open", slower)
    person = next(path.name for path in (server.folder / "people").iterdir())
    tab.goto(f"{server.address}/p/{person}/takes/hello/edit")
    tab.locator("#shown").wait_for(timeout=60_000)
    smile, moment = tab.get_by_role("slider", name="Smile"), tab.get_by_role("slider", name="Moment of the take")
    smile.fill("1.5")
    moment.fill("0")
    shows(tab, {"smile": 1.5}, 0)
    tab.evaluate(NOTE)
    tab.get_by_role("button", name="Play").click()
    tab.wait_for_function("() => window.noted.length >= 3")
    smile.fill("-1")  # the playing picture follows
    tab.get_by_role("button", name="Play").wait_for()  # it ends by itself
    last = int(moment.get_attribute("max"))
    shows(tab, {"smile": -1}, last)
    noted = tab.evaluate("() => window.noted")
    played = noted[: 1 + next(k for k, (_, frame, _, _) in enumerate(noted) if frame == last)]
    frames = [frame for _, frame, _, _ in played]
    assert frames == sorted(set(frames)) and len(frames) >= 4
    strengths = [json.loads(edits)[0]["strength"] for _, _, edits, _ in played]
    assert strengths[0] == 1.5 and strengths[-1] == -1 and strengths == sorted(strengths, reverse=True)
    times = [when for when, *_ in played]
    recent = [when for when in times if times[-1] - when < 2000]
    recent = recent if len(recent) > 1 else times[-2:]
    rate = 1000 * (len(recent) - 1) / (recent[-1] - recent[0])
    told = tab.locator("#rate")
    assert float(told.get_attribute("data-rate")) == pytest.approx(rate, rel=0.25)
    assert f"of {told.get_attribute('data-size')} px; the clip has 1." in told.text_content()


def test_a_number_beyond_the_slider_is_told_in_one_sentence(room):
    number = room.get_by_label("Smile, strength")
    number.fill("77")
    number.press("Enter")
    shows(room, {"smile": 3})
    assert room.get_by_text("strengths go from -3 to 3, so 77 became 3").is_visible()
    number.fill("1")
    number.press("Enter")
    shows(room, {"smile": 1})
    assert room.locator("#trouble").text_content() == ""


def test_a_reloaded_tab_keeps_the_edits(room):
    room.get_by_role("slider", name="Gaze, sideways").fill("-1.2")
    before = shows(room, {"gaze_x": -1.2})
    room.reload()
    assert shows(room, {"gaze_x": -1.2}) == before


def test_saving_puts_the_commands_edits_into_the_queue(room, server):
    save = room.get_by_role("button", name="Save as a new take")
    assert save.is_disabled()
    room.get_by_role("slider", name="Smile").fill("0.85")
    room.get_by_label("Name of the new take").fill("My Smile")
    room.get_by_text("The same in a terminal").click()
    assert "mystudio edit hello.take -o my-smile.take --set smile=0.85\n" in room.locator("#terminal").text_content()
    save.click()
    room.locator("#made").get_by_text("my-smile-").wait_for()
    with Queue(server.folder) as queue:
        edit, render = sorted(queue.jobs(), key=lambda job: job.id)[-2:]
    assert edit.work.options["edits"] == [{"name": "smile", "strength": 0.85, "edge": "project"}]
    assert render.work.kind == "render" and edit.id in render.after


def test_a_fault_is_told_and_can_be_tried_again(context, server):
    tab = context.new_page()
    tab.route("**/edit/open", lambda route: route.fulfill(status=400, json={"error": "The avatar has changed."}))
    person = next(path.name for path in (server.folder / "people").iterdir())
    tab.goto(f"{server.address}/p/{person}/takes/hello/edit")
    tab.get_by_text("The avatar has changed.").wait_for()
    tab.unroute("**/edit/open")
    tab.get_by_role("button", name="Try again").click()
    tab.locator("#shown").wait_for()


@pytest.mark.slow
def test_a_saved_take_is_made_and_drawn_by_the_worker(browser, tmp_path, tiny_avatar, performance, take):
    folder = tmp_path / "studio"
    furnish(folder, editable_take.with_edits(tiny_avatar, "smile"), performance, take)
    made = Server(folder, worker=True)
    context = browser.new_context()
    context.set_default_timeout(180_000)
    try:
        tab = context.new_page()
        tab.goto(made.link)
        person = next(path.name for path in (folder / "people").iterdir())
        tab.goto(f"{made.address}/p/{person}/takes/hello/edit")
        tab.locator("#shown").wait_for()
        tab.get_by_role("slider", name="Smile").fill("2")
        pixels = shows(tab, {"smile": 2})
        tab.get_by_role("button", name="Save as a new take").click()
        tab.locator("#made").get_by_role("link", name="Open").click()
        tab.locator("video#clip").wait_for()
        assert tab.get_by_text("Edited: smile +2").is_visible()
        tab.get_by_role("link", name="Edit this take").click()
        tab.locator("#shown").wait_for()
        assert shows(tab, {}) == pixels
    finally:
        context.close()
        made.stop()


@pytest.mark.parametrize(("scheme", "width"), [("dark", 360), ("light", 1280)])
def test_axe_finds_nothing_and_a_phone_shows_all(browser, server, scheme, width):
    from importlib.resources import files

    made = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 740}, bypass_csp=True)
    tab = made.new_page()
    tab.goto(server.link)
    person = next(path.name for path in (server.folder / "people").iterdir())
    tab.goto(f"{server.address}/p/{person}/takes/hello/edit")
    tab.locator("#shown").wait_for()
    tab.get_by_role("slider", name="Smile").fill("1")
    tab.get_by_role("button", name="Key frame of Smile").click()
    tab.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    tab.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
    faults = tab.evaluate("axe.run().then((found) => found.violations)")
    assert {fault["id"]: [node["html"][:200] for node in fault["nodes"]] for fault in faults} == {}
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    made.close()
