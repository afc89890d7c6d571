"""A new engine works with every command after adding one folder and one line; no other code names it."""

import json
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mystudio.cli import cli
from mystudio.demo import FOLDER as DEMO
from mystudio.storage.artifacts import engine_of, load
from mystudio.types import Avatar, Take
from selfscan.io import video

ROOT = Path(__file__).parents[3]
CONSENT = ("--i-am-the-person-or-have-consent", "Ada")


def run(*words, code: int = 0) -> dict:
    """Run a command with --json and return its answer."""
    result = CliRunner().invoke(cli, [*map(str, words), "--json"], prog_name="mystudio")
    assert result.exit_code == code, (words, result.output, result.stderr, result.exception)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a scan clip and a driving clip, cut from the demo's."""
    folder = tmp_path_factory.mktemp("studio")
    for source, name, every, count in (("scan.mp4", "me.mp4", 10, 16), ("driver.mp4", "driver.mp4", 3, 8)):
        timed = list(islice(video.read(DEMO / source), 0, every * count, every))
        video.write(folder / name, [frame for _, frame in timed], [time for time, _ in timed])
    return folder


def test_a_new_engine_passes_the_whole_command_line(place):
    scan, avatar, take = place / "me.scan", place / "me.avatar", place / "hello.take"
    run("scan", place / "me.mp4", "-o", scan, *CONSENT, "--fictional", "--frames", 12, "--size", 128)
    made = run("personalize", scan, "-o", avatar, "--engine", "frozen", "--option", "frozen.look.images=8")
    assert made["engine"] == engine_of(avatar) == "frozen" and made["edits"] == []
    run("reenact", avatar, place / "driver.mp4", "-o", take)
    assert list(load(take, Take).codes) == ["w"] and len(load(take, Take)) == 8

    refused = run("edit", take, "-o", place / "smiling.take", "--set", "smile=1", code=1)
    assert refused["error"].startswith("the engine 'frozen' has no edits") and not (place / "smiling.take").exists()
    assert run("edit", "list", avatar)["edits"] == []

    for view in ("aligned", "side-by-side", "paste"):
        run("render", take, "-o", place / f"{view}.mp4", "--view", view)
        pictures = [frame for _, frame in video.read(place / f"{view}.mp4")]
        assert len(pictures) == 8 and np.ptp(pictures[0]) > 100
    run("evaluate", take, "-o", place / "report")
    told = json.loads((place / "report" / "metrics.json").read_text())
    assert told["facts"]["engine"] == "frozen" and told["facts"]["generator"] == "128 px"
    assert (place / "report" / "report.html").stat().st_size > 10_000

    live = run("live", avatar, "--driver", place / "driver.mp4", "-o", place / "live.mp4", "--no-window")
    assert live["frames"] == 8 and live["outcomes"].get("followed") == 8

    run("avatar", "pack", avatar, "-o", place / "me.zip")
    run("avatar", "unpack", place / "me.zip", "-o", place / "again.avatar")
    assert load(place / "again.avatar", Avatar).engine == "frozen"
    run("avatar", "delete", avatar, "--with-takes", "--with-scan", "--yes")
    assert not avatar.exists() and not take.exists() and not scan.exists() and (place / "again.avatar").exists()


def test_an_engine_is_added_by_one_folder_and_one_line():
    lines = [
        (path.relative_to(ROOT).as_posix(), line.strip())
        for top in ("mystudio", "selfscan", "tests", "recipes")
        for path in sorted((ROOT / top).rglob("*.py"))
        if "frozen_engine" not in path.parts and path != Path(__file__)
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"[\"']frozen_engine[\"']", line)
    ]
    line = 'patch.setitem(engines.ENGINES, "frozen", "frozen_engine")'
    assert lines == [("tests/mystudio/engines/conftest.py", line)]
    package = (ROOT / "mystudio" / "engines" / "__init__.py").read_text(encoding="utf-8")
    assert len(re.findall(r'"mystudio\.engines\.personal"', package)) == 1  # the package's own engine: one line too
