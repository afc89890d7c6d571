"""A base from the command line: train, resume, export, sheet, evaluate; and one sentence for each error."""

import json

import cv2
import pytest
from base_runs import make_data
from click.testing import CliRunner

from mystudio.cli import cli

RECIPE = """
[model]
resolution = 32
z_dim = 8
w_dim = 8
mapping_layers = 2
channel_base = 128
channel_max = 8
[supervised]
kimg = 0.016
batch = 8
perceptual = 0.1
[adversarial]
kimg = 0.016
batch = 8
wait_kimg = 0
[adversarial.augment]
start = 0.5
[train]
tick_kimg = 0.008
sheet_every = 1
"""


def run(*words, code=0):
    """Run a command in this process."""
    result = CliRunner().invoke(cli, [str(word) for word in words], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("bases")
    make_data(place / "data", 32)
    (place / "tiny.toml").write_text(RECIPE)
    return place


@pytest.fixture(scope="module")
def trained(place):
    """A run and the base exported from it."""
    run(
        "base",
        "train",
        "-o",
        place / "run",
        "--recipe",
        place / "tiny.toml",
        "--data",
        place / "data" / "faces",
        "--data",
        place / "data" / "actors.npz",
        "--weight",
        1,
        "--weight",
        3,
        "--device",
        "cpu",
    )
    run("base", "export", place / "run", "-o", place / "mine.safetensors", "--info", "terms=ours")
    return place / "mine.safetensors"


def test_training_leaves_metrics_and_sheets(place, trained):
    rows = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == ["supervised"] * 2 + ["adversarial"] * 2
    sheet = cv2.imread(str(place / "run" / "sheets" / "adversarial-000000k.png"))
    assert sheet.shape == (5 * 32, 8 * 32, 3)


def test_the_same_command_finds_a_run_done_and_a_longer_one_goes_on(place, trained):
    words = ("base", "train", "-o", place / "run", "--data", place / "data" / "actors.npz", "--device", "cpu", "--json")
    assert json.loads(run(*words).stdout.splitlines()[-1])["images"] == {"supervised": 16, "adversarial": 16}
    longer = run(*words, "--phase", "adversarial", "--kimg", "0.024")
    assert json.loads(longer.stdout.splitlines()[-1])["images"]["adversarial"] == 24


def test_a_base_can_be_looked_at_and_measured(place, trained):
    run("base", "sheet", trained, "-o", place / "sheet.png")
    assert cv2.imread(str(place / "sheet.png")).shape == (7 * 32, 8 * 32, 3)
    run("base", "sample", trained, "-o", place / "samples", "-n", 3)
    assert len(list((place / "samples").glob("*.png"))) == 3
    told = run(
        "base",
        "evaluate",
        trained,
        "-o",
        place / "eval",
        "--data",
        place / "data" / "actors.npz",
        "--samples",
        16,
        "--device",
        "cpu",
    ).output
    assert "faces found" in told and (place / "eval" / "nearest.png").exists()
    figures = json.loads((place / "eval" / "evaluation.json").read_text())
    assert figures["samples"] == 16 and set(figures["spread"]) >= {"yaw", "gaze_x"}


def test_a_larger_base_starts_from_a_smaller_and_a_packed_run_can_be_sent(place, trained):
    run(
        "base",
        "train",
        "-o",
        place / "large",
        "--recipe",
        place / "tiny.toml",
        "--from",
        trained,
        "--resolution",
        32,
        "--data",
        place / "data" / "actors.npz",
        "--phase",
        "supervised",
        "--kimg",
        "0.008",
        "--device",
        "cpu",
    )
    run("base", "pack", place / "large", "-o", place / "light", "--max-part-mb", "0.1")
    assert all(p.stat().st_size <= 0.1 * 2**20 for p in (place / "light").glob("*.part"))
    run("base", "export", place / "light", "-o", place / "large.safetensors")


@pytest.mark.parametrize(
    "words, told",
    [
        (("train", "-o", "x"), "--data"),
        (("train", "-o", "x", "--data", "nowhere"), "nowhere"),
        (("train", "-o", "x", "--data", "d", "--kimg", "1"), "--phase"),
        (("train", "-o", "x", "--data", "d", "--recipe", "base-face"), "did you mean 'base-faces'"),
        (("train", "-o", "x", "--data", "d", "--option", "adversarial.r2=1"), "did you mean 'r1'"),
        (("export", "nowhere", "-o", "x"), "training run"),
        (("pack", "nowhere", "-o", "x"), "training run"),
    ],
)
def test_what_cannot_be_is_one_sentence(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["base", *words], prog_name="mystudio")
    assert result.exit_code in (1, 2) and told in result.output + result.stderr
    assert "should not happen" not in result.stderr
