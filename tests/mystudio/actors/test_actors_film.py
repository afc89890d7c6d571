"""Clips and data sets of actors: complete, repeatable, resumable."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_head import tiny_basis

from mystudio.actors.actor import Actor
from mystudio.actors.basis import EXPRESSIONS, basis_path, write_npz
from mystudio.actors.dataset import EARLIER, VIVID, DatasetSettings, code_of, draw, write_dataset
from mystudio.actors.factors import EXTRA, LOOK, MOTION, MOTION_NAMES, N_LOOK, look_of
from mystudio.actors.film import film, sheet, write_clip
from mystudio.actors.motion import frame_from_factors, perform
from mystudio.cli import cli
from mystudio.errors import BadArtifact, OutputFailed
from selfscan.io import video

SMALL = DatasetSettings(count=10, size=32, seed=4, takes=2, shard=4)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The folder of a user who has imported a head."""
    home = tmp_path_factory.mktemp("home")
    before = os.environ.get("MYSTUDIO_HOME")
    os.environ["MYSTUDIO_HOME"] = str(home)
    write_npz(tiny_basis(), basis_path())
    yield basis_path()
    os.environ.pop("MYSTUDIO_HOME") if before is None else os.environ.__setitem__("MYSTUDIO_HOME", before)


def arrays(paths):
    return [dict(np.load(path)) for path in paths]


def same(one, two):
    return all(np.array_equal(a[key], b[key]) for a, b in zip(one, two, strict=True) for key in ("images", "codes"))


@pytest.fixture(scope="module")
def made(head, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "faces", SMALL, workers=1)


def test_a_clip_and_its_truth(head, tmp_path):
    score = perform("talk", 0.5, 10, 3)
    truth = write_clip(tmp_path / "talk.mp4", Actor.from_seed(2), score, 64, seed=2)
    frames = [frame for _, frame in video.read(tmp_path / "talk.mp4")]
    assert len(frames) == len(score) == 5 and truth == tmp_path / "talk.npz"
    with np.load(truth) as file:
        assert np.array_equal(file["expression"], score.expressions) and np.array_equal(file["pose"], score.poses)
        assert tuple(file["expression_names"]) == EXPRESSIONS and np.array_equal(file["times"], score.times)
        assert file["landmarks68"].shape == (5, 68, 2) and file["gaze"].shape == (5, 2, 2)
        assert file["identity"].shape == (38,) and file["image_from_frame"].shape == (5, 2, 3)
    drawn = [frame.image for frame in film(Actor.from_seed(2), score, 64, seed=2)]
    assert np.abs(np.stack(frames).astype(int) - np.stack(drawn)).mean() < 6  # error from compression


def test_a_clip_that_cannot_be_written(head, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputFailed, match="folder"):
        write_clip(tmp_path / "file" / "x.mp4", Actor.from_seed(1), perform("talk", 0.1, 10), 32)


def test_shards_hold_images_and_their_codes(made):
    found = arrays(made)
    assert [path.name for path in made] == [f"shard-0000{k}.npz" for k in range(3)]
    assert [len(shard["codes"]) for shard in found] == [4, 4, 2]
    images, codes = (np.concatenate([shard[key] for shard in found]) for key in ("images", "codes"))
    assert images.dtype == np.uint8 and images.shape == (10, 32, 32, 3) and codes.dtype == np.float16
    assert np.array_equal(codes[0::2][:, LOOK], codes[1::2][:, LOOK])
    assert np.array_equal(codes[0::2][:, EXTRA], codes[1::2][:, EXTRA])
    assert len(np.unique(codes[:, LOOK], axis=0)) == 5 and len(np.unique(codes[:, MOTION], axis=0)) == 10
    assert abs(np.stack([code_of(0, k, 1) for k in range(300)]).astype(float).std() - 1) < 0.02


def test_a_share_of_vivid_images_moves_lids_and_brows_far_and_leaves_all_else():
    plain, vivid, half = (np.stack([code_of(3, k, 1, share) for k in range(400)]) for share in (0.0, 1.0, 0.5))
    moved = [N_LOOK + MOTION_NAMES.index(name) for name in VIVID]
    others = np.setdiff1d(np.arange(64), moved)
    assert np.array_equal(plain[:, others], vivid[:, others])
    changed = plain != vivid
    assert 0.3 < changed[:, moved].mean() < 0.4  # VIVID_CHANCE
    for column, (low, high) in zip(moved, VIVID.values()):
        new = vivid[changed[:, column], column].astype(float)
        assert low - 1e-3 <= new.min() < low + 0.2 and high - 0.2 < new.max() <= high + 1e-3
    blink = N_LOOK + MOTION_NAMES.index("eyeBlink")
    assert (plain[:, blink] > 1.7).mean() < 0.1 < (vivid[:, blink] > 1.7).mean()
    as_plain, as_vivid = (half == plain).all(1), (half == vivid).all(1)
    assert (as_plain | as_vivid).all() and 0.4 < as_vivid[changed.any(1)].mean() < 0.6


