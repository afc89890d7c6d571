"""--start and --end, and several clips in one call, with a driver who is drawn by the packaged base."""

import json

import actor_avatar
import live_person
import numpy as np
import pytest
from click.testing import CliRunner

from mystudio.cli import cli
from mystudio.commands.options import Seconds
from mystudio.commands.reenact import take_names
from mystudio.storage import artifacts, workspace
from mystudio.storage.manifest import open_folder
from mystudio.types import Take
from selfscan.io import video
from selfscan.io.sound import SoundOf
from tests.selfscan.io.clips import clip, heard_beeps

QUICK = ("--option", "reenact.steps=1")


def run(*words, code=0):
    result = CliRunner().invoke(cli, [str(word) for word in words], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


@pytest.fixture
def avatar(tmp_path):
    with workspace.stage(tmp_path / "me.avatar", "avatar", {}, {}) as job:
        artifacts.save(actor_avatar.avatar(), job)
    return tmp_path / "me.avatar"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """One second of a moving face, with a beep at 0.5 s."""
    folder = tmp_path_factory.mktemp("driver")
    sound = clip(folder / "sound.mkv", 3.0, sounds=("pcm_s16le",))
    video.write_stream(folder / "driver.mp4", iter(live_person.frames(25)), 25, SoundOf(sound, 0.5))
    return folder / "driver.mp4"


@pytest.mark.parametrize(
    "text,seconds",
    [("5", 5.0), ("2.25", 2.25), ("1:02", 62.0), ("01:00:00.5", 3600.5), ("0:0:7", 7.0), ("90:00", 5400.0)],
)
def test_times_are_seconds_or_clock_times(text, seconds):
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "words", ["--start x", "--start -1", "--end 1:75", "--start 2 --end 2", "--end 0", "--end nan"]
)
def test_times_that_make_no_part_are_usage_errors(avatar, driver, words):
    for command in (("reenact", avatar, driver), ("scan", driver, "--i-am-the-person-or-have-consent", "Ada")):
        assert "Error: " in run(*command, "-o", avatar.parent / "x", *words.split(), code=2).stderr
    run("live", avatar, "--driver", driver, "--no-window", *words.split(), code=2)


def test_a_part_drives_a_take_and_its_sound_is_cut_with_it(tmp_path, avatar, driver):
    words = ("reenact", avatar, driver, *QUICK, "--start", "0.2", "--end", "0:00:00.8")
    result = run(*words, "-o", tmp_path / "part.take")
    assert "Part used: 0.2 s to 0.8 s." in result.stdout
    take = artifacts.load(tmp_path / "part.take", Take)
    whole = [time for time, _ in video.read(driver)]
    expected = [time - 0.2 for time in whole if 0.2 - 1e-3 <= time < 0.8 - 1e-3]
    assert take.times[0] == 0 and np.allclose(take.times[1:], expected[1:], atol=1e-4)
    run("render", tmp_path / "part.take", "-o", tmp_path / "part.mp4", "--view", "side-by-side")
    assert video.probe(tmp_path / "part.mp4").frames_estimate == len(take)
    assert np.abs(heard_beeps(tmp_path / "part.mp4") - [0.3]).max() < 0.007
    performance = open_folder(tmp_path / "part.take").source("performance")
    before = (performance / "manifest.json").stat().st_mtime_ns
    told = json.loads(run(*words, "-o", tmp_path / "again.take", "--json").stdout.splitlines()[-1])
    assert (performance / "manifest.json").stat().st_mtime_ns == before, "an equal part was measured again"
    assert told["span"] == {"start": 0.2, "end": 0.8}
    assert "which is 1.0" in run(*words[:-4], "--start", "7", "-o", tmp_path / "x.take", code=1).stderr


def test_live_plays_a_part(tmp_path, avatar, driver):
    out = tmp_path / "live.mp4"
    words = ("live", avatar, "--driver", driver, "--no-window", "--start", "0.4", "-o", out, "--json")
    told = json.loads(run(*words).stdout.splitlines()[-1])
    assert told["frames"] == sum(time >= 0.4 - 1e-3 for time, _ in video.read(driver))
    assert np.abs(heard_beeps(out) - [0.1]).max() < 0.007


def test_several_clips_each_have_their_take_and_a_failing_one_stops_no_other(tmp_path, avatar, driver):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / f"{'驱' * 83}.mp4"  # a name of 253 bytes
    other.write_bytes(driver.read_bytes())
    clips = (tmp_path / "bad.mp4", driver, tmp_path / "absent.mp4", other)
    words = ("reenact", avatar, *clips, "-o", tmp_path / "takes", *QUICK, "--end", "0.2")
    result = run(*words, code=1)
    assert result.stdout.splitlines()[-1] == f"Failed: {clips[0]}, {clips[2]}."
    assert "2 of 4 clips have their take" in result.stdout and f"\n{clips[2]}: No such file" in result.stdout
    told = json.loads(run(*words, "--json", code=1).stdout.splitlines()[-1])
    assert not told["ok"] and ["error" in row for row in told["takes"]] == [True, False, True, False]
    takes = take_names(tmp_path / "takes", clips)
    assert [len(artifacts.load(take, Take)) for take in (takes[1], takes[3])] == [told["takes"][1]["frames"]] * 2
    assert run("reenact", avatar, driver, other, "-o", avatar, code=2)


def test_takes_of_clips_with_equal_or_long_names_stay_apart(tmp_path):
    long = [tmp_path / f"{'驱' * 83}{k}.mp4" for k in range(2)]
    clips = [tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mov", tmp_path / "X.mkv", *long, tmp_path / "y.mp4"]
    names = [take.name for take in take_names(tmp_path, clips)]
    assert len({name.casefold() for name in names}) == len(clips)
    assert all(name.endswith(".take") and len(name.encode()) <= 255 for name in names) and names[-1] == "y.take"
    assert names == [take.name for take in take_names(tmp_path, clips)]
