"""The edit room's server: its pictures are the frames of the take that the command makes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from editable_take import picture, with_edits
from furnished import furnish
from starlette.testclient import TestClient
from studio_page import ADDRESS, OWN, PORT

from mystudio.cli import cli
from mystudio.engines.personal.state import AXES
from mystudio.errors import StudioError
from mystudio.jobs.child import edit_of
from mystudio.pipeline import run_edit
from mystudio.storage.artifacts import load
from mystudio.stylegan2.generator import Generator
from mystudio.types import Take
from mystudio.web.drawing import QUICK, Opened
from mystudio.web.preview import Previews
from mystudio.web.rooms.edit import STRONGEST, edits_of, title_of
from mystudio.web.server import guarded
from mystudio.web.studio import Studio

SMILE = {"name": "smile", "strength": 1.35, "edge": "project"}
KEYED = {"name": "yaw", "keys": [[0.0, -1.0], [0.2, 0.5], [0.41, 2.0]], "edge": "project"}


@pytest.fixture(scope="module")
def room(tmp_path_factory, tiny_avatar, take, performance) -> Iterator[SimpleNamespace]:
    """A studio whose person has a take; its process for previews is started once."""
    folder = tmp_path_factory.mktemp("edits") / "studio"
    person = furnish(folder, with_edits(tiny_avatar, "smile", "yaw"), performance, take)
    studio = Studio(folder)
    guard = guarded(studio, PORT)
    client = TestClient(guard, base_url=ADDRESS, follow_redirects=False, headers=OWN)
    client.get("/", params={"token": guard.token})
    url = f"/p/{person.id}/takes/hello/edit"

    def ask(edits, frame=6, **more):
        return client.post(f"{url}/picture", json={"edits": edits, "frame": frame, **more})

    yield SimpleNamespace(
        studio=studio, person=person, take=person.takes / "hello.take", client=client, url=url, ask=ask
    )
    studio.close()


def saved(room, edits, name="") -> Path:
    """Save by the page, and run the job's stage as the worker does."""
    answer = room.client.post(f"{room.url}/save", json={"edits": edits, "name": name})
    assert answer.status_code == 200, answer.text
    job = max((job for job in room.studio.queue.jobs() if job.work.kind == "edit"), key=lambda job: job.id)
    return run_edit(Path(job.work.inputs["take"]), job.out, [edit_of(edit) for edit in job.work.options["edits"]])


def test_opening_tells_the_sliders_and_the_time_of_every_frame(room, take):
    told = room.client.post(f"{room.url}/open").json()
    assert told["sliders"] == [{"name": "smile", "title": "Smile"}, {"name": "yaw", "title": "Head, turned"}]
    assert told["times"] == take.times.tolist() and told["size"] == 32


