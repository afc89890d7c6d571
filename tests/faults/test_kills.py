"""Kill every stage at some moments (kill -9); the program ``kills.py`` covers all moments."""

import multiprocessing
import os
import random
import shutil
import signal

import pytest
import torch
from kills import Moment, deleted, leftovers, names, plans, series
from suffering import watch
from work import STAGES, artifact

from mystudio.storage import artifacts, journal, workspace
from mystudio.types import Take

MOMENTS = {  # n-th file operation, or seconds; expensive stages are killed once
    "scan": [Moment("operation", 17)],
    "personalize": [Moment("operation", 1), Moment("operation", 14)],
    "reenact": [Moment("operation", 2), Moment("operation", 16)],
    "edit": [Moment("operation", 6)],
    "render": [Moment("file", 0.05)],
    "evaluate": [Moment("operation", 5)],
    "live": [Moment("time", 0.3)],
    "pack": [Moment("operation", 1)],
    "unpack": [Moment("operation", 5)],
    "base train": [Moment("operation", 4), Moment("operation", 30)],
}


def assert_nothing_lost(tally, least=1):
    assert tally.other == []
    assert tally.kills >= least and tally.finished == tally.equal == 1


@pytest.mark.quick(*STAGES)
def test_a_killed_command_lost_nothing_and_the_same_command_ends_in_the_same_result(
    stage, studio, begun, place, expected
):
    begun(stage)
    tally = series(studio, stage, place, MOMENTS[stage.name], expected(stage))
    assert_nothing_lost(tally)
    if stage.journal:
        assert tally.resumed


@pytest.mark.quick()
def test_the_earlier_result_is_whole_at_every_moment(stage, studio, begun, place, expected):
    if not stage.before:
        pytest.skip(f"{stage.name} replaces no earlier result")
    begun(stage)
    assert studio.run(*stage.command(place, earlier=True)).code == 0
    earlier = stage.state(place / stage.makes)
    chance = random.Random(stage.name)
    moments = [m for plan in plans(8, 1.0, 2, chance) for m in plan]
    assert_nothing_lost(series(studio, stage, place, moments, expected(stage), earlier))


def test_a_deletion_is_killed_and_goes_on(studio, template, place):
    assert_nothing_lost(deleted(studio, template, place, [Moment("operation", k) for k in (1, 9, 6)]), least=2)


def a_take(number: float) -> Take:
    times = torch.arange(2).double().numpy()
    return Take({"axes": torch.full((2, 3, 4), number)}, torch.zeros(2, dtype=torch.uint8).numpy(), times, {})


def make(path, number: float, kill_at: int = -1, notes: str = os.devnull) -> None:
    """Make a take in a stage that writes a checkpoint."""
    watch(str(path.parent), os.open(notes, os.O_WRONLY | os.O_APPEND), kill_at)
    with workspace.stage(path, "take", {}, {"number": number}) as run:
        if not run.done:
            journal.write_bytes(run.journal() / "checkpoint", b"half way")
            artifacts.save(a_take(number), run)


def ended(*arguments) -> int:
    child = multiprocessing.get_context("fork").Process(target=make, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def test_a_stage_is_killed_before_each_of_its_file_operations(tmp_path):
    (tmp_path / "kept").mkdir()
    path, notes = tmp_path / "work é" / "hello.take", tmp_path / "notes"
    notes.touch()
    for folder in ("kept", "work é"):
        (tmp_path / folder).mkdir(exist_ok=True)
        assert ended(tmp_path / folder / "hello.take", 1.0) == 0
    first = artifact(path)
    assert ended(path, 2.0, -1, str(notes)) == 0
    second, operations = artifact(path), len(notes.read_text().splitlines())
    assert operations >= 20 and first != second
    for number in range(operations):
        shutil.rmtree(path.parent)
        shutil.copytree(tmp_path / "kept", path.parent)
        assert ended(path, 2.0, number) == -signal.SIGKILL
        seen = artifact(path)  # by a reader, while no writer runs
        assert seen in (first, second), number
        if seen == first and number % 3 == 0:  # other settings, also killed: this journal must not disturb
            assert ended(path, 3.0, number // 2) == -signal.SIGKILL
        assert ended(path, 2.0) == 0, number
        assert artifact(path) == second
        assert leftovers(path.parent) == [], number


def test_what_a_kill_left_is_seen_by_these_tests(tmp_path):
    """Test of the checks: incomplete folders and clips count as leftovers, checkpoints do not."""
    for name in (".a.new", "a.partial", "b.run", "c.run"):
        (tmp_path / name).mkdir()
    for name in ("a.part.mp4", "b.run/checkpoint-1.part", "c.run/.checkpoint.json.new", "a.partial/x"):
        (tmp_path / name).touch()
    assert leftovers(tmp_path) == sorted([".a.new", "a.partial", "a.part.mp4", ".checkpoint.json.new"])
    assert len(names(tmp_path)) == 8
