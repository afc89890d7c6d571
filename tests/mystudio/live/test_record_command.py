"""The commands ``mystudio record`` and ``scan --consent-clip``; older scans without their data stay readable."""

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from live_person import frames

from mystudio.cli import cli
from mystudio.live import recording
from mystudio.storage import artifacts, workspace
from mystudio.storage.manifest import open_folder
from selfscan.errors import ConsentMissing
from selfscan.io import mux, video
from selfscan.io.digest import file_digest
from selfscan.types import Scan

FPS, NAME = 5, "--i-am-the-person-or-have-consent"
SMALL = ("--frames", 12, "--size", 64, "--option", 'scan.perceptual="face"', "--option", "scan.embed_size=64")


def run(*words, code=0):
    result = CliRunner().invoke(cli, [*map(str, words)], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording from a file as if it were a camera, and what the command said."""
    folder = tmp_path_factory.mktemp("record é")
    timed = frames(60)
    video.write(folder / "camera.mp4", [frame for _, frame in timed], [time for time, _ in timed])
    told = run("record", "-o", folder / "me.mp4", "--camera", folder / "camera.mp4", "--no-window", "--json")
    return folder, told


def test_a_recording_keeps_every_frame_and_its_words(recorded):
    folder, told = recorded
    said = json.loads(told.stdout.splitlines()[-1])
    clip = folder / "me.mp4"
    source, kept = (list(video.read(path)) for path in (folder / "camera.mp4", clip))
    assert [t for t, _ in kept] == pytest.approx([t for t, _ in source], abs=1e-3)
    assert np.abs(kept[30][1].astype(int) - source[30][1]).mean() < 3  # no text was drawn into the recorded picture
    words = recording.read_words(clip)
    assert words.video_sha256 == file_digest(clip) and [item.text for item in words.said] == said["shown"]
    assert [item.start for item in words.said] == [2.0] and words.said[0].end == pytest.approx(59 / 25)
    assert f"say: {said['shown'][0]}" in told.stderr and "too far away" in told.stderr
    assert {path.name for path in folder.iterdir()} == {"camera.mp4", "me.mp4", "me.words.json", ".me.mp4.made"}


def test_words_of_another_recording_are_refused(recorded, tmp_path):
    folder, _ = recorded
    (tmp_path / "me.mp4").write_bytes((folder / "camera.mp4").read_bytes())
    (tmp_path / "me.words.json").write_bytes((folder / "me.words.json").read_bytes())
    with pytest.raises(ConsentMissing, match="another recording"):
        recording.read_words(tmp_path / "me.mp4")
    told = run("scan", tmp_path / "me.mp4", "-o", tmp_path / "me.scan", NAME, "Ada", code=1).stderr
    assert told.startswith("error: ") and "another recording" in told and not (tmp_path / "me.scan").exists()


def test_a_recording_that_fails_leaves_what_was_there(tmp_path):
    out = tmp_path / "me.mp4"
    out.write_bytes(b"before")
    assert "no such file" in run("record", "-o", out, "--camera", tmp_path / "no.mp4", "--no-window", code=1).stderr
    assert run("record", "-o", out, "--camera", out, "--no-window", code=1).stderr.startswith("error: ")
    assert out.read_bytes() == b"before" and not (tmp_path / "me.words.json").exists()


@pytest.fixture(scope="module")
def people(shared, tmp_path_factory):
    """Clips of five frames a second: of one person two, of another one."""
    folder = tmp_path_factory.mktemp("people")
    cuts = {"me": ("scan-longhair", 0, 4), "agrees": ("scan-longhair", 9, 3), "other": ("driver-mouth", 2, 3)}
    for name, (source, start, seconds) in cuts.items():
        kept = [
            cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA)
            for k, (_, frame) in enumerate(video.read(shared / "clips" / f"{source}.mp4"))
            if 25 * start <= k < 25 * (start + seconds) and k % 5 == 0
        ]
        video.write(folder / f"{name}.mp4", kept, np.arange(len(kept)) / FPS, crf=12)
    run("record", "-o", folder / "said.mp4", "--camera", folder / "me.mp4", "--no-window")
    return folder


def test_a_clip_of_consent_goes_into_the_scan_with_its_digest(people, tmp_path):
    told = run(
        "scan",
        people / "said.mp4",
        "-o",
        tmp_path / "me.scan",
        NAME,
        "Ada",
        "--fictional",
        "--consent-clip",
        people / "agrees.mp4",
        *SMALL,
    ).stdout
    made = artifacts.load(tmp_path / "me.scan", Scan)
    assert made.identity.lowest > made.identity.threshold and made.identity.seconds >= 3
    clip, words = made.consent.clip, made.consent.words
    assert clip.video_sha256 == file_digest(people / "agrees.mp4") and clip.likeness > clip.threshold
    assert words.video_sha256 == made.consent.video_sha256 == file_digest(people / "said.mp4")
    assert words.said[0].mouth is not None and f"Words shown while it was recorded: {words.said[0].text}" in told
    assert "shows the person of the scan" in told
    inputs = open_folder(tmp_path / "me.scan").manifest.inputs
    assert set(inputs) == {"video", "video_words", "consent_clip"}


def test_consent_by_somebody_else_refuses_the_scan(people, tmp_path):
    told = run(
        "scan",
        people / "me.mp4",
        "-o",
        tmp_path / "me.scan",
        NAME,
        "Ada",
        "--consent-clip",
        people / "other.mp4",
        *SMALL,
        code=1,
    ).stderr.splitlines()[-1]
    assert told.startswith("error: ") and "other.mp4: expected the person of the scan" in told
    assert not (tmp_path / "me.scan").exists()


def test_a_scan_from_before_identity_and_words_is_readable(tmp_path):
    from actor_avatar import scan

    path, old = tmp_path / "old.scan", scan()
    with workspace.stage(path, "scan", {}, {}) as run, run.writing() as folder:
        artifacts.write(old, folder)
        values = json.loads((folder / artifacts.VALUES).read_text())
        del values["identity"], values["consent"]["words"], values["consent"]["clip"]
        (folder / artifacts.VALUES).write_text(json.dumps(values))
    found = artifacts.load(path, Scan)
    assert found.consent == old.consent and found.identity is None


def test_what_a_killed_recording_wrote_is_kept_by_the_next_one(tmp_path, caplog):
    out, part = tmp_path / "me.mp4", tmp_path / "me.part.mp4"
    assert recording.rescue(out) is None
    pictures = [np.full((48, 64, 3), 5 * k, np.uint8) for k in range(40)]
    for name in ("me.interrupted.mp4", "me.interrupted1.mp4"):
        mux.encode(part, ((k / 10, picture) for k, picture in enumerate(pictures)), 10, 18)
        whole = part.read_bytes()
        part.write_bytes(whole[: len(whole) * 3 // 4])  # as after a kill
        assert recording.rescue(out) == tmp_path / name and not part.exists()
        assert len(list(video.read(tmp_path / name))) >= 20
    assert "kept as" in caplog.text
    part.write_bytes(b"no video yet")
    assert recording.rescue(out) is None
