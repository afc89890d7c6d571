"""The Scan room: images are left out and brought back, and training sees exactly what is shown."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from furnished import IMAGES, furnish, scan_of

from mystudio import engines
from mystudio.storage import artifacts, workspace
from mystudio.web.library.left_out import LIST, left_out
from mystudio.web.studio import Studio


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
    assert client.post(f"/p/{ada.id}/scan", json={"recording": "me.mp4"}).status_code == 200
    answer = client.post(f"/p/{ada.id}/train", json={"choice": "look"})
    assert answer.status_code == 400 and "wait for it" in answer.json()["error"]
