"""The training of the engine hyper: phases, resuming to the same weights, installing, and what is missing is told."""

import json
from dataclasses import replace
from pathlib import Path

import actor_avatar
import hyper_weights
import numpy as np
import oneshot_data
import pytest
import torch
from click.testing import CliRunner
from hyper_weights import OFTEN, TINY
from safetensors.torch import load_file

from mystudio import engines, recipe
from mystudio.base import checkpoint
from mystudio.bases import Base
from mystudio.cli import cli
from mystudio.engines import hyper
from mystudio.engines.hyper.settings import DriveSettings
from mystudio.engines.hyper.weights import read_weights
from mystudio.errors import BadArtifact, BadCheckpoint, NotOffered
from mystudio.oneshot import loop
from mystudio.types import Take


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A base with tiny trained networks, their run, and the data."""
    folder = tmp_path_factory.mktemp("hyper")
    hyper_weights.base_with(folder)
    return folder


@pytest.fixture(scope="module")
def base(place) -> Base:
    return Base("people128", place / "people128.safetensors")


@pytest.fixture(scope="module")
def pool(place):
    return oneshot_data.pool_of(place)


def test_every_phase_ran_and_only_its_networks_moved(place, pool):
    rows = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == ["appearance"] * 2 + ["pose"] * 2 + ["inversion", "self", "cross"]
    assert {"margin"} == set(rows[0]["losses"]) and {"expression", "pose", "points"} == set(rows[2]["losses"])
    assert all({"pixels", "lpips", "identity", "shape", "gaze"} == set(row["losses"]) for row in rows[4:])
    training = hyper_weights.training(pool)
    before = {name: value.clone() for name, value in training.state().items()}
    training.enter("cross")
    training.step("cross", 0, 1.0)
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, training.state()[name])}
    assert moved == {"reenactor"}


def test_a_stopped_run_gives_the_same_weights(place, pool, tmp_path):
    cut = hyper_weights.training(pool)
    plain, steps = cut.step, []

    def stopping(phase, number, rate):
        steps.append(number)
        if number == 6:  # in the phase cross
            raise KeyboardInterrupt
        return plain(phase, number, rate)

    cut.step = stopping
    with pytest.raises(KeyboardInterrupt):
        loop.train(tmp_path / "run", cut, OFTEN)
    assert loop.train(tmp_path / "run", hyper_weights.training(pool), OFTEN)["done"]
    whole, resumed = (checkpoint.load(run, loop.KIND)[0] for run in (place / "run", tmp_path / "run"))
    assert whole.keys() == resumed.keys() and all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_training_lowers_its_losses(pool):
    settings = replace(TINY, curriculum=replace(TINY.curriculum, rate=3e-3))
    training = hyper_weights.training(pool, settings)
    training.enter("cross")
    found = []
    for _ in range(6):  # the same batch
        terms = training.step("cross", 0, 1.0)
        found.append(sum(float(terms[name]) * getattr(settings.curriculum, name) for name in terms))
    assert found[-1] < found[0]


def test_before_training_the_picture_is_baseline_0(pool):
    training = hyper_weights.training(pool)
    batch = pool.batch("cross", 0, 2, torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(training.draw(batch), training.baseline(batch))
    training.phase = "cross"
    sheet = training.sheet()
    assert sheet is not None and sheet.shape == (5 * 128, 6 * 128, 3) and np.ptp(sheet) > 100


def test_an_avatar_needs_installed_weights_and_says_how_to_get_them(tmp_path):
    bare = hyper_weights.copied_base(tmp_path)
    with pytest.raises(BadArtifact) as told:
        hyper.personalize(actor_avatar.scan(), bare, hyper.PersonalizeSettings())
    assert all(word in str(told.value) for word in ("engines train hyper", "engines install hyper", "people128"))


def test_one_photo_gives_an_avatar_that_changes_the_weights(base):
    scan = actor_avatar.scan(1)
    avatar = hyper.personalize(scan, base, hyper.PersonalizeSettings())
    driver = actor_avatar.performance(actor_avatar.path(4, seed=3))
    take = hyper.reenact(avatar, driver, hyper.ReenactSettings())
    assert {name: tuple(v.shape) for name, v in take.codes.items()} == {"w": (4, 256), "features": (4, 11, 8)}
    styles = hyper.decode(avatar, take)
    changed = [d for d in styles.weight_deltas if d is not None]
    assert len(changed) == 11 and any(bool(d.any()) for d in changed) and all(len(d) == 4 for d in changed)
    one = hyper.decode(avatar, take, slice(1, 2))
    assert all(
        torch.allclose(a[1:2], b, atol=1e-6)
        for a, b in zip(changed, filter(lambda d: d is not None, one.weight_deltas))
    )
    assert hyper.describe(avatar) == {"photos": 1}
    own = hyper.reenact(avatar, driver, hyper.ReenactSettings(drive=DriveSettings("source")))
    assert (own.codes["w"] == own.codes["w"][:1]).all() and isinstance(own, Take)


def test_weights_of_another_base_or_file_are_refused(base, place, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    stranger = hyper_weights.copied_base(other)
    stranger.__dict__["digest"] = "0" * 64
    with pytest.raises(BadArtifact, match="another base"):
        read_weights(base.companion_path("hyper"), stranger)
    with pytest.raises(BadArtifact, match="for another base"):
        hyper.install(place / "run", stranger)
    data = base.companion_path("hyper").read_bytes()
    for name, content in (("cut", data[: len(data) // 2]), ("junk", b"junk"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadCheckpoint, match="expected weights of the engine hyper"):
            read_weights(tmp_path / name, base)
    with pytest.raises(BadCheckpoint):
        hyper.install(other, base)
    with pytest.raises(BadCheckpoint, match="expected weights"):
        read_weights(base.path, base)


def test_a_file_of_weights_can_be_installed(base, tmp_path):
    again = hyper_weights.copied_base(tmp_path)
    path = hyper.install(base.companion_path("hyper"), again)
    first, second = (load_file(place) for place in (base.companion_path("hyper"), path))
    assert path == again.companion("hyper") and first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("name", recipe.names("hyper"))
def test_recipes_of_the_training_resolve(name):
    settings = recipe.resolve_training("hyper", name)
    assert settings.curriculum.pixels == 10 and settings.model.width % 32 == 0
    assert settings.model.start == ("source" if name == "hyper-paper" else "driver")


def test_other_engines_are_not_trained():
    with pytest.raises(NotOffered, match="learns each person by itself"):
        engines.training("personal")


def run(*words, code=0):
    result = CliRunner().invoke(cli, [*map(str, words), "--json"], prog_name="mystudio")
    assert result.exit_code == code, (words, result.output, result.stderr, result.exception)
    return json.loads(result.stdout.splitlines()[-1])


def test_the_commands_train_install_and_list(place, base, tmp_path):
    small = [f"--option=model.{k}={v}" for k, v in (("width", 32), ("features", 8), ("rank", 4), ("identity", 16))]
    small += ["--option=faces.appearance_kimg=0.002", "--option=faces.pose_kimg=0.002", "--option=faces.batch=2"]
    small += [f"--option=curriculum.{name}_kimg=0" for name in ("inversion", "self")]
    small += ["--option=curriculum.cross_kimg=0.002", "--option=curriculum.batch=2", "--option=run.tick_kimg=0.002"]
    words = "engines", "train", "hyper", "-o", tmp_path / "run", "--data", place / "groups", "--base", base.path
    made = run(*words, *small, "--option=run.sheet_every=1")
    assert made["done"] and made["steps"] == 3 and list((tmp_path / "run" / "sheets").glob("cross-*.png"))
    assert run(*words, *small)["steps"] == 3  # nothing is left to do
    refused = run(*words, code=1)
    assert "begun with another model" in refused["error"]
    home = hyper_weights.copied_base(tmp_path)
    path = run("engines", "install", "hyper", tmp_path / "run", "--base", home.path)["weights"]
    assert Path(path) == home.companion("hyper")
    rows = {row["engine"]: row for row in run("engines", "list")["engines"]}
    assert rows["hyper"]["trained"] and rows["hyper"]["images"] == 1 and not rows["personal"]["trained"]
