"""Ids and names from a client: none becomes a path, and none breaks a page."""

from __future__ import annotations

import os
from itertools import product
from urllib.parse import quote

import pytest
from studio_page import files_of

from mystudio.live.recording import words_of
from mystudio.web.library import names
from mystudio.web.library.names import SAFE, new_name

HOSTILE = [
    "..", "../../etc/passwd", "..\\..\\x", "/etc/passwd", "C:\\x.mp4", "a\x00b", ".secret", "..%2f..%2fetc%2fpasswd",
    "a" * 5000, "<script>alert(1)</script>", "\u202e4pm.exe", "person.json",
]  # fmt: skip
ROOMS = ["/p/{}", "/p/{}/scan", "/p/{}/train", "/p/{}/avatar", "/p/{}/takes", "/p/{}/takes/x", "/m/{}/coverage.png"]
FILES = ["/m/{0}/scan/{1}", "/m/{0}/recordings/{1}", "/m/{0}/drivers/{1}", "/m/{0}/renders/{1}", "/m/{0}/reports/{1}",
         "/m/{0}/downloads/{1}"]  # fmt: skip


def is_not_there(answer, name: str) -> bool:
    """Whether a page was not found; the client itself follows dots, to another page."""
    return answer.status_code in (303, 404) or name in (".", "..") and "Ada" not in answer.request.url.path


def test_no_person_of_a_hostile_id(client, person):
    for name, room in product(HOSTILE, ROOMS):
        answer = client.get(room.format(quote(name, safe="")))
        assert is_not_there(answer, name) and "root:" not in answer.text, (name, room)


def test_no_file_of_a_hostile_name(client, studio, person):
    for folder in (person.recordings, person.drivers, person.renders, person.reports):
        folder.mkdir()
    for name, file in product(HOSTILE, FILES):
        assert is_not_there(client.get(file.format(person.id, quote(name, safe=""))), name), (name, file)
    for name, (act, key) in product(HOSTILE, (("drive", "driver"), ("scan", "recording"))):
        answer = client.post(f"/p/{person.id}/{act}", json={name: True} if act == "scan" else {key: name})
        assert answer.status_code == 400 and "not there" in answer.json()["error"]
        client.post(f"/p/{person.id}/{key}s/remove", json={key: name})
    assert {".secret", f"people/{person.id}/person.json"} <= files_of(studio.folder)


def test_a_link_in_the_folder_leads_nowhere(client, tmp_path, person):
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    person.renders.mkdir()
    os.symlink(tmp_path / "secret.mp4", person.renders / "link.mp4")
    os.symlink(tmp_path, person.folder.parent / "elsewhere")
    assert client.get(f"/m/{person.id}/renders/link.mp4").status_code == 404
    assert client.get("/p/elsewhere/scan").status_code == 404


@pytest.mark.parametrize("given", [*HOSTILE, "", "Héllo wörld.MP4", "日本.mp4", "....mp4", "-rf.mp4"])
def test_new_names_are_plain_whatever_was_given(given):
    made = new_name(given, ".mp4")
    assert SAFE.fullmatch(made) and made.endswith(".mp4") and len(made) < 80 and ".." not in made
    assert SAFE.fullmatch(new_name(given))


def test_new_names_keep_the_words_and_are_new():
    assert new_name("Monday, 3 pm.MOV", ".mov").startswith("monday-3-pm-")
    assert len({new_name("a.mp4", ".mp4") for _ in range(50)}) == 50
    assert names.words_of(new_name("Monday, 3 pm.MOV", ".mov")) == "monday-3-pm" and names.words_of("me.mp4") == "me"


def test_the_listing_has_safe_names_of_the_asked_endings(tmp_path):
    for name in ("b.mp4", "A.MP4", ".hidden.mp4", "c.txt", "sp ace.mp4", "ü.mp4"):
        (tmp_path / name).touch()
    assert {path.name for path in names.listed(tmp_path, ".mp4")} == {"b.mp4", "A.MP4"}
    assert not list(names.listed(tmp_path / "missing"))


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "'\"><script>x</script>", "a&b"])
def test_names_of_people_are_text(client, name):
    answer = client.post("/people", json={"name": name, "consent": True})
    assert answer.status_code == 200
    page = client.get("/").text
    assert name not in page
    assert client.get(answer.json()["go"]).status_code == 200


def test_people_need_a_name_and_consent(client, studio):
    for name in ("", "   ", "a" * 81, "a\x00b", 7, None, ["x"]):
        assert client.post("/people", json={"name": name, "consent": True}).status_code == 400
    for consent in (False, None, "yes", 1):
        answer = client.post("/people", json={"name": "Ada", "consent": consent})
        assert answer.status_code == 400 and "consent" in answer.json()["error"]
    assert not list(studio.people)


def test_odd_bodies_count_as_empty(client):
    for body in (b"", b"[]", b"nonsense", b"[" * 60_000, b'"x"', b"\xff\xfe"):
        assert client.post("/people", content=body).status_code == 400, body


def test_a_body_of_values_has_a_limit(client):
    assert client.post("/people", content=b"x" * 100_000).status_code in (400, 413)


def test_jobs_that_do_not_exist(client):
    assert client.get("/jobs/12345").status_code == 400
    assert client.post("/jobs/12345/cancel").status_code == 400
    assert client.get("/m/jobs/12345/preview").status_code == 400
    assert client.get("/jobs/99999999999999999999999999").status_code in (400, 404, 500)
    assert client.get("/jobs/x").status_code == 404


def test_the_shown_words_go_with_their_recording(client, person):
    person.recordings.mkdir(exist_ok=True)
    for name in ("one.mp4", "two.mp4"):
        (person.recordings / name).write_bytes(b"clip")
        words_of(person.recordings / name).write_text("{}")
    client.post(f"/p/{person.id}/recordings/remove", json={"recording": "one.mp4"})
    assert {file.name for file in person.recordings.iterdir()} == {"two.mp4", "two.words.json"}
