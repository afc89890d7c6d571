"""What the rooms put into the queue is done by a real worker."""

from __future__ import annotations

import os
import threading

import pytest
from furnished import furnish

from mystudio.errors import StudioError
from mystudio.jobs.worker import Worker
from mystudio.storage.manifest import MANIFEST, open_folder
from mystudio.web import work
from mystudio.web.events import told


@pytest.fixture
def ada(studio, tiny_avatar, performance, take):
    return furnish(studio.folder, tiny_avatar, performance, take)


def done(studio) -> list[str]:
    """Work until nothing is left; returns the errors."""
    Worker(studio.folder, lambda job, words: None).run(threading.Event())
    return [job.error for job in studio.queue.jobs() if job.error]


def test_a_take_is_drawn_alone_and_downloaded(studio, client, ada):
    place = f"/p/{ada.id}/takes/hello"
    assert client.post(f"{place}/render", json={"view": "aligned"}).status_code == 200
    assert client.post(f"{place}/render", json={"view": "aligned"}).status_code == 200  # not twice
    assert len(studio.queue.jobs()) == 1
    assert done(studio) == []
    saved = client.get(f"/m/{ada.id}/downloads/hello.aligned.mp4")
    assert saved.status_code == 200 and saved.content[4:8] == b"ftyp"
    assert "attachment" in saved.headers["content-disposition"]
    part = client.get(f"/m/{ada.id}/renders/hello.aligned.mp4", headers={"Range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == b"ftyp"
    assert client.post(f"{place}/render", json={"view": "upside-down"}).status_code == 400


def test_takes_keep_the_avatar_that_they_were_made_with(ada):
    version = work.version_of(ada.avatar)
    digest = open_folder(ada.avatar).manifest.digest
    assert version != ada.avatar and open_folder(version).manifest.digest == digest
    assert work.version_of(ada.avatar) == version and work.version_of(version) == version
    (ada.avatar / "values.json").unlink()  # as when training replaces it
    assert open_folder(version).read("values.json")


def test_short_jobs_run_beside_training(studio, client, ada):
    assert client.post(f"/p/{ada.id}/train", json={"choice": "best"}).status_code == 200
    client.post(f"/p/{ada.id}/takes/hello/render", json={"view": "paste"})
    training, waits = studio.queue.jobs()
    assert not waits.light  # training only waits
    with studio.queue._store.writing() as db:
        db.execute("UPDATE job SET state = 'running' WHERE id = ?", (training.id,))
    client.post(f"/p/{ada.id}/takes/hello/render", json={"view": "aligned"})
    client.post(f"/p/{ada.id}/takes/hello/measure")
    client.post(f"/p/{ada.id}/drive", json={"driver": "driver.mp4"})
    assert [job.light for job in studio.queue.jobs()[2:]] == [True, True, True, True]
    assert "be used already" not in client.get(f"/p/{ada.id}/train").text  # a finished avatar, not a draft


def test_a_draft_is_told_to_open_pages_without_a_preview(studio, client, ada):
    client.post(f"/p/{ada.id}/train", json={"choice": "look"})
    (training,) = studio.queue.jobs()
    before = told(training)["seen"]
    os.utime(ada.avatar / MANIFEST)  # as when a draft replaces it
    assert told(training)["seen"] != before and training.preview is None
    with studio.queue._store.writing() as db:
        db.execute("UPDATE job SET state = 'running' WHERE id = ?", (training.id,))
    assert "So far" not in client.get(f"/p/{ada.id}/train").text  # a picture that is not there


def test_what_is_needed_is_not_deleted(studio, client, ada):
    driver = ada.drivers / "driver.mp4"
    answer = client.post(f"/p/{ada.id}/drivers/remove", json={"driver": driver.name})
    assert answer.status_code == 400 and "hello needs driver.mp4" in answer.json()["error"] and driver.exists()
    other = ada.takes / "driver-2-0a1b2c3d.performance"  # of a clip whose name begins alike
    other.mkdir()
    assert client.post(f"/p/{ada.id}/takes/hello/remove").status_code == 200
    assert not list(ada.takes.glob("*.take")) and not list(ada.renders.iterdir())
    assert client.post(f"/p/{ada.id}/drivers/remove", json={"driver": driver.name}).status_code == 200
    assert not driver.exists() and list(ada.takes.iterdir()) == [other]


def test_deleting_the_avatar_says_what_goes(client, ada):
    work.version_of(ada.avatar)
    page = client.get(f"/p/{ada.id}/avatar").text
    assert "me.avatar (avatar, " in page and "hello.take (take, " in page and "recordings/me.mp4" in page
    assert client.post(f"/p/{ada.id}/avatar/delete", json={"takes": True}).status_code == 200
    assert not list(ada.folder.glob("*.avatar")) and not list(ada.takes.glob("*.take"))
    assert ada.scan.is_dir() and (ada.recordings / "me.mp4").exists()


def test_a_person_is_deleted_by_name_and_not_while_jobs_wait(studio, client, ada):
    work.evaluate(studio, ada, ada.takes / "hello.take")
    assert "unfinished jobs" in client.post(f"/p/{ada.id}/remove", json={"name": "Ada Example"}).json()["error"]
    client.post(f"/jobs/{studio.queue.jobs()[0].id}/cancel")
    assert client.post(f"/p/{ada.id}/remove", json={"name": "ada"}).status_code == 400
    assert client.post(f"/p/{ada.id}/remove", json={"name": "Ada  Example "}).json() == {"go": "/"}
    assert not list(studio.people) and not studio.queue.jobs()


def test_nothing_is_driven_without_an_avatar(studio, client, person, driving_clip):
    client.post(f"/p/{person.id}/drivers", params={"name": "x.mp4"}, content=driving_clip.read_bytes())
    (clip,) = person.drivers.iterdir()
    answer = client.post(f"/p/{person.id}/drive", json={"driver": clip.name})
    assert answer.status_code == 400 and "train it first" in answer.json()["error"]
    assert client.post(f"/p/{person.id}/train", json={"choice": "best"}).status_code == 400
    with pytest.raises(StudioError, match="no consent|consent of"):
        work.scan(studio, _without_consent(studio), [clip], {})


def _without_consent(studio):
    (studio.people.folder / "by-hand").mkdir()
    return studio.people.find("by-hand")


def test_a_part_of_a_clip_is_checked(client, ada):
    for part in ({"start": 2, "end": 1}, {"start": -1}, {"end": 1e8}):
        answer = client.post(f"/p/{ada.id}/drive", json={"driver": "driver.mp4", **part})
        assert answer.status_code == 400 and "correct" in answer.json()["error"], part
    odd = {"start": "x", "end": None, "face": "<b>"}
    assert client.post(f"/p/{ada.id}/drive", json={"driver": "driver.mp4", **odd}).status_code == 200
