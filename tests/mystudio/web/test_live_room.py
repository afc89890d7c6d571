"""The avatar follows a page's camera: the pictures of ``mystudio live``, the newest look, recordings that stay."""

from __future__ import annotations

import json
import struct
from importlib.resources import files

import cv2
import numpy as np
import pytest
from live_person import avatar, frames
from starlette.websockets import WebSocketDisconnect
from studio_camera import address_of, browser, camera_file, jpeg, served, until
from studio_page import OWN, PORT
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from mystudio import engines
from mystudio.live.follow import Live
from mystudio.provenance import verify
from mystudio.recipe import resolve
from mystudio.storage import artifacts, workspace
from mystudio.types import Outcome
from mystudio.web import following
from mystudio.web.rooms import live as room
from selfscan.io import video
from selfscan.io.picture_stream import PictureStream

FOLLOW = f"ws://127.0.0.1:{PORT}/p/{{}}/follow"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A served studio with a person whose avatar is there."""
    with served(tmp_path_factory.mktemp("studio")) as made:
        person = made.studio.people.add("Ada Example", True, fictional=True)
        with workspace.stage(person.folder / "me.avatar", "avatar", {}, {}) as run:
            artifacts.save(avatar(), run)
        yield made


@pytest.fixture
def person(place):
    (found,) = place.studio.people
    return found


@pytest.fixture(autouse=True)
def full_size(monkeypatch):
    monkeypatch.setattr(following, "RATE", 1e-3)


def socket_of(place, person):
    address = f"ws://127.0.0.1:{place.port}/p/{person.id}/follow"
    return connect(address, additional_headers=place.headers, max_size=1 << 24)


def begin(socket, record: bool) -> None:
    socket.send(json.dumps({"record": record}))
    assert json.loads(socket.recv(60)) == {"ready": True}


def picture(message: bytes) -> tuple[float, int, np.ndarray]:
    time, outcome = struct.unpack_from("<dB", message)
    return time, outcome, cv2.imdecode(np.frombuffer(message, np.uint8, offset=9), cv2.IMREAD_COLOR)[..., ::-1]


def exchange(socket, looks) -> list[tuple[float, int, np.ndarray]]:
    """Send look after look, each when the picture of the one before is there."""
    got = []
    for time, content in looks:
        socket.send(struct.pack("<d", time) + content)
        got.append(picture(socket.recv(60)))
    return got


def end(socket) -> dict:
    socket.send(json.dumps({"end": True}))
    while isinstance(told := socket.recv(60), bytes):
        pass
    return json.loads(told)


@pytest.fixture(scope="module")
def looks() -> list[tuple[float, bytes]]:
    return [(time, jpeg(frame)) for time, frame in frames(8)]


def test_the_pictures_are_those_of_the_command(place, person, looks):
    with socket_of(place, person) as socket:
        begin(socket, False)
        got = exchange(socket, looks)
        told = end(socket)
    assert [time for time, _, _ in got] == [time for time, _ in looks]
    assert {outcome for _, outcome, _ in got} == {int(Outcome.FOLLOWED)}
    me, decode = artifacts.load(person.avatar, type(avatar())), PictureStream()
    own = Live(me, resolve().of(me.engine, "reenact"), resolve().live)
    expected = [own(decode(content), time).picture[:, 256:] for time, content in looks]
    own.close(), decode.close()
    for (_, _, shown), wanted in zip(got, expected):
        assert shown.shape == (256, 256, 3) and np.abs(shown.astype(int) - wanted).mean() < 3
    assert np.abs(got[0][2].astype(int) - got[-1][2]).mean() > 0.5  # it moves
    assert told["ended"] and told["clip"] == "" and told["frames"] == len(looks)
    assert engines.following(me) and not list(person.renders.glob("*"))


def test_a_recording_is_marked_as_the_commands(place, person, looks):
    with socket_of(place, person) as socket:
        begin(socket, True)
        exchange(socket, looks)
        told = end(socket)
    clip = person.renders / told["clip"]
    written = list(video.read(clip))
    assert len(written) == len(looks) and written[0][1].shape == (256, 512, 3)
    mark, hidden = verify.examine(clip)
    assert mark.state == hidden.state == "found" and mark.details["view"] == "live"


def test_a_page_that_is_closed_leaves_a_whole_clip(place, person, looks):
    before = set(person.renders.glob("live-*.mp4"))
    with socket_of(place, person) as socket:
        begin(socket, True)
        exchange(socket, looks[:5])
    (clip,) = until(lambda: set(person.renders.glob("live-*.mp4")) - before - set(person.renders.glob("*.part.mp4")))
    assert len(list(video.read(clip))) == 5 and verify.examine(clip)[0].state == "found"


def test_only_the_newest_look_is_answered(place, person, looks):
    with socket_of(place, person) as socket:
        begin(socket, False)
        exchange(socket, looks[:1])
        for k in range(60):
            socket.send(struct.pack("<d", 1 + k / 100) + looks[k % len(looks)][1])
        got = []
        while not got or got[-1] < 1.585:
            got.append(picture(socket.recv(60))[0])
    assert got == sorted(got) and got[-1] == pytest.approx(1.59) and len(got) < 40


def test_one_page_at_a_time(place, person, monkeypatch):
    monkeypatch.setattr(room, "PATIENCE", 0.2)
    with socket_of(place, person) as first:
        begin(first, False)
        with socket_of(place, person) as second, pytest.raises(ConnectionClosed) as closed:
            second.recv(10)
    assert closed.value.rcvd.code == 1013


def test_without_an_avatar_nothing_follows(client, studio):
    person = studio.people.add("Eve", True)
    with client.websocket_connect(FOLLOW.format(person.id), headers=OWN) as socket:
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert closed.value.code == 1008
    assert "There is no avatar yet" in client.get(f"/p/{person.id}/live").text


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.example"}, {"Origin": f"http://127.0.0.1:{PORT + 1}"}])
def test_another_page_gets_no_pictures(visitor, studio, headers):
    person = studio.people.add("Eve", True)
    with pytest.raises(WebSocketDisconnect), visitor.websocket_connect(FOLLOW.format(person.id), headers=headers):
        pass


@pytest.mark.parametrize("name", ["../me.avatar", "hello.side-by-side.mp4", "", "live-", "/etc/passwd"])
def test_only_recordings_of_this_room_are_deleted(client, studio, name):
    person = studio.people.add("Eve", True)
    person.renders.mkdir()
    for kept in ("hello.side-by-side.mp4", "live-1.mp4"):
        (person.renders / kept).write_bytes(b"x")
    client.post(f"/p/{person.id}/live/remove", json={"clip": name})
    assert len(list(person.renders.iterdir())) == 2
    client.post(f"/p/{person.id}/live/remove", json={"clip": "live-1.mp4"})
    assert [path.name for path in person.renders.iterdir()] == ["hello.side-by-side.mp4"]


@pytest.mark.slow
def test_in_a_browser_the_avatar_moves_and_is_recorded(place, person, tmp_path):
    camera = camera_file(tmp_path / "person.mjpeg")
    pictures: list[bytes] = []
    with browser(camera) as page:
        page.on("websocket", lambda socket: socket.on("framereceived", lambda got: pictures.append(got)))
        page.goto(address_of(place.studio.folder, place.port))
        page.goto(f"{place.address}/p/{person.id}/live")
        page.click("#turn-on")
        until(lambda: "frames a second" in page.inner_text("#pace"))
        pixels = "document.getElementById('shown').toDataURL()"
        before = page.evaluate(pixels)
        until(lambda: page.evaluate(pixels) != before)
        clips = page.locator("#clips video").count()
        page.click("#record")
        until(lambda: page.inner_text("#record") == "End the recording")
        pictures.clear()
        until(lambda: page.is_visible("#clock") and sum(isinstance(one, bytes) for one in pictures) > 8)
        page.click("#record")
        until(lambda: page.locator("#clips video").count() == clips + 1)
        assert page.inner_text("#failed") == ""
        until(lambda: "frames a second" in page.inner_text("#pace"))  # it goes on
        page.click("#turn-off")
    newest = max(person.renders.glob("live-*.mp4"), key=lambda path: path.stat().st_mtime)
    assert len(list(video.read(newest))) >= 5 and verify.examine(newest)[0].state == "found"


@pytest.mark.parametrize(
    ("scheme", "width"), [("dark", 360), pytest.param("light", 1280, marks=pytest.mark.slow)], ids=["phone", "wide"]
)
def test_axe_finds_nothing_and_a_phone_shows_all(place, person, tmp_path, scheme, width):
    """The camera off and on, while it records, with recordings, and after another page took over."""
    axe = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
    found: dict[tuple[str, str], list[str]] = {}
    pictures: list[bytes] = []

    def look(state: str) -> None:
        page.evaluate(axe)
        for fault in page.evaluate("axe.run().then((found) => found.violations)"):
            found[state, fault["id"]] = [node["html"][:200] for node in fault["nodes"]]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, state

    screen = {"color_scheme": scheme, "viewport": {"width": width, "height": 740}, "bypass_csp": True}
    with browser(camera_file(tmp_path / "person.mjpeg", 40), reduced_motion="reduce", **screen) as page:
        page.on("websocket", lambda socket: socket.on("framereceived", lambda got: pictures.append(got)))
        page.goto(address_of(place.studio.folder, place.port))
        page.goto(f"{place.address}/p/{person.id}/live")
        look("off")
        page.click("#turn-on")
        until(lambda: "frames a second" in page.inner_text("#pace"))
        look("on")
        clips = page.locator("#clips video").count()
        page.click("#record")
        until(lambda: page.is_visible("#clock"))
        look("recording")
        pictures.clear()
        until(lambda: page.is_visible("#clock") and sum(isinstance(one, bytes) for one in pictures) > 4)
        page.click("#record")
        until(lambda: page.locator("#clips video").count() == clips + 1)
        look("recorded")
        page.evaluate("document.getElementById('failed').textContent = 'The camera was taken away.'")
        page.evaluate("document.getElementById('warning').hidden = false")
        page.evaluate("document.getElementById('warning').textContent = 'More light from the front.'")
        look("failed")
        page.click("#turn-off")
        page.evaluate("document.getElementById('turn-off').textContent = ''")
        page.evaluate("document.querySelector('main').append(document.createElement('img'))")
        before = dict(found)
        look("broken")
    assert before == {} and ("broken", "image-alt") in found
