"""bench tuning: an actor's scan, tuned for a few steps, against the images that it does not see."""

import json

import actor_avatar
import pytest
import torch
from click.testing import CliRunner

from mystudio.bench.tuning import fine_energy
from mystudio.cli import cli
from mystudio.motion.losses import FACE
from mystudio.storage import artifacts, workspace
from selfscan.types import Scan

OPTIONS = ("personalize.resolution=0", "personalize.width=0", "personalize.batch=1", "personalize.check_every=1",
           "invert.steps=1")  # fmt: skip


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("tuning") / "five.scan"
    with workspace.stage(path, artifacts.KINDS[Scan], {}, {}) as made:
        artifacts.save(actor_avatar.scan(8), made)
    return path


def run(scan, out, *words, code=0):
    options = [word for option in OPTIONS for word in ("--option", option)]
    words = ["bench", "tuning", scan, "-o", out, "--held-out", 4, "--device", "cpu", *options, *words]
    result = CliRunner().invoke(cli, list(map(str, words)), prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.exception)
    return result


def rows_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_the_command_measures_once_and_goes_on_where_it_was(scan, tmp_path):
    run(scan, tmp_path, "--at", 1)
    run(scan, tmp_path, "--at", 1)
    (first,) = rows_of(tmp_path)
    run(scan, tmp_path, "--at", 1, "--at", 3)
    last = rows_of(tmp_path)[-1]
    assert len(rows_of(tmp_path)) == 2 and last["key"].endswith("/00003")
    assert last["values"]["cpu_seconds"] > first["values"]["cpu_seconds"] > 0
    run(scan, tmp_path / "at-once", "--at", 3)
    (whole,) = rows_of(tmp_path / "at-once")
    assert {**whole["values"], "cpu_seconds": 0} == {**last["values"], "cpu_seconds": 0}  # as if never stopped
    assert len(list(tmp_path.glob("five-*-00003.png"))) == 1
    assert "Tuning: scan images that it does not see" in (tmp_path / "tables.md").read_text()


def test_what_is_no_scan_is_refused(tmp_path):
    assert "x.scan" in run(tmp_path / "x.scan", tmp_path / "out", code=1).stderr


def test_fine_energy_is_of_the_part_alone():
    images = torch.zeros(1, 3, 64, 64)
    images[..., :8, :8] = torch.rand(8, 8)  # outside the face
    assert fine_energy(images, FACE) == 0
    images[..., 32, 32] = 1.0  # a point: 4 in its middle, -1 at four sides
    side = round(0.6 * 64) - 2
    assert fine_energy(images, FACE) == pytest.approx(20 / side**2)
