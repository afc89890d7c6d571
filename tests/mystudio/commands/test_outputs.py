"""What the name of an output asks for, long names, and what is told about sound; by the commands that write clips."""

import json
from dataclasses import asdict

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from mystudio.cli import cli
from mystudio.commands.render import lines_of
from mystudio.provenance import credentials
from mystudio.storage import artifacts, workspace
from mystudio.storage.products import sidecar_of
from selfscan.io import video
from selfscan.io.sound import Heard
from tests.selfscan.io.clips import clip

LONG = "驱" * 76  # 228 bytes
QUICK = ("--option", "render.size=64", "--option", "provenance.watermark=false")


def run(*words, code=0):
    result = CliRunner().invoke(cli, [str(word) for word in words], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def told(result):
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def studio_of(tmp_path, tiny_avatar, performance, take):
    """Return a function that writes an avatar and a take of a driving clip, and returns the take."""

    def make(driver, name="hello.take"):
        places = {"video": driver, "avatar": tmp_path / "me.avatar", "performance": tmp_path / "driver.performance"}
        made = (("me.avatar", tiny_avatar, ()), ("driver.performance", performance, ("video",)),
                (name, take, ("avatar", "performance")))  # fmt: skip
        for file, artifact, inputs in made:
            kind = artifacts.KINDS[type(artifact)]
            with workspace.stage(tmp_path / file, kind, {key: places[key] for key in inputs}, {}) as job:
                artifacts.save(artifact, job)
        return tmp_path / name

    return make


@pytest.fixture
def driver(tmp_path):
    return clip(tmp_path / "driver.mp4", 12 / 25)


@pytest.mark.parametrize(
    "ending,container,pictures,sound",
    [
        ("mp4", "mp4", "h264", "aac"),
        ("M4V", "mp4", "h264", "aac"),
        ("mov", "mov", "h264", "aac"),
        ("mkv", "matroska", "h264", "aac"),
        ("webm", "webm", "vp9", "opus"),
        ("gif", "gif", "gif", None),
    ],
)
def test_render_writes_the_container_that_the_name_says(
    tmp_path, studio_of, driver, take, ending, container, pictures, sound
):
    take_path, out = studio_of(driver), tmp_path / f"out.{ending}"
    facts = told(run("render", take_path, "-o", out, *QUICK, "--json"))
    with av.open(str(out)) as made:
        assert container in made.format.name and made.streams.video[0].codec_context.name == pictures
        assert [s.codec_context.name for s in made.streams.audio] == [sound] * (sound is not None)
        stamps = np.array([float(f.pts * f.time_base) for f in made.decode(video=0)])
    near = {"gif": 0.011, "matroska": 0.001, "webm": 0.001}.get(container, 1e-4)
    assert len(stamps) == len(take) and np.abs(stamps - take.times).max() <= near
    assert facts["manifest"] == (container not in ("matroska", "webm"))
    if facts["manifest"]:
        assert credentials.read(out).state == "valid"
    assert bool(facts["sound"]["lost"]) == (sound is None)
    if ending == "mov":
        assert out.read_bytes()[8:10] == b"qt"


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_a_still_shows_the_first_frame_with_a_face(tmp_path, studio_of, driver, ending):
    take_path = studio_of(driver)
    result = run("render", take_path, "-o", tmp_path / f"out.{ending}", *QUICK)
    assert "frame 1 of the take" in result.stdout
    image = cv2.imread(str(tmp_path / f"out.{ending}"))
    run("render", take_path, "-o", f"{tmp_path}/all/", *QUICK)
    assert np.array_equal(image, cv2.imread(str(tmp_path / "all" / "000001.png")))
    assert credentials.read(tmp_path / f"out.{ending}").state == "valid"


def test_a_slash_at_the_end_is_a_folder_of_pictures(tmp_path, studio_of, driver, take):
    take_path, words = studio_of(driver), ("render", tmp_path / "hello.take", "-o", f"{tmp_path}/all/", *QUICK)
    run(*words)
    names = [f"{number:06d}.png" for number in range(1, len(take) + 1)]
    assert sorted(file.name for file in (tmp_path / "all").iterdir()) == names
    assert credentials.read(tmp_path / "all" / names[-1]).state == "valid"
    before = (tmp_path / "all" / names[0]).stat().st_mtime_ns
    run(*words)
    assert (tmp_path / "all" / names[0]).stat().st_mtime_ns == before, "an equal result was made again"
    run(*words, "--force")
    assert (tmp_path / "all" / names[0]).stat().st_mtime_ns > before
    (tmp_path / "all" / "mine.txt").write_text("mine")
    assert "holds other files" in run("render", take_path, "-o", f"{tmp_path}/all/", "--force", code=1).stderr
    assert (tmp_path / "all" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["out", "out.avi", "out.jpg", "out%03d.png", "out.mp4.", ".mp4"])
def test_other_names_are_refused_in_one_sentence_before_the_work(tmp_path, studio_of, driver, name):
    result = run("render", studio_of(driver), "-o", tmp_path / name, code=1)
    assert result.stderr.count("\n") == 1 and "expected a name that ends in .mp4" in result.stderr
    assert not (tmp_path / name).exists()
    assert "%" not in result.stderr.rsplit("such as ")[-1]
    assert result.stderr.endswith("such as out/\n") == ("%" in name)


def test_names_as_long_as_the_file_system_takes_work_and_stay_apart(tmp_path, studio_of):
    drivers = [clip(tmp_path / f"{LONG}{k}.mp4", 12 / 25) for k in range(2)]
    take_path = studio_of(drivers[0], f"{LONG[:-2]}.take")
    outs = [tmp_path / f"{'é' * 124}{k}.mp4" for k in range(2)]
    for out in outs:
        assert len(out.name.encode()) > 250
        run("render", take_path, "-o", out, *QUICK)
        assert video.probe(out).frames_estimate == 12
    assert sidecar_of(outs[0]) != sidecar_of(outs[1]) and all(sidecar_of(out).is_file() for out in outs)
    assert not list(tmp_path.glob("*.part*")) and not list(tmp_path.glob("*.lock"))
    too_long = run("render", take_path, "-o", tmp_path / f"{'é' * 126}.mp4", code=1)
    assert "has 256 bytes, expected at most 255" in too_long.stderr


def test_sound_that_is_lost_is_told_in_the_last_line_and_again_when_nothing_is_made(tmp_path, studio_of):
    def damaged(packets):
        for packet in packets:
            if packet.stream.type == "audio":
                noise = av.Packet(bytes(packet.size))
                noise.stream, noise.time_base, noise.pts, noise.dts = (
                    packet.stream,
                    packet.time_base,
                    packet.pts,
                    packet.dts,
                )
                packet = noise
            yield packet

    take_path = studio_of(clip(tmp_path / "driver.mkv", 12 / 25, sounds=("flac",), restamp=damaged))
    for _ in range(2):
        last = run("render", take_path, "-o", tmp_path / "out.mp4", *QUICK).stdout.splitlines()[-1]
        assert last == "The sound is lost: none of it can be decoded."
    facts = told(run("render", take_path, "-o", tmp_path / "out.mp4", *QUICK, "--json"))
    assert facts["sound"]["track"] is None and facts["sound"]["lost"]


def test_the_sound_track_is_told_and_can_be_chosen(tmp_path, studio_of):
    take_path = studio_of(clip(tmp_path / "driver.mkv", 12 / 25, sounds=("-aac", "aac"), rate=48_000))
    result = run("render", take_path, "-o", tmp_path / "out.mp4", *QUICK)
    assert "Sound: track 2 of 2 (silent: 1)" in result.stdout
    facts = told(run("render", take_path, "-o", tmp_path / "out.mp4", *QUICK, "--audio-track", 1, "--json"))
    assert facts["sound"]["track"] == 1
    last = run("render", take_path, "-o", tmp_path / "out.mp4", *QUICK, "--audio-track", 3).stdout.splitlines()[-1]
    assert "expected a sound track from 1 to 2, got 3" in last


def test_tracks_that_are_used_together_and_damaged_sound_are_told():
    heard = Heard(2, 1, others=(2,), how="encoded", damaged=1.25)
    first, last = lines_of("out.mp4", {"sound": asdict(heard)}, False)
    assert first == "Sound: track 1 of 2, before or after it 2; --audio-track chooses another."
    assert last == "1.2 s of the sound could not be decoded and are silent."
    assert lines_of("out.mp4", {"sound": asdict(Heard(1, 1, how="copied"))}, False) == []
