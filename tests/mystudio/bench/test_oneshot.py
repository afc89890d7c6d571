"""The benchmark of one-shot reenactment: pairs with truth, methods, leakage, and the command."""

import json
from dataclasses import replace

import actor_avatar
import frozen_engine
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_head import tiny_basis

from mystudio import engines
from mystudio.actors.basis import basis_path, write_npz
from mystudio.actors.dataset import DatasetSettings, draw
from mystudio.actors.factors import look_of
from mystudio.bases import find_base
from mystudio.bench.oneshot.leakage import FOLDS, LEAST, leak
from mystudio.bench.oneshot.methods import Baseline, Driver, Nearest, OfEngine, Still, Truth
from mystudio.bench.oneshot.pairs import REST, ActorPairs, Driving, Pair, Portrayed, RealPairs, actor_pairs, real_pairs
from mystudio.cli import cli
from mystudio.errors import StudioError, TooFewImages
from mystudio.motion.retarget import find_neutral, neutral_of
from mystudio.recipe import resolve
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.headpose import rotation
from selfscan.io import video
from selfscan.io.pixels import to_tensor, to_uint8

CPU = "cpu"


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A user who has imported a head."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYSTUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        write_npz(tiny_basis(), basis_path())
        yield


def drawn(motion, look):
    """Pictures and landmarks of a person whom the base draws."""
    images, marks = actor_avatar.person(motion, look)
    return to_uint8(images), marks.numpy()


@pytest.fixture(scope="module")
def pair():
    """One person of three photos, driven by another, both drawn by the base."""
    photos, motions = actor_avatar.motions(3, seed=1), actor_avatar.motions(7, seed=2)[1:]
    (images, marks), (true, true_marks) = drawn(photos, 5), drawn(motions, 5)
    other, other_marks = drawn(motions, 9)
    rest, rest_marks = drawn(torch.zeros(1, 26), 9)
    driving = Driving("nine", other, other_marks, rest[0], rest_marks[0])
    return Pair(Portrayed("five", images, marks), driving, true, true_marks)


# leakage


def test_leakage_is_one_where_pictures_tell_the_driver_and_zero_where_they_do_not():
    rng = np.random.default_rng(0)
    looks, people = rng.normal(size=(150, 4)), [f"p{k % 5}" for k in range(150)]
    of_people = 10 * rng.normal(size=(5, 12))[np.arange(150) % 5]
    told = looks @ rng.normal(size=(4, 12)) + 0.01 * rng.normal(size=(150, 12)) + of_people
    assert (leak(told, looks, people) > 0.98).all()
    assert np.abs(leak(rng.normal(size=(150, 12)) + of_people, looks, people)).max() < 0.15
    half = told.copy()
    half[:] = looks[:, :1] * rng.normal(size=12) + of_people + 0.01 * rng.normal(size=half.shape)
    found = leak(half, looks, people)
    assert found[0] > 0.98 and found[1:].max() < 0.15  # only the first factor shows


def test_one_picture_for_all_drivers_leaks_nothing():
    looks = np.random.default_rng(1).normal(size=(4 * FOLDS, 3))
    still = np.repeat(np.random.default_rng(2).normal(size=(1, 9)), len(looks), 0)
    assert np.abs(leak(still, looks, ["one"] * len(looks))).max() < 1e-6
    with pytest.raises(ValueError, match=f"at least {LEAST} drivers, got 3"):
        leak(still[:3], looks[:3], ["one"] * 3)


# pairs


def test_the_truth_of_actors_is_the_person_in_the_drivers_motion(head):
    case = ActorPairs(people=3, motions=3, photos=1, drivers=2, leak=2, size=64, seed=4)
    pairs, others = actor_pairs(case)
    grid = DatasetSettings(9, 64, 4, takes=3, people=3)
    index = {f"actor-4-{p}": p for p in range(3)}
    assert len(pairs) == 6 and {(a.person.name, a.driving.name) for a in pairs} == {
        (a, b) for a in index for b in index if a != b
    }
    for one in pairs:
        p, q = index[one.person.name], index[one.driving.name]
        assert np.array_equal(one.person.images[0], draw(grid, 3 * p + p)[0])  # every photo in another motion
        for k, motion in enumerate([[1, 2], [2, 0], [0, 1]][p]):
            assert np.array_equal(one.truth[k], draw(grid, 3 * p + motion)[0])
            assert np.array_equal(one.driving.images[k], draw(grid, 3 * q + motion)[0])
        assert np.array_equal(one.look, look_of(draw(grid, 3 * q)[1]))
    assert len(others) == 2 and not np.array_equal(others[0].look, others[1].look)
    assert not any(np.array_equal(other.look, one.look) for other in others for one in pairs)