def command(*words) -> None:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def by_command(room, tmp_path_factory) -> Path:
    """The take of ``SMILE`` and ``KEYED`` as the command makes it."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "keys.toml").write_text(f"yaw = {json.dumps(KEYED['keys'])}\n")
    command("edit", room.take, "-o", folder / "by.take", "--set", "smile=1.35", "--keys", folder / "keys.toml")
    return folder / "by.take"


@pytest.mark.parametrize("batch", [1, 8])
def test_a_picture_is_the_frame_of_the_take_that_the_command_renders(room, by_command, tmp_path, batch):
    """Every frame, with its mark: bit by bit if single, and within the rounding of feature maps in groups of 8."""
    words = ("--view", "aligned", "--option", f"render.batch={batch}")
    command("render", by_command, "-o", f"{tmp_path / 'frames'}/", *words)
    frames = [cv2.imread(str(file))[..., ::-1] for file in sorted((tmp_path / "frames").glob("*.png"))]
    assert len(frames) == 12
    for number, frame in enumerate(frames):
        got = room.ask([KEYED, SMILE], number)
        assert got.headers["content-type"] == "image/png" and json.loads(got.headers["x-drawn"])["full"]
        away = np.abs(picture(got.content).astype(int) - frame)
        assert away.max() == 0 if batch == 1 else away.mean() < 1.5, number
    plain = picture(room.ask([], 6).content).astype(int)
    assert np.abs(plain - frames[6]).mean() > 5  # the edits are seen


def test_the_saved_take_is_the_commands_bit_by_bit(room, by_command):
    made, expected = load(saved(room, [KEYED, SMILE], "My Smile"), Take), load(by_command, Take)
    assert torch.equal(made.codes[AXES], expected.codes[AXES]) and made.edits == expected.edits
    assert not torch.equal(made.codes[AXES], load(room.take, Take).codes[AXES])


@pytest.mark.parametrize("edge", ["stop", "continue"])
def test_the_policy_at_the_border_is_the_commands(room, tmp_path, edge):
    command("edit", room.take, "-o", tmp_path / "by.take", "--set", "smile=-3", "--edge", edge)
    made = load(saved(room, [{**SMILE, "strength": -3, "edge": edge}]), Take)
    assert torch.equal(made.codes[AXES], load(tmp_path / "by.take", Take).codes[AXES])


def test_saving_queues_the_take_and_its_clip(room):
    before = {job.id for job in room.studio.queue.jobs()}
    answer = room.client.post(f"{room.url}/save", json={"edits": [SMILE], "name": "../../Big SMILE <b>"})
    edit, render = sorted((job for job in room.studio.queue.jobs() if job.id not in before), key=lambda job: job.id)
    assert (edit.work.kind, render.work.kind) == ("edit", "render") and edit.id in render.after
    assert edit.out.parent == room.person.takes and edit.out.name.startswith("big-smile-b-")
    assert render.out.parent == room.person.renders and edit.out.stem in answer.json()["say"]
    page = room.client.get(room.url).text
    assert edit.out.stem in page and "waits" in page


def test_an_edited_take_is_edited_on_top(room):
    first = saved(room, [SMILE], "first")
    url = f"/p/{room.person.id}/takes/{first.stem}/edit"
    page = room.client.get(url).text
    assert "Edited already: smile +1.35" in page and f'href="{room.url}"' in page
    got = room.client.post(f"{url}/picture", json={"edits": [], "frame": 6})
    away = np.abs(picture(got.content).astype(int) - picture(room.ask([SMILE], 6).content))
    assert away.max() <= 2


def test_an_older_request_of_a_page_is_not_drawn(room):
    assert room.ask([], page="one", number=5).status_code == 200
    late = room.ask([], page="one", number=4)
    assert late.status_code == 204 and late.content == b""
    assert room.ask([], page="two", number=1).status_code == 200
    assert room.ask([], page="one", number=6).status_code == 200


NUMBERS = [float("1e400"), "1", None, True, STRONGEST + 0.01, -STRONGEST - 0.01, [], {}]


@pytest.mark.parametrize("strength", NUMBERS, ids=repr)
def test_wrong_strengths_are_refused_with_a_sentence(room, strength):
    for edit in ({**SMILE, "strength": strength}, {**KEYED, "keys": [[0.0, strength]]}):
        text = json.dumps({"edits": [edit], "frame": 0}).replace("Infinity", "1e999")
        for act in ("picture", "save"):
            answer = room.client.post(f"{room.url}/{act}", content=text.encode())
            assert answer.status_code == 400 and "expected a strength of -3 to 3" in answer.json()["error"]


@pytest.mark.parametrize("edits", [
    None, {}, "x", [7], [{}], [{"name": ""}], [{"name": "a\nb", "strength": 1}], [{"name": "x" * 300, "strength": 1}],
    [{**SMILE, "edge": "bounce"}], [{**KEYED, "keys": []}], [{**KEYED, "keys": {}}], [{**KEYED, "keys": [[1]]}],
    [{**KEYED, "keys": [[-1, 0]]}], [{**KEYED, "keys": [[0, 0]] * 600}], [SMILE] * 65, [{**KEYED, "keys": "ab"}],
])  # fmt: skip
def test_wrong_edits_are_refused_with_a_sentence(room, edits):
    for act in ("picture", "save"):
        answer = room.client.post(f"{room.url}/{act}", json={"edits": edits, "frame": 0})
        assert answer.status_code == 400 and "xpected" in answer.json()["error"], edits


def test_unknown_edits_are_refused_and_nothing_is_queued(room):
    before, edits = len(room.studio.queue.jobs()), [{**SMILE, "name": "grin"}]
    assert "no direction 'grin'; it has smile, yaw" in room.ask(edits).json()["error"]
    assert "no edit 'grin'" in room.client.post(f"{room.url}/save", json={"edits": edits}).json()["error"]
    assert "move a slider" in room.client.post(f"{room.url}/save", json={"edits": []}).json()["error"]
    assert len(room.studio.queue.jobs()) == before


@pytest.mark.parametrize("frame", [-1, None, "0", float("-inf"), 1e300])
def test_wrong_frames_are_refused(room, frame):
    answer = room.client.post(
        f"{room.url}/picture", content=json.dumps({"edits": [], "frame": frame}).replace("Infinity", "1e999").encode()
    )
    assert answer.status_code == 400 and "frame" in answer.json()["error"]


def test_a_frame_after_the_last_is_the_last(room):
    assert room.ask([], 10**6).content == room.ask([], 11).content


def test_the_room_is_behind_the_guard(room):
    stranger = TestClient(room.client.app, base_url=ADDRESS, follow_redirects=False)
    for act in ("open", "picture", "save"):
        assert stranger.post(f"{room.url}/{act}", headers=OWN).status_code == 401
        assert room.client.post(f"{room.url}/{act}", headers={"Origin": "http://evil.example"}).status_code == 403
        lost = room.client.post(f"/p/{room.person.id}/takes/..%2F..%2Fx/edit/{act}", json={"edits": [], "frame": 0})
        assert lost.status_code in (400, 404)
    assert stranger.get(room.url).status_code == 401


def test_the_pages_of_the_room(room, client, person):
    page = room.client.get(room.url).text
    assert 'data-editor="' in page and "<style" not in page and " style=" not in page
    assert room.url in room.client.get(f"/p/{room.person.id}/takes/hello").text
    newest = room.client.get(f"/p/{room.person.id}/edit")
    assert newest.status_code == 303 and newest.headers["location"].endswith("/edit")
    assert "First, a take" in client.get(f"/p/{person.id}/edit").text  # of a person without one
    assert room.client.get(f"/p/{room.person.id}/takes/nothing/edit").status_code == 400


def test_faults_are_told_in_a_sentence_and_an_idle_process_ends(tmp_path, tiny_avatar, take, performance, monkeypatch):
    """No edits; a damaged avatar; a take that is gone; and a folder with a hostile module."""
    person = furnish(tmp_path, with_edits(tiny_avatar), performance, take)
    path = person.takes / "hello.take"
    (tmp_path / "torch.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    previews = Previews(idle=2.0)
    try:
        assert previews.open(path)["directions"] == []
        with pytest.raises(StudioError, match="no direction 'smile'; it has none"):
            previews.draw(path, [SMILE], 0, False)
        for file in person.avatar.glob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        manifest = path / "manifest.json"
        manifest.write_text(manifest.read_text())  # written again: what is loaded does not count any more
        with pytest.raises(StudioError, match="me.avatar"):
            previews.open(path)
        with pytest.raises(StudioError, match="gone.take"):
            previews.draw(tmp_path / "gone.take", [], 0, False)
        assert previews._child.wait(20) == 0
    finally:
        previews.close()
    with pytest.raises(StudioError):  # a closed one starts nothing
        previews.open(path)


def test_a_draft_is_the_largest_picture_that_is_quick(tiny_avatar, take):
    net = Generator(256, z_dim=16, w_dim=16, mapping_layers=2, channel_base=256, channel_max=8)
    opened = Opened(SimpleNamespace(generator=net), take, "auto", None)
    assert opened.draft_size() == 256  # not measured yet
    opened.seconds |= {256: 3 * QUICK}
    assert opened.draft_size() == 128
    opened.seconds |= {128: 2 * QUICK, 64: 2 * QUICK}
    assert opened.draft_size() == 64
    opened.seconds[128] = QUICK / 2
    assert opened.draft_size() == 128


def test_edits_are_in_the_order_of_the_command():
    names = [edit["name"] for edit in edits_of([KEYED, SMILE, {**KEYED, "name": "a"}, {**SMILE, "name": "b"}])]
    assert names == ["smile", "b", "yaw", "a"]
    assert edits_of([{**SMILE, "strength": 1, "more": 7}]) == [{"name": "smile", "strength": 1.0, "edge": "project"}]


def test_titles_are_words():
    assert (title_of("gaze_x"), title_of("my_own"), title_of("_")) == ("Gaze, sideways", "My own", "")


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_ends_with_the_server(room):
    before = room.ask([SMILE]).content
    room.studio.previews._child.kill()
    assert room.ask([SMILE]).content == before
    child = room.studio.previews._child
    child.stdin.close()  # as when the server is killed
    assert child.wait(20) == 0