def test_sides_add_three_numbers_that_move_one_side_alone():
    for index in range(40):
        plain, sided = code_of(3, index, 4, vivid=0.3), code_of(3, index, 4, vivid=0.3, sides=True)
        assert sided.shape == (67,) and np.array_equal(sided[:64], plain)
        assert np.array_equal(look_of(sided), look_of(plain))
    rest = np.zeros(26)
    for k, name in enumerate(("eyeBlink", "browOuterUp", "mouthSmile")):
        for value, moved in ((2.1, "L"), (-2.1, "R"), (0.5, "")):
            sides = np.zeros(3)
            sides[k] = value
            expression, pose = frame_from_factors(rest, sides)
            expected = {f"{name}_{moved}"} if moved else set()
            assert {EXPRESSIONS[n] for n in np.flatnonzero(expression)} == expected and not pose.any()
    with pytest.raises(ValueError, match="3"):
        frame_from_factors(rest, np.zeros(2))


def test_a_still_pair_shows_one_head_pose_and_two_expressions():
    codes = np.stack([code_of(5, index, 4, still=True) for index in range(80)])
    loose = np.stack([code_of(5, index, 4) for index in range(80)])
    pose = slice(N_LOOK + MOTION_NAMES.index("yaw"), N_LOOK + len(MOTION_NAMES))
    assert np.array_equal(codes[0::2, pose], codes[1::2, pose]) and np.array_equal(codes[0::2], loose[0::2])
    assert np.array_equal(np.delete(codes, np.r_[pose], 1), np.delete(loose, np.r_[pose], 1))
    assert len(np.unique(codes[:, pose], axis=0)) == 40


def test_a_vivid_dataset_is_another_one_and_a_folder_from_before_goes_on(head, tmp_path):
    settings = DatasetSettings(count=2, size=32, shard=2)
    (first,) = write_dataset(tmp_path / "d", settings, workers=1)
    file = tmp_path / "d" / "dataset.json"
    older = json.loads(file.read_text())
    for name in EARLIER:
        del older[name]
    file.write_text(json.dumps(older))
    kept = first.stat().st_mtime_ns
    with pytest.raises(BadArtifact, match="another folder"):
        write_dataset(tmp_path / "d", replace(settings, vivid=0.5), workers=1)
    write_dataset(tmp_path / "d", settings, workers=1)
    assert first.stat().st_mtime_ns == kept


def test_an_image_follows_from_its_code(head, made):
    from mystudio.actors.render import render

    found = arrays(made)
    image, code = draw(SMALL, 6)
    assert np.array_equal(image, found[1]["images"][2]) and np.array_equal(code, found[1]["codes"][2])
    again = render(Actor.from_code(code), *frame_from_factors(code[MOTION].astype(float)), 32, "ffhq", seed=6)
    assert np.array_equal(again.image, image)


def test_any_number_of_workers_gives_the_same(head, made, tmp_path):
    assert same(arrays(write_dataset(tmp_path / "two", SMALL, workers=2)), arrays(made))


def test_what_is_there_stays_and_what_is_damaged_is_drawn_again(head, made, tmp_path):
    paths = write_dataset(tmp_path / "d", SMALL, workers=1)
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:5000])
    kept = paths[2].stat().st_mtime_ns
    seen = []
    write_dataset(tmp_path / "d", SMALL, workers=1, progress=lambda stage, done, total: seen.append(done))
    assert same(arrays(paths), arrays(made)) and paths[2].stat().st_mtime_ns == kept and seen == [2, 6, 10]


def test_another_dataset_is_not_mixed_in(head, tmp_path):
    settings = DatasetSettings(count=2, size=32, shard=2)
    write_dataset(tmp_path / "d", settings, workers=1)
    with pytest.raises(BadArtifact, match="another folder"):
        write_dataset(tmp_path / "d", DatasetSettings(count=2, size=40, shard=2), workers=1)
    grown = write_dataset(tmp_path / "d", DatasetSettings(count=3, size=32, shard=2), workers=1)
    assert [len(shard["codes"]) for shard in arrays(grown)] == [2, 1]


def test_killed_it_goes_on(head, tmp_path):
    settings = DatasetSettings(count=600, size=32, seed=1, shard=1)
    code = (
        "from mystudio.actors.dataset import DatasetSettings, write_dataset\n"
        f"write_dataset({str(tmp_path / 'd')!r}, DatasetSettings(count=600, size=32, seed=1, shard=1), workers=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "d").glob("shard-*.npz"))) < 3:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    whole = sorted((tmp_path / "d").glob("shard-*.npz"))
    assert 3 <= len(whole) < 600
    for k, path in enumerate(whole):
        with np.load(path) as file:
            assert np.array_equal(file["images"][0], draw(settings, k)[0])


def test_people_differ_on_a_sheet(head):
    grid = sheet(2, 3, 48, seed=7)
    assert grid.shape == (96, 144, 3) and np.array_equal(grid, sheet(2, 3, 48, seed=7))
    cells = grid.reshape(2, 48, 3, 48, 3).swapaxes(1, 2).reshape(6, -1).astype(float)
    assert min(np.abs(a - b).mean() for k, a in enumerate(cells) for b in cells[:k]) > 8


def test_commands(head, tmp_path):
    def run(*words):
        result = CliRunner().invoke(cli, ["actors", *map(str, words), "--json"], prog_name="mystudio")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    assert run("sheet", tmp_path / "s.png", "--rows", 1, "--columns", 2, "--size", 32)["ok"]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert run("clip", tmp_path / "c.mp4", "--seconds", 0.2, "--size", 48, "--script", "selfscan")["frames"] == 5
    assert (tmp_path / "c.npz").is_file()
    assert run("dataset", tmp_path / "d", "--count", 3, "--size", 32, "--workers", 1)["images"] == 3