def test_more_photos_or_drivers_than_there_are_is_refused():
    with pytest.raises(StudioError, match="more motions than photos"):
        ActorPairs(motions=2, photos=2)
    with pytest.raises(StudioError, match="1 to 2 drivers of 3 people, got 3"):
        ActorPairs(people=3, drivers=3)


def test_the_angle_is_that_to_the_nearest_photo(pair):
    marks = pair.person.landmarks[:1].astype(np.float64)
    centred = marks - marks.mean(1, keepdims=True)
    turned = [centred @ rotation(np.radians([yaw, 0, 0])).T for yaw in (0, 30, 50)]
    one = replace(pair, truth_marks=np.concatenate(turned))
    one = replace(one, person=Portrayed("five", pair.person.images[:1], centred))
    assert one.angles() == pytest.approx([0, 30, 50], abs=0.1)
    two = Portrayed("five", pair.person.images[:2], np.concatenate([turned[0], turned[2]]))
    assert replace(one, person=two).angles() == pytest.approx([0, 20, 0], abs=0.1)


def test_a_performance_rests_first_and_each_motion_is_a_shot(pair):
    made = pair.driving.performance()
    assert len(made) == REST + 6 and len(made.shots) == 7 and made.shots[0] == slice(0, REST)
    assert np.array_equal(made.observation.landmarks[REST:], pair.driving.landmarks)
    seen = made.observation
    assert find_neutral(seen.landmarks, seen.track.valid) < REST


def test_a_real_clip_is_split_in_time(shared, tmp_path):
    frames = [frame for _, (_, frame) in zip(range(24), video.read(shared / "clips/scan-longhair.mp4"))]
    video.write(tmp_path / "me.mp4", frames, np.arange(24) / 25, crf=12)
    (found,) = real_pairs(RealPairs([tmp_path / "me.mp4"], "Ada Example", photos=2, frames=3))
    assert found.person.images.shape == (2, 256, 256, 3) and found.person.consent.name == "Ada Example"
    assert found.truth.shape == (3, 256, 256, 3) and found.look is None
    assert np.array_equal(found.truth, found.driving.images)
    again = crop_landmarks(load_facemesh(), to_tensor(found.truth))[0].numpy()
    assert np.abs(again - found.truth_marks)[..., :2].max() < 0.01  # the landmarks are those of these frames
    early = crop_landmarks(load_facemesh(), to_tensor(found.person.images))[0].numpy()
    assert np.abs(early - found.person.landmarks)[..., :2].max() < 0.01
    with pytest.raises(StudioError, match="expected 1 and 30 frames"):
        real_pairs(RealPairs([tmp_path / "me.mp4"], "Ada Example", frames=30))


# methods


def error(pair, images):
    marks = crop_landmarks(load_facemesh(), to_tensor(images))[0].numpy()
    return np.linalg.norm(marks - pair.truth_marks, axis=-1)[..., None].mean()


def test_what_is_only_copied(pair):
    assert np.array_equal(Truth().prepare(pair.person)(pair), pair.truth)
    assert np.array_equal(Driver().prepare(pair.person)(pair), pair.driving.images)
    assert np.array_equal(Still().prepare(pair.person)(pair), np.repeat(pair.person.images[:1], 6, 0))


def test_the_nearest_photo_is_the_one_in_the_drivers_motion(pair):
    motions = actor_avatar.motions(3, seed=1)[[2, 0, 1]]
    images, marks = drawn(motions, 9)
    same = replace(pair, driving=replace(pair.driving, images=images, landmarks=marks))
    assert np.array_equal(Nearest().prepare(pair.person)(same), pair.person.images[[2, 0, 1]])


