"""Recordings in the page: what is kept of them, and that the advice is the guide's own."""

from __future__ import annotations

import json
import struct
from functools import partial

import numpy as np
import pytest
import torch
from starlette.websockets import WebSocketDisconnect
from studio_camera import faces, jpeg, served
from studio_page import ADDRESS, OWN, PORT, files_of
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from mystudio.live.recording import read_words
from mystudio.web import guidance, recording
from mystudio.web.looks import MOST_A_SECOND, Look, Looks
from mystudio.web.studio import Studio
from selfscan.io import mux, video
from selfscan.io.picture_stream import MAX_BYTES, PictureStream
from selfscan.scan.guide import AGREE, Guide

GUIDE = f"ws://127.0.0.1:{PORT}/p/{{}}/guide"


def clip(path, count=60, seed=0, size=(64, 96)) -> list[bytes]:
    """A fragmented clip of ``count`` frames, as a browser records it, cut into pieces."""
    rng = np.random.default_rng(seed)
    frames = ((k / 30, np.full((*size, 3), rng.integers(255), np.uint8)) for k in range(count))
    mux.encode(path, frames, 30, 23)
    content = path.read_bytes()
    return [content[k : k + len(content) // 4 + 1] for k in range(0, len(content), len(content) // 4 + 1)]


def begin(client, person, **more) -> dict:
    values = {"width": 96, "height": 64, "ending": ".mp4"} | more
    answer = client.post(f"/p/{person.id}/record", json=values)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(client, person, made, number, content, seconds=None):
    address = f"/p/{person.id}/record/{made['recording']}/{made['part']}/{number}"
    return client.post(address, params={"seconds": number + 1.0 if seconds is None else seconds}, content=content)


def finish(client, person, made):
    return client.post(f"/p/{person.id}/record/{made['recording']}/finish")


def test_pieces_become_a_clip_with_its_words_and_a_scan(client, studio, person, tmp_path):
    pieces = clip(tmp_path / "a.mp4")
    made = begin(client, person)
    for number, piece in enumerate(pieces):
        assert send(client, person, made, number, piece).json() == {"kept": number + 1}
        assert send(client, person, made, number, piece).json() == {"kept": number + 1}  # the answer was lost
    assert finish(client, person, made).json()["go"] == f"/p/{person.id}/scan"
    (kept,) = person.recordings.glob("*.mp4")
    assert kept.read_bytes() == b"".join(pieces)
    words = read_words(kept)  # it compares the digest
    assert [item.start for item in words.said] == [2.0] and words.said[0].text == AGREE
    (job,) = studio.queue.jobs()
    assert (
        job.work.kind == "scan"
        and job.work.inputs["video"] == str(kept)
        and job.work.options["consent"] == "Ada Example"
    )
    assert not recording.unfinished(person) and not list((person.folder / "unfinished").iterdir())


def test_a_piece_that_is_missing_is_asked_for(client, person):
    made = begin(client, person)
    assert send(client, person, made, 0, b"a").json() == {"kept": 1}
    answer = send(client, person, made, 2, b"c")
    assert answer.status_code == 400 and "Expected piece 1" in answer.json()["error"]
    assert send(client, person, made, 1, b"b", seconds=0.5).status_code == 400  # time does not run backwards
    assert recording.find(person, made["recording"]).seconds == 1.0


def test_after_a_kill_every_whole_piece_is_there_and_can_be_used(client, studio, person, tmp_path):
    pieces = clip(tmp_path / "a.mp4", 120)
    made = begin(client, person)
    for number, piece in enumerate(pieces[:3]):
        send(client, person, made, number, piece)
    place = recording.find(person, made["recording"]).parts[0]
    with open(place, "ab") as file:
        file.write(pieces[3][:50])  # the process ended within a piece
    with open(place.with_suffix(".pieces"), "ab") as file:
        file.write(b"\x01\x02\x03")
    again = Studio(studio.folder)
    (left,) = recording.unfinished(again.people.find(person.id))
    assert left.seconds == 3.0 and left.append(0, 3, pieces[3], 4.0) == 4  # the page is still open, and sends it again
    kept = recording.finish(person, left)
    assert kept.read_bytes() == b"".join(pieces) and len(list(video.read(kept))) == 120
    again.close()


def test_a_continued_recording_is_one_clip(client, person, tmp_path):
    made = begin(client, person)
    for number, piece in enumerate(clip(tmp_path / "a.mp4", 45)):
        send(client, person, made, number, piece, seconds=min(1.5, number + 1))
    items = recording.find(person, made["recording"]).items
    more = begin(client, person, recording=made["recording"])
    assert (more["recording"], more["part"], more["seconds"]) == (made["recording"], 1, 1.5)
    assert more["words"] == made["words"] and [text for text, _, _ in made["words"]] == list(items)
    for number, piece in enumerate(clip(tmp_path / "b.mp4", 60, 1)):
        send(client, person, more, number, piece, seconds=min(2.0, number + 1))
    assert finish(client, person, more).status_code == 200
    (kept,) = person.recordings.glob("*.mp4")
    times = np.array([time for time, _ in video.read(kept)])
    assert len(times) == 105 and np.diff(times) == pytest.approx(1 / 30, abs=2e-3)
    assert [item.text for item in read_words(kept).said] == list(items[:1])


def test_another_camera_does_not_continue_a_recording(client, person):
    made = begin(client, person)
    values = {"width": 640, "height": 480, "ending": ".mp4", "recording": made["recording"]}
    answer = client.post(f"/p/{person.id}/record", json=values)
    assert answer.status_code == 400 and "96 x 64" in answer.json()["error"]


def test_nothing_is_kept_without_consent(client, studio):
    (studio.people.folder / "by-hand").mkdir()
    before = files_of(studio.folder)
    answer = client.post("/p/by-hand/record", json={"width": 640, "height": 480, "ending": ".webm"})
    assert answer.status_code == 400 and "consent" in answer.json()["error"]
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(GUIDE.format("by-hand"), headers=OWN) as socket:
        socket.receive_json()
    page = client.get("/p/by-hand/record").text
    assert "Before anything is kept" in page and "turn-on" not in page
    assert files_of(studio.folder) == before


@pytest.mark.parametrize("pieces", [[], [b"no clip at all"]], ids=["none", "broken"])
def test_a_recording_without_a_picture_is_no_clip(client, person, pieces):
    made = begin(client, person)
    for number, piece in enumerate(pieces):
        send(client, person, made, number, piece)
    assert finish(client, person, made).status_code == 400
    assert not list(person.recordings.glob("*")) and len(recording.unfinished(person)) == len(pieces)


@pytest.mark.parametrize("name", ["..", "recording-000000", "%2e%2e%2fx", "a" * 300, ".x"])
def test_no_recording_of_a_hostile_id(client, studio, person, name):
    before = files_of(studio.folder)
    for tail in ("finish", "remove", "0/0?seconds=1"):
        assert client.post(f"/p/{person.id}/record/{name}/{tail}", content=b"x").status_code in (400, 404, 405)
    answer = client.post(
        f"/p/{person.id}/record", json={"width": 96, "height": 64, "ending": ".mp4", "recording": name}
    )
    assert answer.status_code == 400 and files_of(studio.folder) == before


@pytest.mark.parametrize(
    "values",
    [{"ending": ".exe"}, {"ending": "/../x.mp4"}, {"width": 0}, {"width": 1e8}, {"height": "x"}, {"width": None}],
)
def test_odd_cameras_are_refused(client, studio, person, values):
    answer = client.post(f"/p/{person.id}/record", json={"width": 96, "height": 64, "ending": ".mp4"} | values)
    assert answer.status_code == 400 and not list(person.folder.glob("unfinished/*"))


@pytest.mark.parametrize("seconds", ["", "nan", "inf", "-1", "1e9", "x"])
def test_odd_lengths_are_refused(client, person, seconds):
    made = begin(client, person)
    assert send(client, person, made, 0, b"x", seconds=seconds).status_code == 400
    assert not recording.unfinished(person)


def test_pieces_have_limits(client, person, monkeypatch):
    made = begin(client, person)
    monkeypatch.setattr(recording, "LARGEST_PIECE", 1000)
    assert send(client, person, made, 0, bytes(2000)).status_code == 413
    monkeypatch.setattr(recording, "LARGEST_PART", 1500)
    assert send(client, person, made, 0, bytes(900)).status_code == 200
    assert send(client, person, made, 1, bytes(900)).status_code == 400
    monkeypatch.setattr(recording, "MOST_PIECES", 1)
    assert send(client, person, made, 1, bytes(9)).status_code == 400
    monkeypatch.setattr(recording, "SPARE", 1 << 60)
    full = send(client, person, begin(client, person), 0, b"x")
    assert full.status_code == 400 and "disk is nearly full" in full.json()["error"]
    monkeypatch.setattr(recording, "MOST_UNFINISHED", 1)
    answer = client.post(f"/p/{person.id}/record", json={"width": 96, "height": 64, "ending": ".mp4"})
    assert answer.status_code == 400 and "unfinished" in answer.json()["error"]


def look(time, content) -> bytes:
    return struct.pack("<d", time) + content


@pytest.fixture(scope="module")
def looks() -> list[bytes]:
    return [jpeg(frame) for frame in faces(6, 480, 100)]


def test_the_advice_over_a_real_socket_is_the_guides_own(tmp_path, looks, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    with served(tmp_path) as place:
        person = place.studio.people.add("Ada", True)
        made = recording.begin(person, (960, 960))
        with connect(f"ws://127.0.0.1:{place.port}/p/{person.id}/guide", additional_headers=place.headers) as socket:
            socket.send(json.dumps({"recording": made.id, "reduced": 2.0}))
            assert json.loads(socket.recv(60)) == {"ready": True}
            got = []
            for k, content in enumerate(looks):
                socket.send(look(k / 3 + 0.01, content))
                got.append(json.loads(socket.recv(60)))
    torch.set_num_threads(1)  # as the server's thread
    own, decode = Guide(made.items, recording.SECONDS, 2.0), PictureStream()
    expected = [guidance.told(own, own(decode(content), k / 3 + 0.01), True) for k, content in enumerate(looks)]
    own.close(), decode.close()
    assert got == json.loads(json.dumps(expected))
    assert got[-1]["todo"] and sum(got[-1]["groups"]) > sum(got[1]["groups"]) > 0
    assert len(made.seen()) == len(own.seen) > 3  # for a recording that is continued
    assert Guide(made.items, recording.SECONDS, 2.0, made.seen()).seen[3] == pytest.approx(own.seen[3])


def test_before_the_recording_only_the_picture_is_judged(client, person, looks):
    with client.websocket_connect(GUIDE.format(person.id), headers=OWN) as socket:
        socket.send_json({"reduced": 0.5})  # the camera has half a look's pixels: the face is too small
        assert socket.receive_json() == {"ready": True}
        socket.send_bytes(look(0.1, looks[0]))
        told = socket.receive_json()
        socket.send_bytes(look(0.3, b"\xff\xd8\xff no picture"))
        damaged = socket.receive_json()
    assert told["wrong"] == ["too far away: come closer"] and not told["groups"] and not told["enough"]
    assert "expected a JPEG" in damaged["wrong"][0]
    assert not list(person.folder.glob("unfinished/*"))


@pytest.mark.parametrize(
    "message,code",
    [(b"short", 1008), (look(float("nan"), b""), 1008), (look(1e300, b""), 1008), ("[1]", 1008), ("{", 1008),
     (bytes(MAX_BYTES + 100), 1009), ("x" * 5000, 1009)],
)  # fmt: skip
def test_what_is_no_message_closes_the_socket(client, person, message, code):
    with client.websocket_connect(GUIDE.format(person.id), headers=OWN) as socket:
        (socket.send_bytes if isinstance(message, bytes) else socket.send_text)(message)
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == code


def test_too_many_messages_close_the_socket(tmp_path):
    with served(tmp_path) as place:
        person = place.studio.people.add("Ada", True)
        with (
            pytest.raises(ConnectionClosed) as closed,
            connect(f"ws://127.0.0.1:{place.port}/p/{person.id}/guide", additional_headers=place.headers) as socket,
        ):
            for _ in range(3 * MOST_A_SECOND):
                socket.send(look(0.0, b"x"))
            socket.recv(30)
    assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize(
    "values", [{}, {"reduced": "x"}, {"reduced": 0}, {"reduced": 1e9}, {"recording": "no", "reduced": 1}]
)
def test_odd_words_to_the_guide_are_told(client, person, values):
    with client.websocket_connect(GUIDE.format(person.id), headers=OWN) as socket:
        socket.send_json(values)
        assert "error" in socket.receive_json()


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.example"}, {"Origin": f"http://127.0.0.1:{PORT + 1}"}])
def test_another_page_gets_no_advice(visitor, person, headers):
    with pytest.raises(WebSocketDisconnect), visitor.websocket_connect(GUIDE.format(person.id), headers=headers):
        pass


def test_only_the_newest_look_waits():
    looks = Looks()
    for k in range(50):
        looks.put(Look(k, b""))
    looks.put({"a": 1})
    found = iter(looks)
    assert next(found) == {"a": 1} and next(found) == Look(49, b"")
    looks.put(Look(50, b""))
    assert next(found) == Look(50, b"")
    looks.close()
    assert list(found) == []


def test_the_room_offers_what_was_interrupted(client, person, tmp_path):
    assert "Interrupted recordings" not in client.get(f"/p/{person.id}/record").text
    made = begin(client, person)
    send(client, person, made, 0, clip(tmp_path / "a.mp4")[0], seconds=7.2)
    page = client.get(f"/p/{person.id}/record").text
    assert "Interrupted recordings" in page and "7 s of" in page and f'data-continue="{made["recording"]}"' in page
    client.post(f"/p/{person.id}/record/{made['recording']}/remove")
    assert not recording.unfinished(person) and not list((person.folder / "unfinished").iterdir())
    assert client.get(f"{ADDRESS}/p/{person.id}", follow_redirects=False).headers["location"].endswith("/record")
