"""Deletion removes the listed folders, keeps the others, and stops at foreign files."""

import dataclasses
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from killing import killed_after

from mystudio.cli import cli
from mystudio.errors import ArtifactBusy, BadArtifact
from mystudio.storage import artifacts, products, removal, workspace
from mystudio.types import Avatar, Edit
from selfscan.types import Consent, Coverage, Scan


def a_scan() -> Scan:
    rng = np.random.default_rng(0)
    return Scan(
        rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8),
        rng.random((2, 478, 3), dtype=np.float32),
        np.array([3, 9]),
        rng.random(2, dtype=np.float32),
        {},
        Coverage({}, {}),
        Consent("Ada Example", "I am this person", "2026-01-01T00:00:00Z", "ab" * 32),
        "face",
    )


def make(path: Path, artifact, settings=None, **inputs: Path) -> Path:
    with workspace.stage(path, artifacts.KINDS[type(artifact)], inputs, settings or {}) as run:
        artifacts.save(artifact, run)
    return path


@pytest.fixture
def home(tmp_path, tiny_avatar, performance, take, driving_clip) -> Path:
    """Ada's work: a scan, two avatars of it, takes, an edit, a report, a clip; and somebody else's avatar and take."""
    home = tmp_path / "work é"
    home.mkdir()
    for name in ("me.mp4", "driver.mp4", "agrees.mp4"):
        shutil.copy(driving_clip, home / name)
    scan = make(home / "me.scan", a_scan(), video=home / "me.mp4", consent_clip=home / "agrees.mp4")
    make(home / "me.avatar", tiny_avatar, scan=scan)
    make(home / "sharp.avatar", dataclasses.replace(tiny_avatar, info={"steps": 2}), scan=scan)
    make(home / "other.avatar", dataclasses.replace(tiny_avatar, info={"steps": 3}))
    acted = make(home / "driver.performance", performance, video=home / "driver.mp4")
    make(home / "hello.take", take, avatar=home / "me.avatar", performance=acted)
    smile = dataclasses.replace(take, edits=(Edit("smile"),))
    make(home / "smile.take", smile, take=home / "hello.take", avatar=home / "me.avatar", performance=acted)
    make(home / "theirs.take", take, avatar=home / "other.avatar", performance=acted)
    with workspace.stage(home / "report", "report", {"avatar": home / "me.avatar"}, {}) as run, run.writing() as place:
        (place / "report.html").write_text("pictures of Ada")
    with products.product(home / "hello.mp4", {"avatar": home / "me.avatar"}, {}):
        (home / "hello.mp4").write_bytes(b"a clip")
    workspace.journal(home / "me.avatar", "key")
    (home / ".me.avatar.old").mkdir()
    (home / ".me.avatar.old" / "generator.safetensors").write_bytes(b"older weights")
    (home / "notes.txt").write_text("mine")
    return home


def delete(*words, code=0, answer=None):
    result = CliRunner().invoke(cli, ["avatar", "delete", *map(str, words)], input=answer, prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.exception)
    return result


