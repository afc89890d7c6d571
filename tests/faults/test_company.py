"""Two processes on one artifact, and a writer that stops half way while others read."""

import os
import signal

import pytest
from work import STAGES


def stopped_at(studio, command, place, number: int):
    running = studio.begin(*command, folder=str(place), stop_at=number)
    assert running.wait() is None, "it ended before that operation"
    return running


@pytest.mark.quick("reenact")
def test_the_second_of_two_is_told_to_wait(stage, studio, begun, place, expected):
    begun(stage)
    first = stopped_at(studio, stage.command(place), place, {"reenact": 13}.get(stage.name, 3))
    try:
        second = studio.run(*stage.command(place))
        assert "another process" in second.sentence
    finally:
        first.signal(signal.SIGCONT)
    assert first.wait().code == 0
    assert stage.state(place / stage.makes) == expected(stage)


@pytest.mark.parametrize("number", [7, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3, 4, 5, 6, 8, 9))])
def test_readers_see_the_old_or_the_new_take_whenever_a_writer_stops(number, studio, template, place, expected):
    """A render reads a take between any two file operations of a writer that replaces the take."""
    import shutil

    shutil.copytree(template, place)
    stage = STAGES["edit"]
    other = [*stage.command(place), "--set", "pitch=1"]
    assert studio.run(*other).code == 0
    states = [expected(stage), stage.state(place / stage.makes)]
    assert studio.run(*stage.command(place)).code == 0
    writer = stopped_at(studio, other, place, number)
    try:
        reader = studio.run("edit", place / "turned.take", "-o", place / "x.take", "--set", "yaw=1")
        assert reader.code == 0, reader.stderr
        used = stage.state(place / "x.take")["inputs"]["take"]
        assert used in [digest_in(state) for state in states]
    finally:
        writer.signal(signal.SIGCONT)
    assert writer.wait().code == 0 and stage.state(place / stage.makes) == states[1]


def digest_in(state) -> str:
    from mystudio.storage.manifest import SCHEMA, digest_of

    return digest_of({"type": "take", "schema": SCHEMA, "files": state["files"]})


@pytest.mark.slow
def test_two_first_renders_make_one_key(studio, template, place):
    import shutil

    shutil.copytree(template, place)
    home = place / "home"
    commands = [("render", place / "hello.take", "-o", place / f"{k}.mp4") for k in range(2)]
    running = [studio.begin(*command, env={"MYSTUDIO_HOME": str(home)}) for command in commands]
    assert [one.wait().code for one in running] == [0, 0]
    assert os.listdir(home / "keys") == ["signing.pem"]
    for k in range(2):
        told = studio.run("verify", place / f"{k}.mp4", env={"MYSTUDIO_HOME": str(home)})
        assert told.code == 0 and "a key that is known here" in told.stdout


@pytest.mark.slow
def test_a_deletion_and_a_writer_exclude_each_other(studio, template, place):
    import shutil

    shutil.copytree(template, place)
    writer = stopped_at(studio, [*STAGES["personalize"].command(place), "--force"], place, 3)
    try:
        told = studio.run("avatar", "delete", place / "me.avatar", "--yes")
        assert "another process" in told.sentence and (place / "me.avatar" / "manifest.json").exists()
    finally:
        writer.signal(signal.SIGCONT)
    assert writer.wait().code == 0
    assert studio.run("avatar", "delete", place / "me.avatar", "--yes").code == 0
