"""The command ``mystudio live``: it keeps frames and times, leaves no partial file, and reports errors clearly."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from live_person import avatar, frames, room

from mystudio.cli import cli
from mystudio.commands.live import stop_on_ctrl_c
from mystudio.pipeline import run_live
from mystudio.provenance import verify
from mystudio.recipe import resolve
from mystudio.storage import artifacts, workspace
from selfscan.io import video
from selfscan.io.digest import file_digest

ROOT = Path(__file__).parents[3]
NO_CAMERA = 97


def run(*words, code=0):
    result = CliRunner().invoke(cli, ["live", *map(str, words)], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def last_json(result) -> dict:
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def me(tmp_path_factory) -> Path:
    """The avatar on disk."""
    path = tmp_path_factory.mktemp("live") / "me.avatar"
    with workspace.stage(path, "avatar", {}, {}) as run:
        artifacts.save(avatar(), run)
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A driver whose frames are unevenly timed, and an empty room."""
    folder = tmp_path_factory.mktemp("drivers")
    times = np.cumsum([0, 0.04, 0.04, 0.08, 0.02, 0.04, 0.05, 0.04, 0.1, 0.04])
    video.write(folder / "driver.mp4", [frame for _, frame in frames(10)], times)
    video.write(folder / "empty room.mp4", [room(i) for i in range(400)], np.arange(400) / 25)
    return folder


def test_a_recorded_file_keeps_its_frames_and_times(me, clips, tmp_path):
    out = tmp_path / "live.mp4"
    told = last_json(run(me, "--driver", clips / "driver.mp4", "-o", out, "--no-window", "--json"))
    assert told["frames"] == 10 and told["dropped"] == 0 and told["outcomes"] == {"followed": 10}
    assert told["frames_per_second"] > 0 and told["latency_ms"]["median"] > 0
    assert {"read", "track", "measure", "code", "synthesize", "compose", "output"} == set(told["stages_ms"])
    recorded, driver = list(video.read(out)), list(video.read(clips / "driver.mp4"))
    assert np.allclose([t for t, _ in recorded], [t for t, _ in driver], atol=1e-3) and len(recorded) == 10
    assert recorded[0][1].shape == (256, 512, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".live.mp4.made", "live.mp4"]
    mark, hidden = verify.examine(out)
    assert mark.state == hidden.state == "found" and hidden.details["avatar"] == mark.details["avatar"][:12]
    assert mark.details["driver"] == file_digest(clips / "driver.mp4") and mark.details["view"] == "live"


def test_a_clip_without_a_face_is_recorded_whole_and_said_so(me, clips, tmp_path):
    out = tmp_path / "live.mp4"
    result = run(me, "--driver", clips / "empty room.mp4", "-o", out, "--no-window", "--seconds", "0.6")
    assert "15 frames (15 no face)" in result.stdout and "No frame showed a face" in result.stdout
    pictures = np.stack([frame for _, frame in video.read(out)])
    assert len(pictures) == 15
    assert np.abs(pictures[:, :, 260:].astype(int) - pictures[0, :, 260:]).max() < 24  # at rest, up to compression
    assert np.abs(pictures[1:, :, :250].astype(int) - pictures[0, :, :250]).mean() > 2  # the driver's side goes on