def tree(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def told(result, home: Path) -> tuple[set[str], list[str]]:
    answer = json.loads(result.stdout.splitlines()[-1])
    return {str(Path(item["path"]).relative_to(home)) for item in answer["removed"]}, answer["left"]


@pytest.mark.parametrize(
    "options, gone",
    [
        ([], {"me.avatar", "me.avatar.partial", ".me.avatar.old"}),
        (["--with-scan"], {"me.avatar", "me.avatar.partial", ".me.avatar.old", "me.scan"}),
        (["--with-takes"], {"me.avatar", "me.avatar.partial", ".me.avatar.old", "hello.take", "smile.take", "report"}),
        (
            ["--with-scan", "--with-takes"],
            {"me.avatar", "me.avatar.partial", ".me.avatar.old", "me.scan", "hello.take", "smile.take", "report"},
        ),
    ],
)
def test_exactly_what_is_told_is_gone(home, options, gone):
    before = tree(home)
    bytes_before = sum((home / name).stat().st_size for name in before)
    result = delete(home / "me.avatar", *options, "--yes", "--json")
    removed, left = told(result, home)
    after = tree(home)
    assert removed == gone
    assert before - after == {name for name in before if name.split("/")[0] in gone} and after < before
    assert not any((home / name).exists() for name in gone)
    items = json.loads(result.stdout.splitlines()[-1])["removed"]
    assert sum(item["files"] for item in items) == len(before - after)
    assert sum(item["bytes"] for item in items) == bytes_before - sum((home / n).stat().st_size for n in after)
    text = " ".join(left)
    assert "hello.mp4 (a rendered clip)" in text and "me.mp4 (the recording" in text
    assert "agrees.mp4 (the clip of consent)" in text and "sharp.avatar" in text
    assert ("me.scan (the scan" in text) == ("--with-scan" not in options)
    assert ("smile.take (a take" in text) == ("--with-takes" not in options)
    assert "theirs.take" not in text and "other.avatar" not in text


def test_the_scan_goes_too_unless_another_avatar_needs_it_or_one_says_so(home):
    assert "me.scan" not in told(delete(home / "sharp.avatar", "--yes", "--json"), home)[0]
    removed, left = told(delete(home / "me.avatar", "--keep-scan", "--yes", "--json"), home)
    assert "me.scan" not in removed and any("me.scan (the scan" in text for text in left)
    again = make(home / "me.avatar", artifacts.load(home / "other.avatar", Avatar), scan=home / "me.scan")
    assert told(delete(again, "--yes", "--json"), home)[0] == {"me.avatar", "me.scan"}


def test_it_asks_and_anything_but_yes_removes_nothing(home):
    before = tree(home)
    for answer in ("n\n", "", "\n"):
        result = delete(home / "me.avatar", "--with-scan", code=1, answer=answer)
        assert "nothing was removed" in result.stderr and "would remove" in result.stdout
        assert "me.scan (scan, 5 files" in result.stdout
    assert tree(home) == before
    assert "removed: " in delete(home / "me.avatar", answer="y\n").stdout
    assert not (home / "me.avatar").exists()


def test_takes_elsewhere_are_found_where_one_says(home, take, tmp_path):
    far = make(tmp_path / "far" / "late.take", take, avatar=home / "me.avatar", performance=home / "driver.performance")
    shutil.move(home / "me.scan", tmp_path / "far" / "moved.scan")
    result = delete(home / "me.avatar", "--with-scan", "--with-takes", "--in", far.parent, "--yes", "--json")
    removed = {Path(item["path"]).name for item in json.loads(result.stdout)["removed"]}
    assert {"late.take", "moved.scan", "hello.take"} <= removed
    assert os.listdir(far.parent) == []


def test_takes_of_another_copy_stay(home):
    shutil.copytree(home / "me.avatar", home / "copy.avatar")
    result = delete(home / "copy.avatar", "--with-takes", "--yes", "--json")
    assert told(result, home)[0] == {"copy.avatar"}
    assert (home / "hello.take").exists()


def test_a_strangers_file_a_link_and_a_writer_stop_it(home):
    before = tree(home)
    (home / "me.avatar" / "diary.txt").write_text("mine")
    with pytest.raises(BadArtifact, match="diary.txt"):
        removal.plan(home / "me.avatar")
    (home / "me.avatar" / "diary.txt").unlink()
    (home / "link.avatar").symlink_to(home / "me.avatar")
    with pytest.raises(BadArtifact, match="is a link"):
        removal.plan(home / "link.avatar")
    (home / "link.avatar").unlink()
    planned = removal.plan(home / "me.avatar", with_scan=True)
    with workspace.lock(home / "me.avatar"):
        with pytest.raises(ArtifactBusy):
            removal.carry_out(planned)
    assert tree(home) == before
    for name in ("me.scan", "hello.take", "driver.mp4"):
        assert "avatar" in delete(home / name, "--yes", code=1).stderr
    missing = delete(home / "nowhere", "--yes", code=1).stderr
    assert "does not exist; give the folder that `mystudio personalize` made" in missing
    assert tree(home) == before


def test_killed_at_any_moment_the_same_command_goes_on(home, tmp_path):
    gone = {"me.avatar", "me.scan", "hello.take", "smile.take", "report"}
    before = tree(home)
    words = {name: {n for n in before if n.startswith(f"{name}/")} for name in gone}

    def remove(place=home):
        removal.carry_out(removal.plan(place / "me.avatar", with_scan=True, with_takes=True))

    shutil.copytree(home, tmp_path / "copy")
    full = killed_after(None, remove, tmp_path / "copy")
    assert not (tmp_path / "copy" / "me.avatar").exists()
    rng = random.Random(1)
    for _ in range(15):
        if not (home / "me.avatar").exists():
            break
        killed_after(rng.uniform(0.3, 1) * full, remove, home)
        now = tree(home)
        for name in gone:  # complete or removed, and the avatar last
            assert words[name] <= now or not any(n.startswith(f"{name}/") for n in now)
        assert (home / "me.avatar").exists() or not any((home / name).exists() for name in gone)
    if (home / "me.avatar").exists() or (home / ".me.avatar.deleted").exists():
        remove()
    left = {name for name in tree(home) if not name.endswith(".lock")}
    assert left == {n for n in before if n.split("/")[0] not in gone | {".me.avatar.old", "me.avatar.partial"}}


def test_what_a_kill_left_goes_with_the_next_deletion(home):
    os.rename(home / "hello.take", home / ".hello.take.deleted")  # killed after the first rename of a deletion
    result = delete(home / "me.avatar", "--with-takes", "--yes", "--json")
    assert {".hello.take.deleted", "smile.take", "me.avatar"} <= told(result, home)[0]
    os.rename(home / "other.avatar", home / ".other.avatar.deleted")  # killed before the last step
    (home / ".other.avatar.deleted" / "manifest.json").unlink()
    result = delete(home / "other.avatar", "--yes", "--json")
    assert told(result, home)[0] == {".other.avatar.deleted"}
    assert not list(home.glob(".*.deleted"))
