"""The portrait of an avatar without a scan: the avatar's own neutral face, with its watermark."""

from __future__ import annotations

import re
import shutil

import editable_take
import numpy as np
import pytest
from furnished import furnish

from mystudio import editing, engines
from mystudio.provenance.watermark import embed, payload_of
from mystudio.rendering.render import SMALLEST, enlarge
from mystudio.storage.artifacts import load, save
from mystudio.storage.manifest import open_folder
from mystudio.storage.workspace import stage
from mystudio.types import Avatar


@pytest.fixture
def brought(studio, tiny_avatar, performance, take):
    """A person whose avatar came from elsewhere: there is no scan."""
    person = furnish(studio.folder, tiny_avatar, performance, take)
    shutil.rmtree(person.scan)
    return person


def address(client) -> str:
    (found,) = set(re.findall(r'src="(/m/[^"]*portrait\.png\?v=\w+)"', client.get("/").text))
    return found


def test_people_and_avatar_show_the_avatars_own_face_with_its_watermark(client, brought):
    picture = editable_take.picture(client.get(address(client)).content)
    plain = enlarge(editing.neutral(load(brought.avatar, Avatar)), SMALLEST)
    marked = embed(plain, payload_of(open_folder(brought.avatar).manifest.digest))
    np.testing.assert_array_equal(picture, marked)
    assert (picture != plain).any() and plain.std() > 10
    room = client.get(f"/p/{brought.id}/avatar").text
    assert f'src="{address(client)}" alt="The neutral face of the avatar"' in room


def test_it_is_drawn_once_and_anew_for_another_avatar(client, brought, tiny_avatar):
    first = address(client)
    client.get(first)
    (place,) = brought.folder.glob(".portrait-*.png")
    before = place.stat().st_mtime_ns
    client.get(first)
    assert place.stat().st_mtime_ns == before
    other = editable_take.with_edits(tiny_avatar, "smile")
    with stage(brought.avatar, "avatar", {}, {"other": 1}) as run:
        save(other, run)
    assert address(client) != first
    client.get(address(client))
    (again,) = brought.folder.glob(".portrait-*.png")
    assert again != place


def test_with_a_scan_the_portrait_is_its_image(studio, client, tiny_avatar, performance, take):
    furnish(studio.folder, tiny_avatar, performance, take)
    assert "portrait.png" not in client.get("/").text and "/scan/0" in client.get("/").text


def test_without_what_can_be_drawn_the_initial_stays(client, person, studio, brought, monkeypatch):
    assert client.get(f"/m/{person.id}/portrait.png").status_code == 404
    monkeypatch.setattr(engines, "ENGINES", {})
    assert "portrait.png" not in client.get("/").text and 'class="initial"' in client.get("/").text


def test_it_is_deleted_with_the_avatar(client, brought):
    client.get(address(client))
    assert client.post(f"/p/{brought.id}/avatar/delete", json={"takes": True}).status_code == 200
    assert not list(brought.folder.glob(".portrait-*")) and "portrait.png" not in client.get("/").text
