"""Training runs: resume, roll-back, several processes, time limits, files in parts, packing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_runs import CODE, make_data, run, tiny

from mystudio.base import checkpoint
from mystudio.base.data import Mixture
from mystudio.base.runs import export_generator, pack, settings_of, with_budget
from mystudio.base.sources import open_source
from mystudio.base.trainer import Trainer
from mystudio.compute.compilation import with_fallback
from mystudio.errors import BadArtifact, BadCheckpoint, BadData, OutputFailed, TrainingDiverged
from selfscan.face.facemesh import load_facemesh

PROGRAM = Path(__file__).parents[1] / "base_runs.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Return a run without interruption."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert run(path, data, tiny())["done"]
    return path


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Use one thread, as the started processes do, because sums over several threads differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _started(command, out, data, mode):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*command, str(PROGRAM), str(out), *map(str, data), mode],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _rows(path):
    file = path / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _equal(a, b):
    first, second = checkpoint.load(a)[0], checkpoint.load(b)[0]
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


def test_a_run_learns_its_codes_and_reports(whole):
    rows = _rows(whole)
    assert [r["phase"] for r in rows] == ["supervised"] * 4 + ["adversarial"] * 4
    assert rows[3]["losses"]["likeness"] < 0.9 * rows[0]["losses"]["likeness"]
    assert {"generator", "discriminator", "path", "likeness"} <= set(rows[-1]["losses"])
    assert any("r1" in r["losses"] for r in rows) and "generator" not in rows[4]["losses"]  # G starts later
    assert rows[-1]["images"] == 64 and rows[-1]["images_per_s"] > 0 and 0 < rows[-1]["p"] < 0.8
    g, facts = export_generator(whole)
    assert g(g.broadcast(g.mapping(torch.randn(2, 8)))).shape == (2, 3, 16, 16)
    assert facts["code_size"] == CODE and "64 images supervised" in facts["training"]
    assert g.mapping.w_avg.abs().max() > 0
    assert settings_of(whole) == tiny()


def test_a_run_killed_at_any_moment_ends_in_the_same_weights(data, whole, tmp_path):
    out = tmp_path / "killed"
    for rows_before_the_kill in (3, 6):
        process = _started([sys.executable], out, data, "whole")
        while len(_rows(out)) < rows_before_the_kill and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert run(out, data, tiny())["done"]
    assert _equal(out, whole)
    kept, expected = _rows(out), _rows(whole)
    assert [(r["step"], r["losses"]) for r in kept] == [(r["step"], r["losses"]) for r in expected]


def test_two_processes_equal_one(data, tmp_path):
    settings = tiny(noise="const", mixing=0.0)
    run(tmp_path / "one", data, settings)
    process = _started(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        tmp_path / "two",
        data,
        "two",
    )
    try:
        words, _ = process.communicate(timeout=300)
    finally:
        process.terminate()  # its children end with it
    assert process.returncode == 0, words
    one, two = (checkpoint.load(tmp_path / name)[0] for name in ("one", "two"))
    moved = {k: v for k, v in one.items() if k.startswith(("g.", "d.", "ema.")) and v.numel() > 4}
    start = Trainer(settings, torch.device("cpu")).state()[0]
    change = sum(float((v - start[k]).square().sum()) for k, v in moved.items())
    apart = sum(float((v - two[k]).square().sum()) for k, v in moved.items())
    assert apart < 1e-3 * change
    assert torch.allclose(one["state.path"], two["state.path"], rtol=1e-3)
    rows = [_rows(tmp_path / name)[-1] for name in ("one", "two")]
    assert rows[0]["p"] == rows[1]["p"] and rows[0]["r_t"] == rows[1]["r_t"]


def test_the_time_limit_leaves_a_checkpoint_to_go_on_from(data, whole, tmp_path):
    first = run(tmp_path / "run", data, tiny(), minutes=1e-4)
    assert not first["done"] and (tmp_path / "run" / checkpoint.INDEX).exists()
    assert run(tmp_path / "run", data, tiny())["done"]
    assert _equal(tmp_path / "run", whole)


def test_a_gradient_that_is_not_finite_changes_nothing(data):
    settings = tiny()
    mixture = Mixture([open_source(path, 16) for path in data]).coded_only()
    trainer = Trainer(settings, torch.device("cpu"), code_size=CODE, coded_share=1.0)
    trainer.enter("supervised")
    before = {k: v.clone() for k, v in trainer.g.synthesis.named_parameters()}
    batch = mixture.batch(0, 8)
    trainer.step(replace(batch, codes=batch.codes * float("nan")))
    assert float(trainer.tensors["skipped"]) == 1
    assert all(torch.equal(v, before[k]) for k, v in trainer.g.synthesis.named_parameters())


@pytest.mark.parametrize("term", ["landmarks", "lids"])
def test_landmarks_join_the_loss_at_their_weight(data, term):
    settings, mixture = tiny(), Mixture([open_source(path, 16) for path in data]).coded_only()
    found = []
    for weight in (0.0, 1.0, 3.0):
        weighed = replace(settings, supervised=replace(settings.supervised, **{term: weight}))
        trainer = Trainer(weighed, torch.device("cpu"), code_size=CODE, coded_share=1.0, mesh=load_facemesh())
        trainer.enter("supervised")
        found.append(float(trainer.step(mixture.batch(0, 8))["likeness"]))
    assert found[2] - found[0] == pytest.approx(3 * (found[1] - found[0]), rel=1e-3) and found[1] > found[0]


def test_the_change_within_pairs_joins_the_loss(data):
    settings, sources = tiny(), [open_source(path, 16) for path in data]
    settings = replace(settings, supervised=replace(settings.supervised, pairs=1.0, rate=3e-3))
    mixture = Mixture(sources, paired=True).coded_only()
    trainer = Trainer(settings, torch.device("cpu"), code_size=CODE, coded_share=1.0)
    trainer.enter("supervised")
    found = [float(trainer.step(mixture.batch(step % 4, 8))["change"]) for step in range(60)]
    assert sum(found[-4:]) < 0.9 * sum(found[:4])


def test_a_run_with_lids_alone_measures_faces(data, tmp_path):
    found = []
    for lids in (0.0, 1.0):
        settings = tiny(adversarial=0)
        settings = replace(settings, supervised=replace(settings.supervised, lids=lids))
        assert settings.measures_faces == bool(lids)
        run(tmp_path / f"lids {lids:g}", data, settings)
        found.append(_rows(tmp_path / f"lids {lids:g}")[0]["losses"]["likeness"])
    assert found[1] > found[0]


def test_a_run_that_blows_up_rolls_back_and_gives_up_with_a_sentence(data, tmp_path):
    settings = tiny(adversarial=0)
    settings = replace(settings, supervised=replace(settings.supervised, rate=1e30))
    with pytest.raises(TrainingDiverged, match="roll-backs"):
        run(tmp_path / "run", data, settings)
    tensors, facts = checkpoint.load(tmp_path / "run")
    assert all(bool(v.isfinite().all()) for v in tensors.values()) and facts["counters"]["supervised"] == 0


def parts_of(run, index=checkpoint.INDEX) -> list:
    """The files of one of a run's checkpoints."""
    return [run / part["file"] for part in json.loads((run / index).read_text())["parts"]]


