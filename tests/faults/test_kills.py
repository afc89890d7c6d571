"""kill -9 at some moments of every stage; ``kills.py`` does it at all of them."""

import random
import shutil

import pytest
from kills import Moment, deleted, leftovers, names, plans, series
from work import STAGES

MOMENTS = {  # n-th file operation, or seconds; what is dear to run is killed once
    "scan": [Moment("operation", 17)],
    "personalize": [Moment("operation", 1), Moment("operation", 14), Moment("file", 0.01)],
    "reenact": [Moment("operation", 2), Moment("operation", 15), Moment("time", 0.2)],
    "edit": [Moment("operation", 5), Moment("operation", 6), Moment("operation", 7)],
    "render": [Moment("operation", 4), Moment("file", 0.05)],
    "evaluate": [Moment("operation", 5)],
    "live": [Moment("time", 0.3)],
    "pack": [Moment("operation", 2), Moment("file", 0.0)],
    "unpack": [Moment("operation", 5), Moment("operation", 7)],
    "base train": [Moment("operation", 4), Moment("operation", 30), Moment("file", 0.05)],
}


def assert_nothing_lost(tally, least=1):
    assert tally.other == []
    assert tally.kills >= least and tally.finished == tally.equal == 1


@pytest.mark.quick(*STAGES)
def test_a_killed_command_lost_nothing_and_the_same_command_ends_in_the_same_result(stage, studio, begun, place,
                                                                                    expected):
    begun(stage)
    tally = series(studio, stage, place, MOMENTS[stage.name], expected(stage))
    assert_nothing_lost(tally)
    if stage.journal:
        assert tally.resumed


@pytest.mark.slow
def test_the_earlier_result_is_whole_at_every_moment(stage, studio, begun, place, expected):
    if stage.before is None:
        pytest.skip(f"{stage.name} makes no earlier result: it replaces none, or goes on with it")
    begun(stage)
    assert studio.run(*stage.command(place, earlier=True)).code == 0
    earlier = stage.state(place / stage.makes)
    chance = random.Random(stage.name)
    moments = [m for plan in plans(8, 1.0, 2, chance) for m in plan]
    assert_nothing_lost(series(studio, stage, place, moments, expected(stage), earlier))


def test_an_edit_is_killed_before_each_of_its_file_operations(studio, begun, place, expected):
    stage = STAGES["edit"]
    begun(stage)
    assert studio.run(*stage.command(place, earlier=True)).code == 0
    earlier = stage.state(place / stage.makes)
    shutil.copytree(place / stage.makes, place.parent / "kept")
    for number in range(13):
        tally = series(studio, stage, place, [Moment("operation", number)], expected(stage), earlier)
        assert tally.other == [] and tally.equal == 1
        if not tally.kills:
            break
        shutil.rmtree(place / stage.makes)
        shutil.copytree(place.parent / "kept", place / stage.makes)
    assert 9 <= number < 13  # the run with fewer operations than that was not killed


def test_a_deletion_is_killed_and_goes_on(studio, template, place):
    moments = [Moment("operation", k) for k in (1, 2, 9, 6)]
    tally = deleted(studio, template, place, moments)
    assert_nothing_lost(tally, least=3)


def test_what_a_kill_left_is_seen_by_these_tests(tmp_path):
    """The checks themselves: half a folder and a part of a clip count as left behind, checkpoints do not."""
    for name in (".a.new", "a.partial", "b.run", "c.run"):
        (tmp_path / name).mkdir()
    for name in ("a.part.mp4", "b.run/checkpoint-1.part", "c.run/.checkpoint.json.new", "a.partial/x"):
        (tmp_path / name).touch()
    assert leftovers(tmp_path) == sorted([".a.new", "a.partial", "a.part.mp4", ".checkpoint.json.new"])
    assert len(names(tmp_path)) == 8
