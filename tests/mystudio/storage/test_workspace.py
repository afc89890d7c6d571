"""Artifact folders: round trips, injected faults, hostile folders, two processes, kill -9."""

import dataclasses
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mystudio.bench.child import held_mb
from mystudio.errors import ArtifactBusy, BadArtifact, OutputFailed
from mystudio.storage import artifacts, manifest, workspace
from mystudio.types import Edit, Performance, Take
from selfscan.types import Alignment, Array, Consent, Coverage, FaceTrack, Observation, Scan
from tests.mystudio.killing import hold


def a_scan(count=4, size=16) -> Scan:
    rng = np.random.default_rng(0)
    return Scan(
        images=rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        landmarks=rng.random((count, 478, 3), dtype=np.float32),
        frame_index=np.array([40, 3, 17, 90])[:count],
        quality=rng.random(count, dtype=np.float32),
        rejects={"blurred": 3, "eyes closed": 1},
        coverage=Coverage({"yaw": rng.random(7), "mouth": rng.random(7)}, {"yaw left": 0.25}, ("turn further left",)),
        consent=Consent("Zoë Müller", "I am this person", "2026-01-02T03:04:05+00:00", "ab" * 32),
        perceptual="lpips-face",
        held_out=np.array([[1.0, 2.0]]),
    )


def a_performance(frames=5) -> Performance:
    rng = np.random.default_rng(1)
    track = FaceTrack(
        rng.random((frames, 478, 3), dtype=np.float32),
        rng.random((frames, 4, 4), dtype=np.float32),
        rng.random(frames, dtype=np.float32),
        np.arange(frames) % 2 == 0,
        np.arange(frames) / 25.0,
        (64, 48),
        np.zeros(frames, bool),
    )
    seen = Observation(
        track,
        Alignment(rng.random((frames, 2, 3)), 32),
        rng.random((frames, 478, 3), dtype=np.float32),
        rng.random(frames, dtype=np.float32),
        "clip.mp4",
        "cd" * 32,
    )
    return Performance(
        seen,
        rng.integers(0, 256, (frames, 4, 6, 3), dtype=np.uint8),
        rng.integers(0, 256, (frames, 2, 3, 3, 3), dtype=np.uint8),
    )


TABLES = ("directions", "regressor", "statistics")  # of a personal avatar, each name -> tensor


def a_take(frames=6) -> Take:
    codes = torch.randn(frames, 3, 4, generator=torch.Generator().manual_seed(0))
    return Take(
        {"axes": codes},
        np.array([0, 1, 2, 3, 0, 0], np.uint8)[:frames],
        np.arange(frames) / 30,
        {"keypoints": np.linspace(0, 1, frames)},
        (Edit("smile", 0.5, ((0.0, 0.0), (1.0, 2.0)), "stop"),),
    )


def same(a, b) -> bool:
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def make(path: Path, artifact=None, settings=None, inputs=None, seed=0):
    artifact = artifact if artifact is not None else a_take()
    with workspace.stage(path, artifacts.KINDS[type(artifact)], inputs or {}, settings or {"steps": 3}, seed) as run:
        artifacts.save(artifact, run)
    return artifact


@pytest.mark.parametrize("artifact", [a_scan(), a_performance(), a_take()], ids=["scan", "performance", "take"])
def test_what_is_saved_is_what_is_loaded(tmp_path, artifact):
    make(tmp_path / "my folder é", artifact)
    assert same(artifact, artifacts.load(tmp_path / "my folder é", type(artifact)))


@pytest.mark.skipif(not held_mb(), reason="only Linux tells what a process holds by itself")
def test_a_long_performance_is_read_without_holding_it(tmp_path):
    made = make(tmp_path / "long", a_performance(4000))  # 50 MB
    before = held_mb()
    read = artifacts.load(tmp_path / "long", Performance)
    assert same(read, made)
    assert held_mb() < before + 15


