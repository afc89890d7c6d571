"""Runs of one-shot engines: phases in order, the same weights after a stop, going back after NaN."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from mystudio.errors import ArtifactBusy, BadArtifact, BadCheckpoint, TrainingDiverged
from mystudio.oneshot import loop
from mystudio.oneshot.loop import LoopSettings, Phase, train
from mystudio.oneshot.trainee import Networks
from mystudio.storage.locks import lock

EVERY = LoopSettings(tick_kimg=0.004, sheet_every=2, save_every=1)


class Line:
    """Learns y = 2 x + 1; the second phase trains the bias alone."""

    def __init__(self, seed=0, stop_at=None, poison=()):
        torch.manual_seed(seed)
        self.nets = Networks({"slope": nn.Linear(1, 1, bias=False), "shift": nn.Linear(1, 1, bias=False)})
        self.stop_at, self.poison, self.seed, self.steps = stop_at, set(poison), seed, []

    phases = {"both": Phase(0.016, 2), "skipped": Phase(0.0, 2), "shift": Phase(0.008, 2)}

    @property
    def identity(self):
        return {"engine": "line", "seed": self.seed}

    settings = {"any": 1}

    def enter(self, phase):
        self.nets.train({"slope": 0.1, "shift": 0.1} if phase == "both" else {"shift": 0.1})

    def step(self, phase, number, rate):
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.steps.append((phase, number, round(rate, 4)))
        x = torch.randn(2, 1, generator=torch.Generator().manual_seed(number))
        made = self.nets.nets["slope"](x) + self.nets.nets["shift"](torch.ones(2, 1))
        loss = (made - 2 * x - 1).square().mean()
        self.nets.descend(loss, rate)
        if number in self.poison:
            self.poison.discard(number)
            self.nets.nets["slope"].weight.data.fill_(torch.nan)
        return {"square": loss.detach()}

    def state(self):
        return self.nets.state()

    def restore(self, tensors):
        self.nets.restore(tensors)

    def finite(self):
        return self.nets.finite()

    def sheet(self):
        return np.zeros((4, 4, 3), np.uint8)


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_phases_in_order_with_falling_rates(tmp_path):
    line, seen = Line(), []
    made = train(tmp_path / "run", line, EVERY, progress=lambda *told: seen.append(told))
    assert made == {"done": True, "phase": "shift", "images": 8, "steps": 12, "rollbacks": 0}
    assert [s[:2] for s in line.steps] == [("both", k) for k in range(8)] + [("shift", k) for k in range(8, 12)]
    assert line.steps[0][2] == 1.0 and 0.05 < line.steps[7][2] < 0.1 and line.steps[8][2] == 1.0
    assert seen[0] == ("both", 2, 16) and seen[-1] == ("shift", 8, 8)
    told = rows(tmp_path / "run")
    assert [(r["phase"], r["seen"]) for r in told] == [("both", k) for k in (4, 8, 12, 16)] + [
        ("shift", 4),
        ("shift", 8),
    ]
    assert told[3]["losses"]["square"] < told[0]["losses"]["square"]
    assert {p.name for p in (tmp_path / "run" / "sheets").iterdir()} >= {"both-0000008.png", "shift-0000008.png"}


@pytest.mark.parametrize("stop_at", [3, 8, 10])
def test_a_stopped_run_gives_the_same_weights(tmp_path, stop_at):
    whole, cut = Line(), Line(stop_at=stop_at)
    train(tmp_path / "whole", whole, EVERY)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", cut, EVERY)
    again = Line()
    assert train(tmp_path / "cut", again, EVERY)["done"] and again.steps
    assert all(torch.equal(value, again.state()[name]) for name, value in whole.state().items())
    same = [[{**row, "seconds": 0, "time": 0} for row in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert same[0] == same[1]
    finished = Line()
    assert train(tmp_path / "cut", finished, EVERY)["done"] and not finished.steps


def test_nan_goes_back_with_half_the_rate(tmp_path):
    line = Line(poison=[5])
    made = train(tmp_path / "run", line, EVERY)
    assert made["done"] and made["rollbacks"] == 1 and line.finite()
    assert [s[1] for s in line.steps[:8]] == [0, 1, 2, 3, 4, 5, 4, 5] and line.steps[6][2] < 0.6 * line.steps[4][2]


def test_nan_for_ever_ends_the_run(tmp_path):
    class Broken(Line):
        def step(self, phase, number, rate):
            self.poison = {number}
            return super().step(phase, number, rate)

    with pytest.raises(TrainingDiverged, match="lower the rates"):
        train(tmp_path / "run", Broken(), EVERY)


def test_a_time_limit_stops_with_a_checkpoint(tmp_path):
    made = train(tmp_path / "run", Line(), EVERY, loop.Limits(minutes=1e-6))
    assert not made["done"] and made["steps"] == 0
    assert loop.stored(tmp_path / "run")["identity"] == {"engine": "line", "seed": 0}
    assert train(tmp_path / "run", Line(), EVERY)["done"]


def test_other_runs_and_folders_are_refused(tmp_path):
    train(tmp_path / "run", Line(), EVERY)
    with pytest.raises(BadArtifact, match="another seed"):
        train(tmp_path / "run", Line(seed=1), EVERY)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(BadArtifact, match="holds other files"):
        train(tmp_path / "full", Line(), EVERY)
    with pytest.raises(BadCheckpoint, match="expected a training run"):
        loop.stored(tmp_path / "full")
    with lock(tmp_path / "run"), pytest.raises(ArtifactBusy):
        train(tmp_path / "run", Line(), EVERY)


def test_frozen_networks_do_not_change():
    line = Line()
    line.enter("shift")
    before = line.nets.nets["slope"].weight.clone()
    for number in range(3):
        line.step("shift", number, 1.0)
    assert torch.equal(line.nets.nets["slope"].weight, before)
