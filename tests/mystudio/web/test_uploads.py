"""Uploads: whole or not at all, with limits; nothing is left behind."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from studio_page import OWN, files_of

from mystudio.web import uploads
from mystudio.web.uploads import Uploads


@pytest.fixture
def send(client, person):
    def sending(name: str, content, **headers: str):
        return client.post(f"/p/{person.id}/drivers", params={"name": name}, content=content, headers=headers or None)

    return sending


def test_a_clip_arrives_whole_under_a_name_that_can_be_read(send, studio, person):
    assert send("Monday morning.MP4", b"x" * 3_000_000).status_code == 200
    (clip,) = person.drivers.iterdir()
    assert clip.name.startswith("monday-morning-") and clip.suffix == ".mp4" and clip.stat().st_size == 3_000_000
    assert not list((studio.folder / ".uploads").iterdir())


def test_only_clips_are_taken(send, studio):
    before = files_of(studio.folder)
    for name in ("", "x", "x.exe", "x.mp4.sh", "x.html", "x.svg", "../x.toml", "x.mp4\x00.py"):
        answer = send(name, b"x")
        assert answer.status_code == 400 and "a file that ends with" in answer.json()["error"], name
    assert files_of(studio.folder) == before


def test_a_clip_states_its_size(send, studio, person):
    before = files_of(studio.folder)

    def endless():
        for _ in range(100):
            yield b"x" * 100_000

    assert send("x.mp4", endless()).status_code == 400
    assert send("x.mp4", b"").status_code == 400
    for length in (str(uploads.LARGEST + 1), "-1", "1e3", "9" * 30):
        assert send("x.mp4", b"x", **{"Content-Length": length}).status_code == 400
    assert files_of(studio.folder) == before


def test_more_or_less_than_was_stated_is_dropped(send, studio):
    before = files_of(studio.folder)
    for stated in ("5", "500"):
        answer = send("x.mp4", b"x" * 50, **{"Content-Length": stated})
        assert answer.status_code == 400 and "drop the file again" in answer.json()["error"]
    assert files_of(studio.folder) == before


def test_a_full_disk_is_told_before_anything_is_read(send, studio, monkeypatch):
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, uploads.SPARE))
    answer = send("x.mp4", b"x" * 1000)
    assert answer.status_code == 400 and "disk" in answer.json()["error"]


def test_a_disk_that_fills_while_it_is_written(send, studio, monkeypatch):
    before = files_of(studio.folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads.asyncio, "to_thread", full)
    answer = send("x.mp4", b"x" * 1000)
    assert answer.status_code == 400 and "No space left" in answer.json()["error"]
    assert files_of(studio.folder) == before


def test_a_drip_is_no_upload(send, studio, monkeypatch):
    before, now = files_of(studio.folder), iter((0, 70))
    monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=lambda: next(now)))
    assert "too slow" in send("x.mp4", b"x" * 10_000).json()["error"]
    assert files_of(studio.folder) == before


def test_there_is_a_limit_on_files_and_on_uploads_at_once(send, studio, person, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_FILES", 1)
    assert send("a.mp4", b"x").status_code == 200
    assert "at most 1 files" in send("b.mp4", b"x").json()["error"]
    studio.uploads._active = uploads.AT_ONCE
    assert "at once" in send("c.mp4", b"x").json()["error"]


def test_parts_of_a_killed_server_are_deleted_at_the_next_start(tmp_path):
    folder = tmp_path / ".uploads"
    Uploads(folder)
    (folder / "part-1").write_bytes(b"x")
    Uploads(folder)
    assert list(folder.iterdir()) == []


def test_a_recording_needs_consent_first(client, studio):
    folder = studio.people.folder / "put-by-hand"
    folder.mkdir()
    answer = client.post("/p/put-by-hand/recordings", params={"name": "me.mp4"}, content=b"x", headers=OWN)
    assert answer.status_code == 400 and "consent" in answer.json()["error"]
    assert list(folder.iterdir()) == []
    assert client.post("/p/put-by-hand/consent", json={"consent": False}).status_code == 400
    assert client.post("/p/put-by-hand/consent", json={"consent": True}).status_code == 200
    assert client.post("/p/put-by-hand/recordings", params={"name": "me.mp4"}, content=b"x").status_code == 200
    assert studio.queue.jobs()[0].work.options["consent"] == "put-by-hand"


def test_an_archive_that_is_none_is_refused_and_leaves_nothing(client, studio, person):
    before = files_of(studio.folder)
    for content in (b"PK\x03\x04" + b"x" * 100, b"x"):
        answer = client.post(f"/p/{person.id}/avatar/import", params={"name": "me.avatar.zip"}, content=content)
        assert answer.status_code == 400 and answer.json()["error"]
    assert {name for name in files_of(studio.folder) if "lock" not in name} == before