def test_baseline_0_follows_the_driver_and_keeps_the_person(pair):
    made = Baseline(find_base("people128")).prepare(pair.person)(pair)
    assert made.shape == (6, 128, 128, 3)
    assert error(pair, made) < 0.7 * error(pair, Still().prepare(pair.person)(pair))
    to_truth, to_driver = (np.abs(made.astype(int) - x).mean() for x in (pair.truth, pair.driving.images))
    assert to_truth < 0.7 * to_driver


def test_tuning_on_a_photo_brings_it_nearer(pair):
    tinted = (pair.person.images[:1] * np.array([0.6, 0.8, 1.0])).astype(np.uint8)  # light that the base does not know
    person = Portrayed("five", tinted, pair.person.landmarks[:1])
    rest = neutral_of(person.scan()).numpy()
    itself = replace(pair, driving=Driving("five", person.images, person.landmarks, person.images[0], rest))
    base = find_base("people128")
    before = {name: values.clone() for name, values in base.generator.state_dict().items()}
    made = [Baseline(base, steps).prepare(person)(itself).astype(int) for steps in (0, 8)]
    away = [np.abs(one - person.images).mean() for one in made]
    assert away[1] < 0.9 * away[0]
    assert all(torch.equal(before[name], values) for name, values in base.generator.state_dict().items())


def test_an_engine_is_driven_by_the_same_pair(pair, monkeypatch):
    monkeypatch.setitem(engines.ENGINES, "frozen", frozen_engine.__name__)
    base = find_base("people128")
    made = OfEngine("frozen", base, resolve("quick", ())).prepare(pair.person)(pair)
    assert made.shape == (6, 128, 128, 3)
    assert error(pair, made) < 0.8 * error(pair, Still().prepare(pair.person)(pair))
    with pytest.raises(TooFewImages, match="personal needs a scan of at least 4 images"):
        OfEngine("personal", base, resolve("quick", ())).prepare(pair.person)


# the command

SMALL = ("--people", 2, "--motions", 2, "--drivers", 1, "--leak", 0, "--size", 64, "--steps", 1)


def run(*words, code=0):
    result = CliRunner().invoke(cli, ["bench", "oneshot", *map(str, words)], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_the_command_writes_rows_tables_and_a_sheet_and_measures_once(head, tmp_path):
    told = run("-o", tmp_path, *SMALL, "--engine", "personal", code=1)
    assert "personal needs a scan of at least 4 images" in told.stderr
    rows = {row["key"]: row for row in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
    assert {key.split("/")[2] for key in rows} == {
        "truth", "driver", "still", "nearest", "baseline", "baseline-tuned-1", "engine-personal",
    }  # fmt: skip
    true = rows["oneshot/actors/truth/all"]["values"]
    assert true["frames"] == 2 and true["psnr"] == 100 and true["perceptual"] == pytest.approx(0, abs=1e-6)
    assert rows["oneshot/actors/still/all"]["values"]["psnr"] < 60
    assert rows["oneshot/actors/baseline-tuned-1/all"]["values"]["prepare"] > 0
    assert (tmp_path / "sheets/oneshot-actors.png").is_file()
    assert "One-shot: actors" in (tmp_path / "tables.md").read_text()
    count = len((tmp_path / "results.jsonl").read_text().splitlines())
    run("-o", tmp_path, *SMALL)
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == count


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--no-actors",), "--clips FOLDER"),
        (("--clips", "x"), "consent NAME with --clips"),
        (("--motions", 2, "--photos", 2), "more --motions than --photos"),
        (("--people", 2, "--drivers", 2), "fewer --drivers than --people"),
        (("--engine", "nobody"), "expected one of personal"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(tmp_path, words, told):
    assert told in run("-o", tmp_path / "x", *words, code=2).stderr and not (tmp_path / "x").exists()


def test_a_missing_head_or_clip_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "nobody"))
    assert "import one with" in run("-o", tmp_path / "x", code=1).stderr
    clips = ("--no-actors", "--clips", tmp_path, "--i-am-the-person-or-have-consent", "Ada")
    assert "the clip" in run("-o", tmp_path / "x", *clips, code=1).stderr
