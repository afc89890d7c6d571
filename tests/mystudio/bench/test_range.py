"""bench range: measures of each side, values of a motion, the share of a gap that is closed, and the command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import selfscan
from mystudio.actors.basis import basis_path
from mystudio.actors.exercise import LACKS, MOTIONS, exercise
from mystudio.bench.ledger import Ledger
from mystudio.bench.range import report, score
from mystudio.bench.range.run import ROWS
from mystudio.bench.range.sides import sided
from mystudio.bench.sheet import COLUMNS
from mystudio.cli import cli
from mystudio.errors import StudioError
from selfscan.face.landmarks import BROWS, IRISES, LID_PAIRS
from selfscan.face.measures import measures

DONE = exercise(fps=10, seed=9)
HEIGHTS = DONE.heights()


# Measures of each side


@pytest.fixture(scope="module")
def face():
    """A neutral face [1, 478, 3]."""
    with np.load(Path(selfscan.__file__).parent / "data" / "neutral.npz") as file:
        return file["landmarks"].astype(np.float64)[None]


def changes(face, moved):
    before, after = sided(face), sided(moved)
    return {name: float(after[name][0] - before[name][0]) for name in before}


@pytest.mark.parametrize(("side", "name", "other"), [(0, "right", "left"), (1, "left", "right")])
def test_a_wink_is_of_one_side(face, side, name, other):
    moved = face.copy()
    for upper, lower in LID_PAIRS[side]:
        moved[:, upper] = moved[:, lower]
    found = changes(face, moved)
    assert sided(moved)[f"lid_{name}"][0] == pytest.approx(0, abs=1e-9)
    assert found[f"lid_{other}"] == pytest.approx(0, abs=1e-9)
    assert found["wink"] == pytest.approx((1, -1)[side] * sided(face)[f"lid_{name}"][0])


@pytest.mark.parametrize(("side", "name", "other"), [(0, "right", "left"), (1, "left", "right")])
def test_a_raised_brow_is_of_one_side(face, side, name, other):
    moved = face.copy()
    moved[:, list(BROWS[5 * side : 5 * side + 5]), 1] -= 0.02
    found = changes(face, moved)
    assert found[f"brow_{name}"] > 0.03 and found[f"brow_{other}"] == pytest.approx(0, abs=1e-9)
    assert found["one_brow"] == pytest.approx((-1, 1)[side] * found[f"brow_{name}"])


def test_eyes_that_cross_differ_and_keep_their_mean(face):
    moved = face.copy()
    moved[:, IRISES[0][0], 0] += 0.01  # both towards the nose; the person's left is on the picture's right
    moved[:, IRISES[1][0], 0] -= 0.01
    found = changes(face, moved)
    assert found["gaze_right_x"] > 0.02 and found["gaze_left_x"] < -0.02
    assert abs(found["gaze_x"]) < 0.1 * found["gaze_right_x"]


def test_the_means_of_both_sides_are_the_known_measures(face):
    faces = np.concatenate([face, face + np.random.default_rng(0).normal(size=face.shape) * 0.003])
    found, known = sided(faces), measures(faces)
    assert np.allclose((found["lid_left"] + found["lid_right"]) / 2, known["eyes_open"])
    assert np.allclose((found["brow_left"] + found["brow_right"]) / 2, known["brows"])
    assert np.allclose((found["gaze_left_x"] + found["gaze_right_x"]) / 2, known["gaze_x"])


# Values of a motion


def acted(share=1.0, bias=0.0):
    """Measures of somebody who does a share of every motion, from a neutral face that differs by ``bias``."""
    names = {"smile", "mouth_open", "yaw", "wink", "one_brow", *score.SIDED, *score.GAZES}
    found = {name: np.full(len(DONE.score), 0.3 + bias) for name in names} | {"yaw": np.zeros(len(DONE.score))}
    for motion, span in DONE.spans.items():
        for name in score.OWN[motion]:
            found[name][span] += share * (-0.3 if "lid" in name else 0.2) * DONE.level
    return found


def values(motion, share, bias=0.0):
    return score.motion_values(
        motion, acted(share, bias), acted(), DONE.spans[motion], HEIGHTS[motion], DONE.rest
    )  # fmt: skip


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_truth_misses_nothing_and_a_still_face_everything(motion):
    whole, half, none = (values(motion, share) for share in (1, 0.5, 0))
    assert (
        whole["range"] == pytest.approx(1) and half["range"] == pytest.approx(0.5) and none["range"] == pytest.approx(0)
    )
    assert (
        whole["missed"] == pytest.approx(0)
        and half["missed"] == pytest.approx(50)
        and none["missed"] == pytest.approx(100)
    )
    assert values(motion, 1, bias=0.1)["range"] == pytest.approx(1)  # another neutral face is no lack of range
    own = [name for name in score.SIDED if name in score.OWN[motion]]
    assert all(half[name] > 0.05 for name in own) and all(whole[name] == 0 for name in score.SIDED)


def test_the_gaze_of_closed_eyes_does_not_count():
    assert np.isnan(values("closed eyes", 1, bias=0.1)["gaze"])
    assert values("smile", 1, bias=0.1)["gaze"] == pytest.approx(0.1)


def test_what_measures_see_of_a_motion():
    true = acted()
    true["smile"] = true["smile"] + np.random.default_rng(0).normal(size=len(DONE.score)) * 0.01
    found = score.seen_change("smile", true, DONE.level, DONE.spans["smile"], DONE.rest)
    assert found["change"] == pytest.approx(0.2, abs=0.02) and found["correlation"] > 0.98
    assert 0.002 < found["noise"] < 0.02
    lids = score.seen_change("closed eyes", true, DONE.level, DONE.spans["closed eyes"], DONE.rest)
    assert lids["change"] == pytest.approx(-0.3) and lids["correlation"] == pytest.approx(1)


def test_a_scan_shows_as_much_as_its_measures_spread():
    seen = acted()
    whole = {need: score.shown((need,), seen) for need in MOTIONS}
    none = {need: score.shown((need,), acted(0)) for need in MOTIONS}
    assert all(value > 0.15 for value in whole.values()) and not any(none.values())
    away = seen | {"yaw": np.full(len(DONE.score), 0.5)}
    away["yaw"][DONE.rest] = 0.0
    assert score.shown(("smile",), away) == 0  # the head faced the camera only at rest


# The share of a gap


def test_a_gap_is_closed_by_the_share_of_the_way_to_the_full_scan():
    floor, ceiling = {"missed": 90.0, "range": 0.1, "likeness": 0.8}, {"missed": 10.0, "range": 0.9, "likeness": 0.6}
    now = {"missed": 50.0, "range": 0.7, "likeness": 0.9}
    assert score.closed(floor, floor, ceiling) == {"missed": 0, "range": 0, "likeness": None}
    assert score.closed(floor, ceiling, ceiling) == {"missed": 100, "range": 100, "likeness": None}
    found = score.closed(floor, now, ceiling)
    assert found["missed"] == pytest.approx(50) and found["range"] == pytest.approx(75) and found["likeness"] is None
    assert score.closed(floor, {"missed": 98.0, "range": 1.0}, ceiling)["missed"] == pytest.approx(-10)  # got worse
    assert score.closed({"pose": 1.0}, {"pose": 0.5}, {"pose": 0.95}) == {"pose": None}  # no gap to speak of
    assert score.closed({"gaze": None, "pose": 2.0}, {"gaze": 1.0}, {"gaze": 1.0, "pose": 1.0}) == {}


def test_values_are_means_of_the_motions_that_have_them():
    motions = {"a": {"pose": 1.0, "gaze": None}, "b": {"pose": 3.0, "gaze": 0.5}, "c": {"pose": 100.0, "gaze": 9.0}}
    assert score.combined(motions, ("a", "b")) == {"pose": 2.0, "gaze": 0.5}
    assert score.combined(motions, ("a",)) == {"pose": 1.0, "gaze": None}


@pytest.mark.parametrize("row", LACKS)
def test_a_strip_shows_rest_and_all_that_is_needed(row):
    frames = report.columns_of(DONE, row)
    assert 4 <= len(frames) <= COLUMNS and frames[0] in DONE.rest
    for need in LACKS[row].needs:
        assert DONE.level[frames[(frames >= DONE.spans[need].start) & (frames < DONE.spans[need].stop)]
                          - DONE.spans[need].start].max() > 0.9  # fmt: skip


# Rows of the tables


def avatar_row(missed, clips=("a", "b")):
    one = {"missed": missed, "range": 1 - missed / 100, "pose": 1.0}
    values = {"motions": dict.fromkeys(MOTIONS, one), "shown": dict.fromkeys(LACKS, missed), "clips": list(clips)}
    return values | {"seen": {name: {"change": 0.1} for name in MOTIONS}}


def ledger_of(folder, **missed):
    ledger = Ledger(folder)
    rows = {
        name: ledger.measure(f"range/7/{name}/avatar", value, {"table": "avatar"}, lambda _, v=value: avatar_row(v))
        for name, value in missed.items()
    }
    return ledger, rows


def test_a_first_run_compares_with_the_full_scan(tmp_path):
    ledger, rows = ledger_of(tmp_path, full=20.0, wink=80.0)
    keys = report.add(ledger, None, 7, rows)
    gap = {row["labels"]["values of"]: row["values"] for row in ledger.rows() if row["labels"]["table"] == "gap"}
    assert {what: value["missed"] for what, value in gap.items()} == {report.NOW: 80, report.CEILING: 20}
    assert gap[report.NOW]["shown"] == pytest.approx(400)
    assert len(keys) == len(set(keys)) == 2 + 2 * len(MOTIONS)
    lines = len(ledger.path.read_text().splitlines())
    assert report.add(Ledger(tmp_path), None, 7, rows) == keys and len(ledger.path.read_text().splitlines()) == lines


def test_a_later_run_tells_the_share_of_the_gap_that_it_closes(tmp_path):
    ledger_of(tmp_path / "floor", full=20.0, wink=80.0, smile=60.0)
    ledger, rows = ledger_of(tmp_path / "now", wink=50.0)
    report.add(ledger, report.earlier_rows(tmp_path / "floor", 7, list(rows)), 7, rows)
    gap = {row["labels"]["values of"]: row["values"] for row in ledger.rows() if row["labels"]["table"] == "gap"}
    assert list(gap) == [report.EARLIER, report.NOW, report.CEILING, report.CLOSED]
    assert [gap[what]["missed"] for what in gap] == [80, 50, 20, 50] and gap[report.CLOSED]["pose"] is None


def test_a_floor_of_other_clips_or_rows_is_refused(tmp_path):
    ledger_of(tmp_path / "floor", full=20.0, wink=80.0)
    with pytest.raises(StudioError, match="the rows full, wink, smile of person 7, smile are not there"):
        report.earlier_rows(tmp_path / "floor", 7, ["wink", "smile"])
    ledger, rows = Ledger(tmp_path / "now"), {"wink": {"values": avatar_row(1.0, clips=("a", "c"))}}
    with pytest.raises(StudioError, match="the same clips, got one from others"):
        report.add(ledger, report.earlier_rows(tmp_path / "floor", 7, ["wink"]), 7, rows)


# The command


def run(out, *words, code=0):
    words = ["bench", "range", "-o", out, "--device", "cpu", "--seconds", 1, "--fps", 8, "--size", 128, *words]
    result = CliRunner().invoke(cli, list(map(str, words)), prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.exception)
    return result


def rows_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_what_does_not_fit_is_told(tmp_path, monkeypatch):
    assert "unknown rows: dance" in run(tmp_path / "x", "--rows", "wink,dance", code=2).stderr
    assert "expected seeds with commas" in run(tmp_path / "x", "--people", "7,ada", code=2).stderr
    assert not (tmp_path / "x").exists()
    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "nobody"))
    assert "import one with" in run(tmp_path / "x", "--rows", "wink", code=1).stderr
    assert ROWS[0] == report.FULL and set(ROWS[1:]) == set(LACKS)


SHORT = ("personalize.steps=1", "personalize.check_every=1", "invert.steps=1", "regress.samples=40", "regress.steps=5",
         "reenact.steps=0", "scan.frames=12", "scan.embed_size=32")  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)  # ninety frames of four clips, two scans and two avatars
def test_the_command_measures_once_and_draws_a_strip(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "home"))
    basis_path().parent.mkdir(parents=True)
    shutil.copy(shared / "actors" / "ict_basis.npz", basis_path())
    options = [word for option in SHORT for word in ("--option", option)]
    run(tmp_path, "--rows", "wink", *options)
    count = len(rows_of(tmp_path))
    run(tmp_path, "--rows", "wink", *options)
    rows = {row["key"]: row for row in rows_of(tmp_path)}
    assert len(rows_of(tmp_path)) == count == len(rows)  # nothing is measured again
    assert not any("error" in row for row in rows.values())
    lack = rows["range/1008/wink/this avatar"]["values"]
    assert lack["shown"] < 60 and rows["range/1008/truth/left wink"]["values"]["correlation"] > 0.8
    assert {"missed", "range", "lid_left", "brow_right", "gaze", "pose"} <= lack.keys()
    assert (tmp_path / "strips" / "1008-wink.png").is_file()
    assert "Motion that a scan lacks" in (tmp_path / "tables.md").read_text()
