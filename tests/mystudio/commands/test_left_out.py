"""`mystudio personalize --without`: images of a scan that training does not see."""

import json

import actor_avatar
import frozen_engine
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mystudio import engines
from mystudio.cli import cli
from mystudio.engines import personal
from mystudio.storage.artifacts import load, load_scan_of, save
from mystudio.storage.manifest import open_folder
from mystudio.storage.workspace import stage
from mystudio.types import Avatar
from selfscan.scan.without import without


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "me.scan"
    with stage(path, "scan", {}, {}) as run:
        save(actor_avatar.scan(6), run)
    return path


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    monkeypatch.setitem(engines.ENGINES, "frozen", frozen_engine.__name__)


def run(*words, code=0):
    result = CliRunner().invoke(cli, [*map(str, words), "--json"], prog_name="mystudio")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_the_avatar_is_that_of_the_images_that_stay_and_names_the_others(scan, tmp_path):
    out, words = tmp_path / "me.avatar", ("--engine", "frozen")
    run("personalize", scan, "-o", out, *words)
    whole = load(out, Avatar)
    assert "without" not in open_folder(out).manifest.settings  # as an avatar of an older version
    run("personalize", scan, "-o", out, *words, "--without", "000030", "--without", 10)
    folder, made = open_folder(out), load(out, Avatar)
    assert folder.manifest.settings["without"] == [10, 30]
    assert folder.source("scan") == scan  # the scan itself stays whole
    fewer = without(actor_avatar.scan(6), [10, 30])
    same = frozen_engine.personalize(fewer, _base(), frozen_engine.PersonalizeSettings())
    assert torch.equal(made.state.look, same.state.look) and not torch.equal(made.state.look, whole.state.look)
    np.testing.assert_array_equal(load_scan_of(out, scan).images, fewer.images)
    before = out.stat().st_ino
    run("personalize", scan, "-o", out, *words, "--without", 10, "--without", 30)
    assert out.stat().st_ino == before  # up to date
    run("personalize", scan, "-o", out, *words)
    assert torch.equal(load(out, Avatar).state.look, whole.state.look)


def test_what_cannot_be_left_out_is_told_in_one_sentence(scan, tmp_path):
    out = tmp_path / "me.avatar"
    told = run("personalize", scan, "-o", out, "--without", 7, code=1)["error"]
    assert told.startswith("image 7: expected the number of an image of the scan, such as 0")
    gone = [word for number in (0, 10, 20) for word in ("--without", number)]
    told = run("personalize", scan, "-o", out, *gone, code=1)["error"]
    assert f"at least {personal.NEEDED} images" in told and "holds 3;" in told
    assert not list(tmp_path.iterdir())


def _base():
    from mystudio.bases import find_base

    return find_base("people128")