def flip(file) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_two_checkpoints_are_kept_and_the_older_one_serves_where_the_newest_is_damaged(tmp_path, caplog):
    for number in range(4):
        checkpoint.save(tmp_path, {"a": torch.full((50,), float(number))}, {"settings": {}, "n": number}, 1e-4)
    assert set(tmp_path.glob("*.part")) == {*parts_of(tmp_path), *parts_of(tmp_path, checkpoint.BEFORE)}
    assert checkpoint.load(tmp_path)[1]["n"] == 3 and not caplog.records
    flip(parts_of(tmp_path)[1])
    tensors, facts = checkpoint.load(tmp_path)
    assert facts["n"] == 2 and torch.equal(tensors["a"], torch.full((50,), 2.0))
    assert "changed bytes" in caplog.text and "resuming from the previous checkpoint" in caplog.text
    index = (tmp_path / checkpoint.INDEX).read_text()
    for damaged in (index.replace('"n": 3', '"n": 4'), index[:50], ""):
        (tmp_path / checkpoint.INDEX).write_text(damaged)
        assert checkpoint.load_facts(tmp_path)["n"] == 2
    (tmp_path / checkpoint.INDEX).unlink()
    assert checkpoint.is_begun(tmp_path) and checkpoint.load(tmp_path)[1]["n"] == 2
    checkpoint.save(tmp_path, tensors, facts | {"n": 5})
    assert checkpoint.load_facts(tmp_path)["n"] == 5 and parts_of(tmp_path, checkpoint.BEFORE)[0].exists()
    flip(parts_of(tmp_path)[0])
    flip(parts_of(tmp_path, checkpoint.BEFORE)[0])
    with pytest.raises(BadCheckpoint, match="changed bytes"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("which", ["part", "index"])
def test_a_run_whose_newest_checkpoint_is_damaged_ends_in_the_same_weights(which, data, whole, tmp_path, caplog):
    shutil.copytree(whole, tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    flip(parts_of(tmp_path / "run")[0] if which == "part" else tmp_path / "run" / checkpoint.INDEX)
    assert run(tmp_path / "run", data, tiny())["done"] and "resuming from the previous checkpoint" in caplog.text
    assert checkpoint.load(tmp_path / "run")[0].keys() == checkpoint.load(whole)[0].keys()
    assert all(torch.equal(v, checkpoint.load(whole)[0][k]) for k, v in checkpoint.load(tmp_path / "run")[0].items())
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == len(rows)


def test_checkpoints_in_parts(tmp_path):
    tensors = {"a": torch.randn(1000), "b": torch.arange(5)}
    facts = {"settings": {}, "n": 3}
    checkpoint.save(tmp_path, tensors, facts)
    for _ in range(2):
        checkpoint.save(tmp_path, tensors, facts, max_part_mb=0.001)
    (tmp_path / checkpoint.BEFORE).unlink()
    parts = parts_of(tmp_path)
    assert len(parts) >= 4 and max(p.stat().st_size for p in tmp_path.glob("*.part")) <= 1049  # the single file is gone
    read, again = checkpoint.load(tmp_path)
    assert again == facts and all(torch.equal(v, read[k]) for k, v in tensors.items())
    content = bytearray(parts[1].read_bytes())
    content[10] ^= 1
    parts[1].write_bytes(content)
    with pytest.raises(BadCheckpoint, match="changed bytes"):
        checkpoint.load(tmp_path)
    parts[1].unlink()
    with pytest.raises(BadCheckpoint, match="part"):
        checkpoint.load(tmp_path)
    (tmp_path / checkpoint.INDEX).write_text('{"kind": "other"}')
    with pytest.raises(BadCheckpoint, match="training run"):
        checkpoint.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFailed, match="could not write"):
        checkpoint.save(tmp_path / "file", tensors, facts)


def test_a_packed_run_goes_on(data, whole, tmp_path):
    pack(whole, tmp_path / "light", max_part_mb=0.02)
    sizes = [p.stat().st_size for p in (tmp_path / "light").glob("*.part")]
    assert max(sizes) <= 0.02 * 2**20 and sum(sizes) < 0.4 * sum(p.stat().st_size for p in parts_of(whole))
    longer = with_budget(tiny(), "adversarial", 0.096, None)
    assert longer.supervised.kimg == 0 and longer.adversarial.kimg == 0.096
    result = run(tmp_path / "light", data, longer)
    assert result["done"] and result["images"]["adversarial"] == 96
    with pytest.raises(BadArtifact, match="free name"):
        pack(whole, tmp_path / "light")


def test_what_a_killed_first_checkpoint_left_is_in_nobodys_way(data, whole, tmp_path):
    for name in ("run", "light"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint-0a1b2c3d-000.part").write_bytes(b"whole, but no index names it")
        (tmp_path / name / ".checkpoint-0a1b2c3d-001.part.new").write_bytes(b"half")
    pack(whole, tmp_path / "light")
    assert not run(tmp_path / "run", data, tiny(), minutes=1e-4)["done"]
    for name in ("run", "light"):
        checkpoint.load(tmp_path / name)
        assert not list((tmp_path / name).glob("*checkpoint-0a1b2c3d*"))


def test_a_run_starts_from_a_base_and_keeps_its_model(data, whole, tmp_path):
    from mystudio.stylegan2.checkpoint import save_generator

    g, _ = export_generator(whole)
    save_generator(g, tmp_path / "base.safetensors")
    begun = run(tmp_path / "run", data, tiny(supervised=0), start=tmp_path / "base.safetensors", minutes=1e-4)
    assert not begun["done"]
    start, _ = export_generator(tmp_path / "run")
    assert all(torch.equal(v, start.state_dict()[k]) for k, v in g.state_dict().items())
    other = replace(tiny(), model=replace(tiny().model, w_dim=4))
    with pytest.raises(BadArtifact, match="begun with model"):
        run(tmp_path / "run", data, other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(BadArtifact, match="other files"):
        run(tmp_path / "mine", data, tiny())


def test_images_without_codes_are_learnt_by_codes_that_are_read_off_them(data, tmp_path):
    settings = replace(tiny(0.32, 0), supervised=replace(tiny().supervised, kimg=0.32, read=1.0))
    settings = replace(settings, train=replace(settings.train, tick_kimg=0.08))
    run(tmp_path / "once", data, settings)
    rows = _rows(tmp_path / "once")
    for name in ("likeness", "portraits", "read"):
        assert rows[-1]["losses"][name] < 0.9 * rows[0]["losses"][name], name
    run(tmp_path / "twice", data, settings, minutes=1e-4)  # stops at once
    run(tmp_path / "twice", data, settings)
    assert _equal(tmp_path / "once", tmp_path / "twice")


def test_data_that_does_not_fit_the_run_is_one_sentence(data, tmp_path):
    with pytest.raises(BadData, match="codes"):
        run(tmp_path / "a", data[:1], tiny())
    with pytest.raises(BadData, match="z_dim"):
        run(tmp_path / "b", data, replace(tiny(), model=replace(tiny().model, z_dim=2)))


def test_compilation_that_fails_is_done_without():
    warnings, calls = [], []

    def fast(x):
        calls.append(x)
        raise RuntimeError("no compiler")

    call = with_fallback(fast, lambda x: x + 1, warnings)
    assert call(1) == 2 and call(2) == 3
    assert calls == [1] and "no compiler" in warnings[0]
    with pytest.raises(TypeError):
        call("a")


def test_bfloat16_maps_train_too(data, tmp_path):
    """All steps, including those with second derivatives, run with half-precision feature maps."""
    settings = tiny(supervised=0, adversarial=0.032, wait_kimg=0)
    settings = replace(settings, train=replace(settings.train, precision="bfloat16"))
    assert run(tmp_path / "run", data, settings)["done"]
    losses = _rows(tmp_path / "run")[0]["losses"]
    exact = replace(settings, train=replace(settings.train, precision="float32"))
    run(tmp_path / "exact", data, exact)
    for name, value in _rows(tmp_path / "exact")[0]["losses"].items():
        assert losses[name] == pytest.approx(value, rel=0.1, abs=0.02), name
