"""`mystudio scan` with several clips of one person: photos here, as they are quick."""

import json

import cv2
import pytest
from click.testing import CliRunner

from mystudio.cli import cli
from mystudio.demo import FOLDER
from mystudio.inspection.inspect import inspect
from mystudio.storage.artifacts import load, save
from mystudio.storage.manifest import digest, open_folder
from mystudio.storage.removal import plan
from mystudio.storage.workspace import stage
from selfscan.io import video
from selfscan.types import Scan

CONSENT = ("--i-am-the-person-or-have-consent", "Ada Nobody", "--fictional")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of the demo person, one with a turned head, and one of another person, from the packaged clips."""
    folder = tmp_path_factory.mktemp("photos")
    frames = {"scan.mp4": {0: "a.png", 10: "b.png", 30: "turned.png"}, "driver.mp4": {0: "other.png"}}
    for clip, wanted in frames.items():
        for index, (_, frame) in enumerate(video.read(FOLDER / clip)):
            if index in wanted:
                cv2.imwrite(str(folder / wanted[index]), frame[..., ::-1])
    return folder


def run(*words, code=0):
    result = CliRunner().invoke(cli, [*map(str, words), "--json"], prog_name="mystudio")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_the_manifest_and_the_answer_name_every_clip(photos, tmp_path):
    out, pair = tmp_path / "me.scan", [photos / "a.png", photos / "b.png"]
    said = run("scan", *pair, "-o", out, *CONSENT, "--size", 64)
    assert said["clips"] == [{"video": "a.png", "images": 1}, {"video": "b.png", "images": 1}]
    inputs = open_folder(out, "scan").manifest.inputs
    assert [inputs[name].digest for name in ("video", "video_2")] == [digest(path) for path in pair]
    assert load(out, Scan).consent.digests == tuple(digest(path) for path in pair)
    assert inspect(out).facts["images"] == 2
    before = out.stat().st_ino
    words = ["scan", *map(str, pair), "-o", str(out), *CONSENT, "--size", "64"]
    told = CliRunner().invoke(cli, words, prog_name="mystudio").stdout
    assert out.stat().st_ino == before and "2 images of 64 px (1 of a.png, 1 of b.png)" in told  # up to date


def test_a_deletion_names_every_recording_that_stays(photos, tmp_path, tiny_avatar):
    scan, avatar = tmp_path / "me.scan", tmp_path / "me.avatar"
    run("scan", photos / "a.png", photos / "b.png", "-o", scan, *CONSENT, "--size", 64)
    with stage(avatar, "avatar", {"scan": scan}, {}) as made:
        save(tiny_avatar, made)
    stays = [line for line in plan(avatar).left if "the recording of the scan" in line]
    assert len(stays) == 2 and "a.png" in stays[0] and "b.png" in stays[1]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a.png", "other.png"), "other.png: expected the person of"),
        (("a.png", "turned.png"), "turned.png: expected a face from the front"),
        (("a.png", "b.png", "a.png"), "a.png has the content of a clip before it"),
        (("a.png",) * 9, "expected 1 to 8 clips of one person, got 9"),
        (("a.png", "nowhere.png"), "nowhere.png does not exist"),
    ],
)
def test_clips_that_do_not_go_together_are_refused_in_one_sentence(photos, tmp_path, names, told):
    said = run("scan", *(photos / name for name in names), "-o", tmp_path / "x", *CONSENT, "--size", 64, code=1)
    assert told in said["error"] and not list(tmp_path.iterdir())
