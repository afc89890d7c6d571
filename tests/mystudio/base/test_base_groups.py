"""Groups of people x motions: every true cross-reenactment is in the data, and the reader finds it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_head import tiny_basis

from mystudio.actors.actor import Actor
from mystudio.actors.basis import basis_path, load_basis, write_npz
from mystudio.actors.dataset import DatasetSettings, code_of, write_dataset
from mystudio.actors.factors import MOTION, join, look_of
from mystudio.actors.motion import frame_from_factors
from mystudio.actors.render import render
from mystudio.base.groups import Groups, open_groups, triples
from mystudio.base.sources import Shards
from mystudio.cli import cli
from mystudio.errors import BadArtifact, BadData

#: two groups of 3 people x 2 motions; the second group begins inside the second file
GRID = DatasetSettings(count=12, size=32, seed=5, takes=2, shard=5, people=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of groups, and the home of a user who has imported a head."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYSTUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        write_npz(tiny_basis(), basis_path())
        write_dataset(out := tmp_path_factory.mktemp("data") / "groups", GRID, workers=1)
        yield out


def test_one_look_for_a_person_and_one_motion_for_all_people_of_a_group(folder):
    codes = np.concatenate([np.load(path)["codes"] for path in sorted(folder.glob("*.npz"))]).reshape(2, 3, 2, 64)
    looks, motions = look_of(codes), codes[..., MOTION]
    assert (looks == looks[:, :, :1]).all() and (motions == motions[:, :1]).all()
    assert len(np.unique(looks[:, :, 0].reshape(6, -1), axis=0)) == 6  # people of both groups
    assert len(np.unique(motions[:, 0].reshape(4, -1), axis=0)) == 4  # motions of both groups


def test_the_truth_of_a_triple_is_the_source_drawn_with_the_drivers_motion(folder):
    groups, basis = open_groups(folder, 32), load_basis()
    assert (len(groups), groups.people, groups.motions) == (2, 3, 2)
    triple = next(t for t in triples(3, 2) if t.person == 2 and t.driver == 0 and t.motion == 0)
    (_, source), (_, driver) = groups.get(1, 2, 0), groups.get(1, 0, 1)
    image, code = groups.get(1, *triple.truth)
    assert triple.source == (2, 0) and triple.driven == 1
    assert np.array_equal(code, join(look_of(source), driver[MOTION]))
    expression, pose = frame_from_factors(driver[MOTION].astype(float))
    number = (1 * 3 + 2) * 2 + 1  # of the image in the data, which seeds its noise
    true = render(Actor(look_of(source), basis), expression, pose, 32, "ffhq", seed=number)
    assert np.array_equal(image, true.image)
    images, codes = groups.whole(1)
    assert images.shape == (3, 2, 32, 32, 3) and np.array_equal(images[2, 1], image)
    assert np.array_equal(codes, groups.codes[1])


def test_every_triple_once(folder):
    found = list(triples(3, 2))
    assert len(set(found)) == len(found) == 3 * 2 * 2 * 1
    assert all(t.person != t.driver and t.motion != t.driven and t.truth == (t.person, t.driven) for t in found)


def test_without_people_the_data_are_those_of_before():
    for index in range(9):
        plain = code_of(7, index, 4, vivid=0.5)
        assert np.array_equal(plain, code_of(7, index, 4, 0.5, people=1))
        if index < 4:  # the first person of a grid
            assert np.array_equal(plain, code_of(7, index, 4, 0.5, people=3))


def test_far_motions_are_those_of_all_people():
    codes = np.stack([code_of(3, index, 8, 1.0, people=4) for index in range(32)]).reshape(4, 8, 64)
    assert (codes[..., MOTION] == codes[:1, :, MOTION]).all()
    assert not np.array_equal(codes[0, 0], code_of(3, 0, 8, 0.0, people=4))


def test_a_place_outside_a_group_is_refused(folder):
    groups = open_groups(folder, 32)
    for place, word in (((2, 0, 0), "group"), ((0, 3, 0), "person"), ((0, 0, 2), "motion"), ((0, 0, -1), "motion")):
        with pytest.raises(IndexError, match=word):
            groups.get(*place)


def test_what_is_not_a_whole_set_of_groups_is_refused(folder, tmp_path):
    with pytest.raises(BadData, match="dataset.json is missing"):
        open_groups(tmp_path, 32)
    write_dataset(tmp_path / "d", GRID, workers=1)
    (tmp_path / "d" / "shard-00001.npz").unlink()
    with pytest.raises(BadData, match="expected the 12 images .* found 7"):
        open_groups(tmp_path / "d", 32)
    write_dataset(tmp_path / "d", GRID, workers=1)
    assert np.array_equal(open_groups(tmp_path / "d", 32).codes, open_groups(folder, 32).codes)
    settings = tmp_path / "d" / "dataset.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"people": 2}))
    with pytest.raises(BadData, match="other codes"):
        open_groups(tmp_path / "d", 32)
    settings.write_text('{"takes": "four", "count": 12}')
    with pytest.raises(BadData, match="damaged"):
        open_groups(tmp_path / "d", 32)
    with pytest.raises(BadArtifact, match="another folder"):
        write_dataset(folder, replace(GRID, people=1), workers=1)


def test_an_ordinary_dataset_is_groups_of_one_person(folder, tmp_path):
    write_dataset(tmp_path / "d", replace(GRID, count=4, people=1), workers=1)
    groups = open_groups(tmp_path / "d", 32)
    assert (len(groups), groups.people, groups.motions) == (2, 1, 2)
    assert isinstance(groups, Groups) and len(Shards(tmp_path / "d", 32)) == 4


def run(*words):
    return CliRunner().invoke(cli, ["actors", "dataset", *map(str, words)], prog_name="mystudio")


def test_the_command_draws_whole_groups(folder, tmp_path):
    result = run(tmp_path / "d", "--grid", "2X3", "--count", 7, "--size", 32, "--workers", 1, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert (said["images"], said["groups"], said["people"], said["motions"]) == (12, 2, 2, 3)
    assert len(open_groups(tmp_path / "d", 32)) == 2


@pytest.mark.parametrize("grid", ["4", "4x", "0x4", "4x0", "x", "-2x3", "2.5x4", "99x99", "4x4x4", ""])
def test_a_grid_that_is_none_is_a_usage_error(tmp_path, grid):
    result = run(tmp_path / "d", "--grid", grid, "--count", 4)
    assert result.exit_code == 2 and "PEOPLExMOTIONS" in result.stderr and not (tmp_path / "d").exists()


def test_takes_and_a_grid_exclude_each_other(tmp_path):
    result = run(tmp_path / "d", "--grid", "2x2", "--takes", 2)
    assert result.exit_code == 2 and "--takes" in result.stderr and not (tmp_path / "d").exists()
