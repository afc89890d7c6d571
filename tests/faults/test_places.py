"""Unusual machines: permissions, home folders, file names and clocks."""

import os
import shutil

import pytest
from work import STAGES

READS = {
    "scan": "me.mp4",
    "personalize": "me.scan/arrays.safetensors",
    "reenact": "me.avatar/manifest.json",
    "edit": "hello.take/values.json",
    "render": "driver.mp4",
    "evaluate": "me.avatar/generator.safetensors",
    "live": "driver.mp4",
    "pack": "me.avatar/arrays.safetensors",
    "unpack": "me.zip",
    "base train": "actors.npz",
}


@pytest.mark.quick("edit")
def test_a_folder_that_cannot_be_written_is_told(stage, studio, begun, place):
    begun(stage)
    before = sorted(p.name for p in place.iterdir())
    place.chmod(0o555)
    try:
        told = studio.run(*stage.command(place), unprivileged=True).sentence
        assert "permission" in told.lower() and str(place) in told
    finally:
        place.chmod(0o755)
    assert sorted(p.name for p in place.iterdir()) == before


@pytest.mark.quick("unpack")
def test_an_input_that_cannot_be_read_is_told(stage, studio, begun, place):
    begun(stage)
    file = place / READS[stage.name]
    file.chmod(0)
    try:
        ended = studio.run(*stage.command(place), unprivileged=True)
        told = ended.sentence
        assert file.name in told or file.parent.name in told
        assert ended.code == 1
        assert "permission" in told.lower(), told
    finally:
        file.chmod(0o644)
    assert not (place / stage.makes).exists()


@pytest.mark.parametrize(
    "env",
    [
        {"MYSTUDIO_HOME": "/proc/nowhere"},
        pytest.param({"MYSTUDIO_HOME": None, "HOME": "/nowhere"}, marks=pytest.mark.slow),
        pytest.param({"MYSTUDIO_HOME": None, "HOME": None}, marks=pytest.mark.slow),
    ],
    ids=["no place", "no home", "unset"],
)
def test_a_home_that_is_not_there_costs_nobody_a_render(env, studio, begun, place, expected):
    stage = STAGES["render"]
    begun(stage)
    ended = studio.run(*stage.command(place), unprivileged=True, env=env)
    assert ended.code == 0, ended.stderr
    if env.get("HOME", "") is not None:  # without HOME, the user database may name a folder
        assert "a key that is used once" in ended.stderr
    assert stage.state(place / stage.makes) == expected(stage)


@pytest.mark.slow
def test_a_home_that_cannot_be_written(studio, begun, place, expected):
    stage, home = STAGES["render"], place.parent / "home"
    begun(stage)
    home.mkdir(mode=0o555)
    ended = studio.run(*stage.command(place), unprivileged=True, env={"MYSTUDIO_HOME": str(home)})
    assert ended.code == 0 and "a key that is used once" in ended.stderr and os.listdir(home) == []
    home.chmod(0)
    command = [*STAGES["personalize"].command(place)]
    assert studio.run(*command, unprivileged=True, env={"MYSTUDIO_HOME": str(home)}).code == 0
    assert stage.state(place / stage.makes) == expected(stage)
    home.chmod(0o755)


NAMES = ["%d%s", "concat:a|b", "-o", "a\nb", "x" * 190, "ends with a space ", os.fsdecode(b"latin-\xff"), "#?&;$(id)`"]


@pytest.mark.parametrize(
    "name",
    [n if k in (0, 6) else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(NAMES)],
    ids=[f"name{k}" for k in range(len(NAMES))],
)
def test_any_name_that_the_file_system_takes(name, studio, template, place):
    shutil.copytree(template, place)
    clip, take, turned, out = (f"{place}/{name}{end}" for end in (".mp4", ".take", ".2.take", ".out.mp4"))
    os.rename(place / "driver.mp4", clip)
    commands = (
        ["reenact", place / "me.avatar", clip, "-o", take, "--recipe", place / "tiny.toml"],
        ["edit", take, "-o", turned, "--set", "yaw=1"],
        ["render", turned, "-o", out],
    )
    for command in commands:
        ended = studio.run(*command)
        if ended.code:
            assert "name" in ended.sentence
            return
    assert os.path.getsize(out) > 1000
    assert studio.run("verify", out).code == 0


YEAR = 365.25 * 86400


@pytest.mark.parametrize(
    "jumps",
    [[-30 * YEAR, 50 * YEAR, -3600.0], pytest.param([3600.0, -3600.0, 7200.0], marks=pytest.mark.slow)],
    ids=["decades", "hours"],
)
def test_a_clock_that_jumps_changes_no_result(jumps, studio, begun, place, expected):
    stage = STAGES["edit"]
    begun(stage)
    assert studio.run(*stage.command(place), clock=jumps).code == 0
    assert stage.state(place / stage.makes) == expected(stage)
    for name, when in (("hello.take", 4e9), ("me.avatar", 1.0), ("turned.take", 0.0)):  # as on another machine
        for path in (place / name, *(place / name).rglob("*")):
            os.utime(path, (when, when))
    made = (place / stage.makes / "manifest.json").stat().st_mtime
    again = studio.run(*stage.command(place), clock=[-40 * YEAR])
    assert again.code == 0 and (place / stage.makes / "manifest.json").stat().st_mtime == made  # nothing was computed


@pytest.mark.slow
def test_a_clock_before_the_keys_time_is_named(studio, begun, place, expected):
    stage = STAGES["render"]
    begun(stage)
    told = studio.run(*stage.command(place), clock=[-30 * YEAR]).sentence
    assert "clock" in told and "--no-provenance" in told
    assert studio.run(*stage.command(place)).code == 0
    assert stage.state(place / stage.makes) == expected(stage)
