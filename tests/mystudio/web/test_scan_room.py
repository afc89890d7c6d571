"""The Scan room: images are left out and brought back, and training sees exactly what is shown."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import replace

import cv2
import pytest
from furnished import IMAGES, furnish, scan_of

from mystudio import engines
from mystudio.demo import FOLDER as DEMO
from mystudio.errors import StudioError
from mystudio.jobs.worker import Worker
from mystudio.storage import artifacts, workspace
from mystudio.web import work
from mystudio.web.library.left_out import LIST, left_out
from mystudio.web.studio import Studio
from selfscan.io import video


@pytest.fixture
def ada(studio, tiny_avatar, performance, take):
    return furnish(studio.folder, tiny_avatar, performance, take)


def choose(client, ada, number, out=True):
    return client.post(f"/p/{ada.id}/scan/images", json={"image": number, "out": out})


def shown(client, ada) -> list[int]:
    """Numbers of the images that the room shows as chosen."""
    page = client.get(f"/p/{ada.id}/scan").text
    return [int(number) for number in re.findall(r'id="image-(\d+)" type="button" aria-pressed="false"', page)]


def trained(studio, client, ada) -> list[int]:
    """Begin to train, and cancel; numbers of the images that the job learns from."""
    assert client.post(f"/p/{ada.id}/train", json={"choice": "look"}).status_code == 200
    job = studio.queue.jobs()[-1]
    studio.queue.cancel(job.id)
    gone = job.work.options.get("without", [])
    return [number for number in studio.facts.scan(ada.scan).numbers if number not in gone]


def test_training_sees_exactly_what_is_shown(studio, client, ada):
    assert shown(client, ada) == list(range(IMAGES)) == trained(studio, client, ada)
    assert choose(client, ada, 3).status_code == 200 and choose(client, ada, 7).status_code == 200
    assert shown(client, ada) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11] == trained(studio, client, ada)
    assert choose(client, ada, 3, out=False).status_code == 200
    assert shown(client, ada) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11] == trained(studio, client, ada)


def test_the_choice_survives_a_restart_and_the_scan_stays_whole(studio, client, ada):
    before = {path.name for path in (ada.scan / "images").iterdir()}
    choose(client, ada, 5)
    studio.close()
    again = Studio(studio.folder)
    person = again.people.find(ada.id)
    assert left_out(person, again.facts.scan(person.scan)) == {5}
    assert {path.name for path in (ada.scan / "images").iterdir()} == before and len(before) == IMAGES
    again.close()


def test_another_choice_makes_the_avatar_out_of_date(client, ada):
    rooms = ("scan", "train", "avatar")
    assert not any("left out or brought back" in client.get(f"/p/{ada.id}/{room}").text for room in rooms)
    assert "Avatar ready" in client.get("/").text
    choose(client, ada, 2)
    assert all("left out or brought back" in client.get(f"/p/{ada.id}/{room}").text for room in rooms)
    assert "Avatar not up to date" in client.get("/").text
    assert client.get(f"/p/{ada.id}").headers["location"].endswith("/train")
    choose(client, ada, 2, out=False)
    assert "Avatar ready" in client.get("/").text


def test_an_avatar_that_was_made_without_an_image_is_up_to_date(studio, client, ada, tiny_avatar):
    choose(client, ada, 2)
    with workspace.stage(ada.avatar, "avatar", {"scan": ada.scan}, artifacts.images_left_out([2])) as run:
        artifacts.save(tiny_avatar, run)
    assert "Avatar ready" in client.get("/").text
    choose(client, ada, 2, out=False)
    assert "Avatar not up to date" in client.get("/").text


def test_no_more_images_go_than_an_engine_can_spare(client, ada):
    needed = engines.needed(engines.DEFAULT)
    for number in range(IMAGES - needed):
        assert choose(client, ada, number).status_code == 200
    answer = choose(client, ada, IMAGES - 1)
    assert answer.status_code == 400 and answer.json()["error"].startswith(f"An avatar needs at least {needed} images")
    assert len(shown(client, ada)) == needed
    assert choose(client, ada, 0, out=False).status_code == 200 and choose(client, ada, IMAGES - 1).status_code == 200


@pytest.mark.parametrize("number", [99, -1, "3", True, None, 2.5, [1], 1 << 80])
def test_what_is_no_image_of_the_scan_is_refused(client, ada, number):
    answer = choose(client, ada, number)
    assert answer.status_code == 400 and "reload the page" in answer.json()["error"]
    assert not (ada.folder / LIST).exists()


def test_the_portrait_is_an_image_that_stays(client, ada):
    def portrait() -> int:
        return int(re.search(r"/scan/(\d+)\.png\?v=\w+\" alt=\"\"", client.get("/").text).group(1))

    first = portrait()
    choose(client, ada, first)
    assert portrait() != first


def test_the_choice_ends_with_its_recording(studio, client, ada, tiny_avatar):
    choose(client, ada, 5)
    other = ada.recordings / "other.mp4"
    other.write_bytes((ada.recordings / "me.mp4").read_bytes() + b"\0")
    scan = scan_of(tiny_avatar.consent, tiny_avatar.neutral.numpy())
    with workspace.stage(ada.scan, "scan", {"video": other}, {}) as run:
        artifacts.save(replace(scan, perceptual="other"), run)
    assert len(shown(client, ada)) == IMAGES
    assert "made from another scan" in client.get(f"/p/{ada.id}/scan").text


@pytest.mark.parametrize("content", [b"", b"[]", b'{"recordings": 3}', b'{"recordings": [], "images": [1]}', b"\xff{"])
def test_a_damaged_list_counts_as_empty(client, ada, content):
    (ada.folder / LIST).write_bytes(content)
    assert len(shown(client, ada)) == IMAGES
    assert choose(client, ada, 1).status_code == 200 and len(shown(client, ada)) == IMAGES - 1


def test_a_choice_waits_for_a_scan_that_is_being_made(studio, client, ada):
    choose(client, ada, 1)
    assert client.post(f"/p/{ada.id}/scan", json={"me.mp4": True}).status_code == 200
    answer = client.post(f"/p/{ada.id}/train", json={"choice": "look"})
    assert answer.status_code == 400 and "wait for it" in answer.json()["error"]


def new_recording(ada, name: str):
    made = ada.recordings / name
    made.write_bytes((ada.recordings / "me.mp4").read_bytes() + name.encode())
    return made


def test_a_new_recording_is_scanned_together_with_those_of_the_scan(studio, client, ada):
    answer = client.post(
        f"/p/{ada.id}/recordings", params={"name": "more.mp4"}, content=(ada.recordings / "me.mp4").read_bytes()
    )
    assert answer.json() == {"say": "Kept. The scan begins."}
    (job,) = studio.queue.jobs()
    made = next(path for path in ada.recordings.iterdir() if path.name.startswith("more-"))
    assert job.work.inputs == {"video": str(ada.recordings / "me.mp4"), "video_2": str(made)}


def test_recordings_are_chosen_and_those_of_the_scan_come_first(studio, client, ada):
    """So images of the scan keep their numbers, and what was removed stays removed."""
    first, other = new_recording(ada, "another.mp4"), ada.recordings / "me.mp4"
    os.utime(first, (1, 1))  # older than the scan's recording
    page = client.get(f"/p/{ada.id}/scan").text
    assert 'name="me.mp4" checked' in page and 'name="another.mp4" >' in page and "12 images of the scan" in page
    assert client.post(f"/p/{ada.id}/scan", json={}).status_code == 400
    assert client.post(f"/p/{ada.id}/scan", json={"another.mp4": True, "me.mp4": True}).status_code == 200
    assert studio.queue.jobs()[-1].work.inputs == {"video": str(other), "video_2": str(first)}
    studio.queue.cancel(studio.queue.jobs()[-1].id)
    assert client.post(f"/p/{ada.id}/scan", json={"another.mp4": True, "me.mp4": False}).status_code == 200
    assert studio.queue.jobs()[-1].work.inputs == {"video": str(first)}


def test_a_scan_does_not_lose_the_images_of_a_recording_that_is_gone(studio, ada):
    made = new_recording(ada, "b.mp4")
    (ada.recordings / "me.mp4").unlink()
    with pytest.raises(StudioError, match="me.mp4 of the present scan is not there any more"):
        work.scan_more(studio, ada, made)
    assert not studio.queue.jobs()


def test_removed_images_stay_removed_when_another_recording_is_added(studio, client, ada, tiny_avatar):
    choose(client, ada, 5)
    scan = scan_of(tiny_avatar.consent, tiny_avatar.neutral.numpy())
    inputs = {"video": ada.recordings / "me.mp4", "video_2": new_recording(ada, "b.mp4")}
    with workspace.stage(ada.scan, "scan", inputs, {}) as run:
        artifacts.save(replace(scan, perceptual="other"), run)
    assert len(shown(client, ada)) == IMAGES - 1 and 5 not in shown(client, ada)


def test_a_worker_scans_several_recordings(studio, client, person):
    """Here two pictures of the packaged clip."""
    person.recordings.mkdir()
    for name, wanted in (("a.png", 0), ("b.png", 10)):
        frame = next(frame for index, (_, frame) in enumerate(video.read(DEMO / "scan.mp4")) if index == wanted)
        cv2.imwrite(str(person.recordings / name), frame[..., ::-1])
    assert client.post(f"/p/{person.id}/scan", json={"a.png": True, "b.png": True}).status_code == 200
    Worker(studio.folder, lambda job, words: None).run(threading.Event())
    assert studio.queue.jobs()[-1].error == ""
    facts = studio.facts.scan(person.scan)
    assert facts.shares == (1, 1) and [path.name for path in facts.files] == ["a.png", "b.png"]
    assert len(shown(client, person)) == 2 and "1 image of the scan" in client.get(f"/p/{person.id}/scan").text