def test_a_performance_in_use_outlives_its_replacement(tmp_path):
    first = make(tmp_path / "clip", a_performance(5))
    read = artifacts.load(tmp_path / "clip", Performance)
    with workspace.stage(tmp_path / "clip", "performance", {}, {"steps": 4}, 0, force=True) as run:
        artifacts.save(a_performance(7), run)
    assert same(read, first) and len(artifacts.load(tmp_path / "clip", Performance)) == 7


def test_an_avatar_keeps_its_generator_and_the_order_of_its_directions(tmp_path):
    checkpoint = pytest.importorskip("mystudio.stylegan2.checkpoint")
    from mystudio.engines.personal.state import State
    from mystudio.stylegan2.generator import Generator
    from mystudio.types import Avatar

    assert checkpoint
    generator = Generator(resolution=16, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    values = {
        "engine": "personal",
        "base_digest": "ef" * 32,
        "consent": a_scan().consent,
        "neutral": torch.rand(478, 3),
        "generator": generator,
        "state": State(
            anchors=torch.randn(3, 8),
            anchor_ids=np.array([7, 2, 5]),
            anchor_keypoints=torch.rand(3, 478, 3),
            **{name: {"smile": torch.randn(8), "brows": torch.randn(8)} for name in TABLES},
        ),
    }
    avatar = Avatar(**values, info={"metric": "lpips", "loss": [0.5, 0.25]})
    make(tmp_path / "me", avatar)
    read = artifacts.load(tmp_path / "me", Avatar)
    for field in dataclasses.fields(Avatar):
        if field.name != "generator":
            assert same(getattr(avatar, field.name), getattr(read, field.name)), field.name
    assert same(dict(generator.state_dict()), dict(read.generator.state_dict()))


def test_no_file_is_a_pickle_and_every_file_is_in_the_manifest(tmp_path):
    make(tmp_path / "scan", a_scan())
    files = {p.relative_to(tmp_path / "scan").as_posix() for p in (tmp_path / "scan").rglob("*") if p.is_file()}
    assert files == {*manifest.open_folder(tmp_path / "scan").manifest.files, "manifest.json"}
    assert {Path(name).suffix for name in files} <= {".json", ".png", ".safetensors"}
    assert sorted(os.listdir(tmp_path)) == ["scan"]  # no lock, journal or half folder is left


@pytest.mark.parametrize("name", ["arrays.safetensors", "values.json", "images/000017.png"])
@pytest.mark.parametrize("fault", ["flip", "truncate", "remove", "grow", "link"])
def test_damage_is_told_in_one_sentence(tmp_path, name, fault):
    make(tmp_path / "scan", a_scan())
    file = tmp_path / "scan" / name
    data = bytearray(file.read_bytes())
    if fault == "flip":
        data[len(data) // 2] ^= 1
    file.unlink()
    if fault == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        file.symlink_to(tmp_path / "elsewhere")
    elif fault != "remove":
        file.write_bytes({"flip": data, "truncate": data[: len(data) // 2], "grow": data + b"x"}[fault])
    with pytest.raises(BadArtifact, match="again") as error:
        artifacts.load(tmp_path / "scan", Scan)
    assert "\n" not in str(error.value)


def edit_manifest(folder: Path, change) -> None:
    values = json.loads((folder / "manifest.json").read_text())
    change(values)
    files = {name: entry["sha256"] for name, entry in values.get("files", {}).items()}
    values["digest"] = manifest.digest_of({"type": values["type"], "schema": values["schema"], "files": files})
    del values["checksum"]
    values["checksum"] = manifest.digest_of(values)
    (folder / "manifest.json").write_text(json.dumps(values))


HOSTILE = {
    "climbs": lambda m: m["files"].update({"../../etc/passwd": {"bytes": 1, "sha256": "0"}}),
    "absolute": lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": "0"}}),
    "hidden": lambda m: m["files"].update({".ssh": {"bytes": 1, "sha256": "0"}}),
    "huge": lambda m: m["files"]["arrays.safetensors"].update(bytes=1 << 60),
    "negative": lambda m: m["files"]["arrays.safetensors"].update(bytes=-1),
    "future": lambda m: m.update(schema=99),
    "other type": lambda m: m.update(type="scan"),
    "wrong kind of value": lambda m: m.update(seed="x"),
}


@pytest.mark.parametrize("name, kind", [("driver.mp4", "a take"), ("take/manifest.json", "a take")])
def test_a_file_in_place_of_an_artifact_is_told_as_one(tmp_path, name, kind):
    make(tmp_path / "take")
    (tmp_path / "driver.mp4").write_bytes(b"x")
    with pytest.raises(BadArtifact, match=f"{name} is a file, expected {kind}; give the folder of {kind}"):
        artifacts.load(tmp_path / name, Take)


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_is_refused(tmp_path, change):
    make(tmp_path / "take")
    edit_manifest(tmp_path / "take", change)
    with pytest.raises(BadArtifact):
        artifacts.load(tmp_path / "take", Take)


def test_a_manifest_that_was_changed_is_seen_and_one_of_before_checksums_is_read(tmp_path):
    make(tmp_path / "take")
    file = tmp_path / "take" / "manifest.json"
    whole = json.loads(file.read_text())
    for change in (
        {"seed": 7},
        {"created": whole["created"].replace("2", "3", 1)},
        {"versions": {}},
        {"settings": {"x": 1}},
        {"inputs": {"video": {"path": "x.mp4", "digest": "0"}}},
    ):
        file.write_text(json.dumps(whole | change))
        with pytest.raises(BadArtifact, match="its digest differs.*again"):
            artifacts.load(tmp_path / "take", Take)
        del (old := whole | change)["checksum"]
        file.write_text(json.dumps(old))
        artifacts.load(tmp_path / "take", Take)
    file.write_text(json.dumps(dict(reversed(whole.items()))))  # neither order nor spaces count
    artifacts.load(tmp_path / "take", Take)


@pytest.mark.parametrize(
    "values",
    [
        "[]",
        "null",
        '{"codes": 3}',
        '{"codes": {"$array": "nope"}}',
        "[" * 100_000,
        '{"codes": {"$array": "times"}, "outcome": {"$array": "codes"}}',
    ],
)
def test_consistent_digests_do_not_help_nonsense(tmp_path, values):
    make(tmp_path / "take")
    file = tmp_path / "take" / "values.json"
    file.write_text(values)
    entry = {"bytes": len(values), "sha256": manifest.digest(file)}
    edit_manifest(tmp_path / "take", lambda m: m["files"].update({"values.json": entry}))
    with pytest.raises(BadArtifact, match="again"):
        artifacts.load(tmp_path / "take", Take)


def test_a_png_bomb_is_refused_before_it_is_decoded(tmp_path):
    make(tmp_path / "scan", a_scan())
    file = tmp_path / "scan" / "images" / "000003.png"
    data = bytearray(file.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    file.write_bytes(data)
    entry = {"bytes": len(data), "sha256": manifest.digest(file)}
    edit_manifest(tmp_path / "scan", lambda m: m["files"].update({"images/000003.png": entry}))
    with pytest.raises(BadArtifact, match="PNG"):
        artifacts.load(tmp_path / "scan", Scan)


def test_equal_inputs_and_settings_are_not_computed_twice(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"one")

    def done(settings, seed=0):
        with workspace.stage(tmp_path / "take", "take", {"video": clip}, settings, seed) as run:
            return run.done

    assert not done({"steps": 3})
    make(tmp_path / "take", settings={"steps": 3}, inputs={"video": clip})
    assert done({"steps": 3})
    assert not done({"steps": 4})
    assert not done({"steps": 3}, seed=1)
    clip.write_bytes(b"two")
    assert not done({"steps": 3})
    clip.write_bytes(b"one")
    assert done({"steps": 3})
    (tmp_path / "take" / "arrays.safetensors").unlink()
    assert not done({"steps": 3})


def test_an_optional_array_is_read_as_an_array_or_as_none():
    """A new field of an artifact is optional, because older versions did not store it."""
    stored = {"a": torch.arange(3)}
    found = artifacts._unpack(Array | None, {"$array": "a"}, stored, None)
    assert isinstance(found, np.ndarray) and found.tolist() == [0, 1, 2]
    assert artifacts._unpack(Array | None, None, {}, None) is None
    assert artifacts._unpack(float | None, 1.5, {}, None) == 1.5
    with pytest.raises(ValueError, match="expected an array"):
        artifacts._unpack(Array | None, 3, {}, None)


def test_a_damaged_result_is_made_again_by_the_same_command(tmp_path):
    make(tmp_path / "take", settings={"steps": 3})
    file = tmp_path / "take" / "arrays.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with workspace.stage(tmp_path / "take", "take", {}, {"steps": 3}) as run:
        assert not run.done
        artifacts.save(a_take(), run)
    assert same(a_take(), artifacts.load(tmp_path / "take", Take))


def test_a_source_is_found_again_after_the_whole_folder_moved_and_refused_after_it_changed(tmp_path):
    (tmp_path / "a").mkdir()
    make(tmp_path / "a" / "scan", a_scan())
    make(tmp_path / "a" / "take", inputs={"scan": tmp_path / "a" / "scan"})
    os.rename(tmp_path / "a", tmp_path / "b")
    folder = manifest.open_folder(tmp_path / "b" / "take", "take")
    assert folder.source("scan") == tmp_path / "b" / "scan"
    make(tmp_path / "b" / "scan", a_scan(3))
    with pytest.raises(BadArtifact, match="changed"):
        folder.source("scan")


def test_a_failure_while_writing_leaves_what_was_there(tmp_path):
    before = make(tmp_path / "take")
    with pytest.raises(OutputFailed, match="is unchanged"), workspace.stage(tmp_path / "take", "take", {}, {}) as run:
        with run.writing() as folder:
            (folder / "half").write_bytes(b"x")
            raise OSError(28, "No space left on device")
    assert same(before, artifacts.load(tmp_path / "take", Take))
    assert os.listdir(tmp_path) == ["take"]


def test_when_the_system_refuses_to_write_what_was_there_stays(tmp_path):
    before = make(tmp_path / "take")
    big = dataclasses.replace(a_take(), codes={"axes": torch.zeros(6, 100, 1000)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # like a full disk, in the middle of a file
    try:
        with pytest.raises(OutputFailed, match="free space"):
            make(tmp_path / "take", big, settings={"steps": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(before, artifacts.load(tmp_path / "take", Take))
    assert os.listdir(tmp_path) == ["take"]


@pytest.mark.parametrize(
    "content", [{"notes.txt": "mine"}, {"manifest.json": '{"name": "a browser extension"}'}, {"manifest.json": "{"}]
)
def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path, content):
    (tmp_path / "docs").mkdir()
    for name, text in content.items():
        (tmp_path / "docs" / name).write_text(text)
    with pytest.raises(BadArtifact, match="choose another name"):
        make(tmp_path / "docs")
    assert {p.name: p.read_text() for p in (tmp_path / "docs").iterdir()} == content


def test_another_kind_a_file_or_the_input_itself_is_never_replaced(tmp_path):
    make(tmp_path / "scan", a_scan())
    (tmp_path / "file").write_text("mine")
    for place in ("scan", "file"):
        with pytest.raises(BadArtifact, match="choose another name"):
            make(tmp_path / place)
    make(tmp_path / "take")
    with pytest.raises(BadArtifact, match="itself"):
        make(tmp_path / "take", inputs={"take": tmp_path / "take"})


def test_a_journal_belongs_to_its_inputs_and_settings(tmp_path):
    first = workspace.journal(tmp_path / "me", "key one")
    (first / "step-10").write_text("ten")
    assert (workspace.journal(tmp_path / "me", "key one") / "step-10").read_text() == "ten"
    second = workspace.journal(tmp_path / "me", "key two")
    assert second == first and not (second / "step-10").exists()
    (tmp_path / "you.partial").mkdir()
    (tmp_path / "you.partial" / "mine").write_text("mine")
    with pytest.raises(BadArtifact, match="no journal"):
        workspace.journal(tmp_path / "you", "key")


def test_a_journal_that_was_being_emptied_when_its_process_died_is_in_nobodys_way(tmp_path):
    (workspace.journal(tmp_path / "me", "key one") / "step-10").write_text("ten")
    os.rename(tmp_path / "me.partial", tmp_path / ".me.partial.deleted")
    (tmp_path / ".me.partial.deleted" / "journal.key").unlink()
    (tmp_path / ".me.partial.new").mkdir()
    assert [p.name for p in workspace.journal(tmp_path / "me", "key two").iterdir()] == ["journal.key"]


def test_the_journal_goes_when_the_artifact_is_there(tmp_path):
    with workspace.stage(tmp_path / "take", "take", {}, {"steps": 3}) as run:
        (run.journal() / "progress").write_text("1")
        artifacts.save(a_take(), run)
    assert os.listdir(tmp_path) == ["take"]


def test_two_processes_never_write_one_artifact(tmp_path):
    fork = multiprocessing.get_context("fork")
    held, release = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(tmp_path / "take", held, release))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(ArtifactBusy, match="another process"):
            make(tmp_path / "take")
        os.kill(other.pid, signal.SIGKILL)  # the operating system releases the lock of a killed process
        other.join()
        make(tmp_path / "take")
    finally:
        other.kill()
        other.join()
    assert os.listdir(tmp_path) == ["take"]


WRITER = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
import test_workspace as t
n = 0
while True:
    n += 1
    t.make(Path({path!r}), settings={{"n": n}})
    print(n, flush=True)
"""


def test_a_reader_sees_a_whole_artifact_whenever_the_writer_is_killed(tmp_path):
    root = Path(__file__).parents[3]
    code = WRITER.format(tests=str(Path(__file__).parent), root=str(root), path=str(tmp_path / "take"))
    expected = a_take()
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        try:
            assert writer.stdout.readline()
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                assert same(expected, artifacts.load(tmp_path / "take", Take))
        finally:
            writer.kill()
            writer.wait()
            writer.stdout.close()
        assert same(expected, artifacts.load(tmp_path / "take", Take))
    make(tmp_path / "take")
    assert os.listdir(tmp_path) == ["take"]


def test_a_reader_goes_on_when_an_equal_artifact_replaced_the_one_it_was_reading(tmp_path, monkeypatch):
    expected, whole, reads = make(tmp_path / "take"), artifacts.read, []

    def replaced_meanwhile(folder, cls):
        reads.append(folder)
        if len(reads) == 1:
            shutil.copytree(tmp_path / "take", tmp_path / "new")
            shutil.rmtree(tmp_path / "take")
            os.rename(tmp_path / "new", tmp_path / "take")
            raise BadArtifact("a file is gone")
        return whole(folder, cls)

    monkeypatch.setattr(artifacts, "read", replaced_meanwhile)
    assert same(expected, artifacts.load(tmp_path / "take", Take)) and len(reads) == 2


def test_a_writer_that_died_between_its_renames_lost_nothing(tmp_path):
    before = make(tmp_path / "take", settings={"n": 1})
    os.rename(tmp_path / "take", tmp_path / ".take.old")
    assert same(before, artifacts.load(tmp_path / "take", Take))
    with workspace.stage(tmp_path / "take", "take", {}, {"n": 1}) as run:
        assert run.done
    assert os.listdir(tmp_path) == ["take"]
