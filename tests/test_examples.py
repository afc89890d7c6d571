"""The programs in docs/examples run, on short parts of the demo's clips and with the smallest settings."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import mystudio
from mystudio.demo import FOLDER as DEMO
from mystudio.errors import BadArtifact
from mystudio.rendering.render import synthesize
from selfscan.face.facemesh import load_facemesh
from selfscan.face.observe import measure
from selfscan.io import video
from selfscan.io.pixels import to_uint8

EXAMPLES = Path(__file__).parents[1] / "docs/examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
RECIPE = """
[scan]
frames = 10
size = 128
embed_size = 64
perceptual = "face"
[personalize]
steps = 2
batch = 2
patience = 0
resolution = 0
width = 0
[regress]
samples = 48
rank = 12
steps = 20
[reenact]
steps = 1
"""
SECONDS = 0.24  # of the driving clip


def example(name: str) -> ModuleType:
    """Import an example as a module; its ``main`` does the work of the program."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cut(name: str, every: int, count: int, out: Path) -> Path:
    frames = list(islice(video.read(DEMO / name), 0, every * count, every))
    video.write(out, [frame for _, frame in frames], [time for time, _ in frames])
    return out


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Path:
    """Return a folder with clips, a recipe and the results of the first example."""
    place = tmp_path_factory.mktemp("studio")
    (place / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    cut("scan.mp4", 16, 18, place / "me.mp4")
    (place / "clips").mkdir()
    driver = cut("driver.mp4", 1, int(SECONDS * 25), place / "clips/driver.mp4")
    clip = example("01_five_verbs").main(place / "me.mp4", driver, place, place / "tiny.toml")
    assert clip == place / "hello.mp4"
    return place


def test_examples_are_numbered_and_say_how_they_run():
    assert [name[:2] for name in NAMES] == [f"{number:02}" for number in range(1, len(NAMES) + 1)]
    for name in NAMES:
        source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        assert f"python docs/examples/{name}.py" in ast.get_docstring(ast.parse(source)), name


def test_five_verbs(studio):
    clip = video.probe(studio / "hello.mp4")
    assert (clip.width, clip.height) == (2 * clip.height, clip.height)
    before, after = (mystudio.load(studio / name, mystudio.Take) for name in ("hello.take", "smiling.take"))
    assert len(before) == len(after) == int(SECONDS * 25)
    assert [edit.name for edit in after.edits] == ["smile", "gaze_x"]
    assert json.loads((studio / "report/metrics.json").read_text(encoding="utf-8"))["metrics"]
    for name, kind in {"me.scan": mystudio.Scan, "me.avatar": mystudio.Avatar, "hello.take": mystudio.Take}.items():
        assert isinstance(mystudio.load(studio / name), kind)
    with pytest.raises(BadArtifact, match="is a report, expected one of scan, performance, avatar, take"):
        mystudio.load(studio / "report")
    with pytest.raises(BadArtifact, match="is a take, expected an avatar"):
        mystudio.load(studio / "hello.take", mystudio.Avatar)


def test_folder_of_clips(studio, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a driver.mp4").write_bytes((studio / "clips/driver.mp4").read_bytes())
    grey = [np.full((64, 64, 3), 128, np.uint8)] * 5
    video.write(tmp_path / "clips/nobody.mp4", grey, [0.04 * n for n in range(5)])
    (tmp_path / "clips/text.mp4").write_text("no video")
    found = example("02_folder_of_clips").main(
        str(studio / "me.avatar"), str(tmp_path / "clips"), str(tmp_path / "made"), studio / "tiny.toml"
    )
    rows = list(csv.DictReader(found.read_text(encoding="utf-8").splitlines()))
    assert [row["clip"] for row in rows] == ["a driver.mp4", "nobody.mp4", "text.mp4"]
    assert [int(row["frames"]) for row in rows] == [int(SECONDS * 25), 0, 0]
    assert [bool(row["problem"]) for row in rows] == [False, True, True]
    assert video.probe(tmp_path / "made/a driver.mp4").height > 0


def mouth_widths(avatar: Path, take: Path) -> np.ndarray:
    """Width of the mouth [T] in distances of the outer corners of the eyes, in the pictures of a take."""
    batches = synthesize(mystudio.load(avatar, mystudio.Avatar), mystudio.load(take, mystudio.Take))
    marks, _ = measure(load_facemesh(), np.concatenate([to_uint8(batch) for batch in batches]))
    mouth, eyes = (np.linalg.norm(marks[:, a] - marks[:, b], axis=-1) for a, b in ((61, 291), (33, 263)))
    return mouth / eyes


def test_own_directions(studio, tmp_path):
    clip = example("03_own_directions").main(studio / "me.avatar", studio / "hello.take", tmp_path)
    assert video.probe(clip).height > 0
    before, after = (
        mouth_widths(studio / "me.avatar", take) for take in (studio / "hello.take", tmp_path / "narrow.take")
    )
    assert after[0] == pytest.approx(before[0], rel=1e-3)  # the strength starts at zero
    assert after[-2:].mean() < 0.97 * before[-2:].mean(), (before, after)


def test_own_engine_runs_as_a_program(studio, tmp_path):
    command = [sys.executable, EXAMPLES / "04_own_engine.py", studio / "me.scan", studio / "clips/driver.mp4", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "lookup.mp4") and video.probe(tmp_path / "lookup.mp4").height > 0


def test_take_to_numpy(studio, tmp_path, capsys):
    found = np.load(example("05_take_to_numpy").main(str(studio / "hello.take"), str(tmp_path / "hello.npz")))
    frames = int(SECONDS * 25)
    assert all(len(found[name]) == frames for name in found)
    assert found["pictures"].shape == (frames, 128, 128, 3) and found["pictures"].dtype == np.uint8
    assert found["driver_landmarks"].shape == (frames, 478, 3) and found["codes_axes"].ndim == 3
    assert "no_face" in capsys.readouterr().out