def test_speed_is_measured_without_a_window_and_without_a_file(me, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = last_json(run(me, "--driver", clips / "driver.mp4", "--no-window", "--no-drop", "--json"))
    assert told["frames"] == 10 and os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the screen is known by the environment on Linux only")
def test_without_a_screen_a_sentence_says_what_to_do(me, clips, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    told = run(me, "--driver", clips / "driver.mp4", code=1).stderr
    assert told.startswith("error: ") and "-o OUT.mp4" in told and len(told.splitlines()) == 1
    assert "-o OUT.mp4" in run(me, "--driver", clips / "driver.mp4", "--window", code=1).stderr
    monkeypatch.setenv("DISPLAY", ":93")  # set, but without a server: the window library would abort the program
    assert "the screen cannot be used" in run(me, "--driver", clips / "driver.mp4", code=1).stderr


@pytest.mark.skipif(cv2.VideoCapture(NO_CAMERA).isOpened(), reason="there is such a camera")
def test_without_a_camera_a_sentence_says_what_to_do(me, tmp_path):
    out = tmp_path / "live.mp4"
    told = run(me, "--driver", NO_CAMERA, "-o", out, "--no-window", code=1).stderr
    assert told.startswith("error: expected a camera") and "video file" in told and len(told.splitlines()) == 1
    assert not out.exists() and list(tmp_path.glob("*.mp4")) == []


def test_bad_inputs_are_one_sentence(me, clips, tmp_path):
    assert "nowhere.mp4" in run(me, "--driver", tmp_path / "nowhere.mp4", "--no-window", code=1).stderr
    assert (
        "does not exist" in run(tmp_path / "no.avatar", "--driver", clips / "driver.mp4", "--no-window", code=1).stderr
    )
    before = (clips / "driver.mp4").read_bytes()
    for target in (clips / "driver.mp4", me):
        told = run(me, "--driver", clips / "driver.mp4", "-o", target, "--no-window", code=1).stderr
        assert "choose another name" in told
    assert (clips / "driver.mp4").read_bytes() == before
    told = run(
        me,
        "--driver",
        clips / "driver.mp4",
        "-o",
        tmp_path / "absent" / "x" / "a.mp4",
        "--option",
        "live.rset=2",
        "--no-window",
        code=1,
    ).stderr
    assert "did you mean 'rest'" in told


def test_whoever_watches_can_end_it_and_keeps_what_was_recorded(me, clips, tmp_path):
    out, seen = tmp_path / "live.mp4", []

    def watch(shown):
        seen.append(shown.picture)
        return "stop" if len(seen) == 4 else ""

    told = run_live(me, clips / "driver.mp4", resolve(), watch, out=out)
    assert told["frames"] == len(list(video.read(out))) == len(seen) == 4


def test_ctrl_c_ends_a_camera_in_good_order_and_a_second_one_interrupts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_on_ctrl_c(True) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.wait(5)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with pytest.raises(KeyboardInterrupt), stop_on_ctrl_c(False):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_stopped_recording_leaves_the_target_as_it_was(me, clips, tmp_path, how):
    out, part = tmp_path / "live.mp4", tmp_path / "live.part.mp4"
    out.write_bytes(b"before")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs ignore it
        "from mystudio.cli import main; main()"
    )
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code,
            "live",
            str(me),
            "--driver",
            str(clips / "empty room.mp4"),
            "-o",
            str(out),
            "--no-window",
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        until = time.monotonic() + 120
        while not part.exists() and time.monotonic() < until and child.poll() is None:
            time.sleep(0.05)
        assert part.exists() and child.poll() is None
        child.send_signal(how)
        _, told = child.communicate(timeout=60)
    finally:
        child.kill()
    assert out.read_bytes() == b"before"
    if how == signal.SIGINT:
        assert child.returncode == 1 and "is as it was before" in told.splitlines()[-1]
        assert [p.name for p in tmp_path.iterdir()] == ["live.mp4"]
    run(me, "--driver", clips / "driver.mp4", "-o", out, "--no-window")  # leftovers do not disturb the next run
    assert len(list(video.read(out))) == 10 and not part.exists()


def test_one_of_two_faces_is_followed_and_a_picture_numbers_both(me, tmp_path):
    """Two drivers side by side; the picture beside the recording shows both."""
    pairs = [np.concatenate([image, image[:, ::-1]], 1) for _, image in frames(4)]
    video.write(tmp_path / "two.mp4", pairs, np.arange(4) / 25)
    out = tmp_path / "live.mp4"
    told = last_json(run(me, "--driver", tmp_path / "two.mp4", "-o", out, "--no-window", "--json"))
    assert told["outcomes"] == {"followed": 4}
    assert any("live.mp4.faces.png numbers them; --face chooses one" in text for text in told["warnings"])
    assert cv2.imread(str(tmp_path / "live.mp4.faces.png")).shape[1] == 960
    chosen = last_json(run(me, "--driver", tmp_path / "two.mp4", "--face", "2", "--no-window", "--no-drop", "--json"))
    assert chosen["outcomes"] == {"followed": 4} and chosen["warnings"] == []
    assert "expected largest, left, right or a number" in run(me, "--face", "best", code=2).stderr
