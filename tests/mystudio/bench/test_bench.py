"""The parts of the benchmark: the ledger, tables, cut clips, the ceiling, costs."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from mystudio.bench import ablation, clips, comparison
from mystudio.bench.child import Clock
from mystudio.bench.ledger import Ledger
from mystudio.bench.personal.ceiling import FitSettings, fit
from mystudio.bench.sheet import HEAD, LABEL, TILE, contact_sheet
from mystudio.bench.studio import PLAIN, STRAIGHT, Person, Studio, Variant
from mystudio.bench.tables import Column, Table, cell, commands, markdown, write_tables
from mystudio.engines.personal.state import state_of
from mystudio.errors import BadArtifact
from selfscan.io import video
from selfscan.perceptual.metric import load_perceptual


def counting(values):
    calls = []

    def run(steps):
        calls.append(1)
        steps.append("mystudio evaluate x.take -o x.report")
        return values

    return run, calls


def test_what_was_measured_with_equal_settings_is_not_measured_again(tmp_path):
    run, calls = counting({"psnr": np.float32(20.123456789), "ssim": float("nan")})
    first = Ledger(tmp_path, "mystudio bench real").measure("real/a/plain", {"steps": 6}, {"table": "self"}, run)
    assert first["new"] and first["values"] == {"psnr": 20.1235, "ssim": None}
    later = Ledger(tmp_path)
    again = later.measure("real/a/plain", {"steps": 6}, {"table": "self"}, run)
    assert not again["new"] and len(calls) == 1
    assert again["command"] == "mystudio bench real" and again["steps"] == ["mystudio evaluate x.take -o x.report"]
    assert later.measure("real/a/plain", {"steps": 7}, {"table": "self"}, run)["new"] and len(calls) == 2
    assert Ledger(tmp_path, again=True).measure("real/a/plain", {"steps": 7}, {}, run)["new"] and len(calls) == 3
    assert len(Ledger(tmp_path).rows("real")) == 1 and not Ledger(tmp_path).rows("actors")


def test_a_failure_is_told_and_tried_again(tmp_path):
    def fails(steps):
        raise RuntimeError("no\nface")

    ledger = Ledger(tmp_path)
    assert ledger.measure("real/a/plain", {}, {"table": "self"}, fails)["error"] == "RuntimeError: no face"
    assert ledger.failures(["real/a/plain", "real/b/plain"]) == ["real/a/plain: RuntimeError: no face"]
    run, calls = counting({"psnr": 1.0})
    later = Ledger(tmp_path)
    assert later.measure("real/a/plain", {}, {"table": "self"}, run)["new"] and calls
    assert not later.failures(["real/a/plain"])


def test_a_killed_writer_costs_one_row_and_a_foreign_line_is_refused(tmp_path):
    run, _ = counting({"psnr": 1.0})
    ledger = Ledger(tmp_path)
    ledger.measure("real/a/plain", {}, {"table": "self"}, run)
    with open(ledger.path, "a") as file:
        file.write('{"key": "real/b/pl')
    later = Ledger(tmp_path)
    assert [row["key"] for row in later.rows()] == ["real/a/plain"]
    later.measure("real/b/plain", {}, {"table": "self"}, run)
    assert [row["key"] for row in Ledger(tmp_path).rows()] == ["real/a/plain", "real/b/plain"]
    ledger.path.write_text("[1, 2]\n" + ledger.path.read_text())
    with pytest.raises(BadArtifact, match="line 1 is no measurement"):
        Ledger(tmp_path)


def test_a_table_shows_what_was_measured_and_every_rows_commands(tmp_path):
    ledger = Ledger(tmp_path, "mystudio bench real -o out")
    measured = {"plain": {"psnr": 20.126, "ssim": None, "metric": "lpips-squeeze"}, "straight": {"psnr": 19}}
    for name, values in measured.items():

        def run(steps, values=values, name=name):
            steps += ["mystudio scan", f"make {name}"]
            return values

        ledger.measure(f"real/a/{name}", {}, {"table": "self", "scan": "a|b", "codes": name}, run)
    table = Table("real", "self", "Self", (Column("psnr", "PSNR"), Column("ssim", "SSIM")), "Note.")
    lines = markdown(table, ledger.rows()).splitlines()
    assert lines[:4] == ["## Self", "", "Note.", "Perceptual metric: lpips-squeeze."]
    assert lines[5:9] == [
        "|  | scan | codes | PSNR |",
        "| ---: | --- | --- | ---: |",
        "| 1 | a/b | plain | 20.13 |",
        "| 2 | a/b | straight | 19.00 |",
    ]
    told = commands(ledger.rows()).splitlines()
    assert "- 1: `mystudio scan`; `make plain`" in told and "- 2: `make straight`" in told
    assert any("`mystudio bench real -o out`" in line for line in told)
    assert "held-out seconds" in write_tables(ledger, tmp_path / "tables.md") == (tmp_path / "tables.md").read_text()
    assert cell(None, 2) == "–" and cell(3.14159, 0) == "3"


def pattern(t: int) -> np.ndarray:
    return np.full((48, 64, 3), 40 + 15 * t % 180, np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "clip.mp4"
    video.write(path, (pattern(t) for t in range(55)), np.arange(55) / 5, crf=1)
    return path


def test_held_out_seconds_keep_their_frames_and_time_stamps(clip, tmp_path):
    out = clips.held_out(clip, tmp_path / "held.mp4")
    seen, whole = list(video.read(out)), list(video.read(clip))
    wanted = [t for t in range(55) if 4 <= t / 5 < 5 or 9 <= t / 5 < 10]
    assert len(seen) == len(wanted) == 10
    shift = seen[0][0] - whole[wanted[0]][0]
    assert np.allclose([t for t, _ in seen], [whole[k][0] + shift for k in wanted], atol=1e-3)
    assert max(abs(f.astype(int) - whole[k][1]).max() for (_, f), k in zip(seen, wanted)) <= 6
    times = np.array([t for t, _ in seen])
    assert clips.cuts(times).tolist() == [False] * 4 + [True] + [False] * 4
    assert np.flatnonzero(comparison.beside_cuts(times)).tolist() == [4, 5]


def test_a_clip_played_for_long_never_jumps(clip, tmp_path):
    seen = list(video.read(clips.played_for(clip, tmp_path / "long.mp4", 60, stock=9)))
    grey = np.array([frame.mean() for _, frame in seen])
    assert len(seen) == 60 and np.abs(np.diff(grey)).max() < 20 and not clips.cuts(np.array([t for t, _ in seen])).any()
    first = list(video.read(clips.first_seconds(clip, tmp_path / "first.mp4", 2.0)))
    assert len(first) == 10


def test_a_contact_sheet_has_a_row_for_each_take(tmp_path):
    rows = {
        "driver": np.full((3, 32, 32, 3), 50, np.uint8),
        "start codes, not solved": np.full((3, 64, 64, 3), (200, 0, 0), np.uint8),
    }
    path = contact_sheet(tmp_path / "a" / "sheet.png", rows, [0, 0.5, 1])
    image = cv2.imread(str(path))[..., ::-1]
    assert image.shape == (HEAD + 2 * TILE, LABEL + 3 * TILE, 3)
    assert tuple(image[-5, -5]) == (200, 0, 0) and tuple(image[HEAD + 5, LABEL + 5]) == (50, 50, 50)
    with pytest.raises(ValueError, match="expected 3 pictures"):
        contact_sheet(path, {"driver": rows["driver"][:2]}, [0, 0.5, 1])


def test_the_ceiling_finds_pictures_that_the_avatar_can_draw(tiny_avatar):
    torch.manual_seed(3)
    space, perceptual = state_of(tiny_avatar).space, load_perceptual("face")
    truth = 0.7 * torch.randn(3, tiny_avatar.generator.num_ws, space.rank)
    with torch.no_grad():
        images = tiny_avatar.generator(space.decode(truth))
    start = torch.zeros_like(truth)
    alone, before = fit(tiny_avatar, images, start, perceptual, FitSettings(steps=0))
    codes, after = fit(tiny_avatar, images, start, perceptual, FitSettings(steps=60, batch=2))
    assert torch.equal(alone, start) and codes.shape == truth.shape
    assert (after < 0.1 * before).all()
    _, exact = fit(tiny_avatar, images, truth, perceptual, FitSettings(steps=5))
    assert float(exact.max()) < 1e-6  # never worse than its start


def test_against_the_truth_itself_nothing_is_wrong(shared, tmp_path):
    from mystudio.evaluation.observers import EvaluationNets
    from selfscan.face.facemesh import crop_landmarks, load_facemesh
    from selfscan.io.pixels import to_tensor

    face = cv2.cvtColor(cv2.imread(str(shared / "faces256" / "00004.jpg")), cv2.COLOR_BGR2RGB)[None]
    with torch.no_grad():
        marks = crop_landmarks(load_facemesh(), to_tensor(face))[0].numpy()
    perceptual, nets = load_perceptual("face"), EvaluationNets(None, None)
    same = comparison.against_truth(face, face, marks, nets, perceptual)
    assert same["psnr"] == 100 and same["ssim"] == pytest.approx(1) and same["perceptual"] == 0
    assert max(same[name] for name in ("keypoints", "pose", "expression", "gaze")) < 1e-3
    soft = comparison.against_truth(cv2.GaussianBlur(face[0], (0, 0), 3)[None], face, marks, nets, perceptual)
    assert soft["psnr"] < 40 and soft["perceptual"] > 0.01


def test_a_variant_that_changes_nothing_is_made_once(tmp_path, shared):
    studio = Studio(tmp_path)
    person, driver = Person("a", shared / "clips" / "scan-glasses.mp4", "nobody"), tmp_path / "d.mp4"
    frames = studio.resolved(person).scan.frames
    same, other = (Variant(f"frames{n}", "", (f"scan.frames={n}",)) for n in (frames, frames + 1))
    assert studio.take_path(person, driver, same) == studio.take_path(person, driver) == tmp_path / "a-by-d.take"
    assert studio.take_path(person, driver, other).name == f"a-by-d-frames{frames + 1}.take"
    assert studio.take_path(person, driver, STRAIGHT).name == "a-by-d-straight.take"
    assert studio.settings(person) != studio.settings(person, STRAIGHT)
    assert len({json.dumps(studio.settings(person, v)) for v in (PLAIN, same)}) == 1


def test_every_ablation_changes_the_recipe(tmp_path, shared):
    studio, person = Studio(tmp_path), Person("a", shared / "clips" / "scan-glasses.mp4", "nobody")
    plain = studio.resolved(person)
    changed = {v.name for v in ablation.VARIANTS if studio.resolved(person, v) != plain}
    assert {"no-pixels", "no-temporal", "no-parts", "half-keypoints", "straight", "frames30", "frames250"} <= changed
    assert [v.name for v in ablation.chosen(("no-parts",))] == ["plain", "no-parts"]


def test_costs_are_told_by_phase():
    clock = Clock(iter([(t, t / 2) for t in (0.0, 1.0, 5.0, 7.0, 9.0, 10.0)]).__next__)
    clock("track", 2, 2)
    for step in (1, 2, 3):
        clock("tune", step, 3)
    clock("samples", 4, 4)
    costs = clock.costs()
    assert costs["track"] == {"units": 2, "seconds": 0.5, "cpu_seconds": 0.25}
    assert costs["tune"] == {"units": 2, "seconds": 2.0, "cpu_seconds": 1.0}  # excludes the set-up before the first
    assert costs["samples"] == {"units": 4, "seconds": 0.25, "cpu_seconds": 0.125}


def test_the_peak_of_memory_sees_a_block_that_is_gone():
    code = (
        "import numpy as np\nfrom mystudio.bench.child import peak_mb\n"
        "before = peak_mb()\nblock = np.ones(300 << 20, np.uint8)\ndel block\nprint(before, peak_mb())"
    )  # a process of its own: what other tests took before is in the peak of this one
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    before, after = map(float, done.stdout.split())
    assert before + 100 < after < before + 2000
