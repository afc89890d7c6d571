"""An avatar can be used while it is still being made."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import actor_avatar
import pytest
import torch

from mystudio import drafts, pipeline
from mystudio.drafts import expected_fall, is_good, quality
from mystudio.engines import personal
from mystudio.engines.personal import resemblance
from mystudio.recipe import resolve
from mystudio.storage.artifacts import is_draft, load, save
from mystudio.storage.manifest import digest
from mystudio.storage.workspace import stage
from mystudio.types import Avatar

OPTIONS = [
    "personalize.steps=4",
    "personalize.batch=2",
    "personalize.check_every=2",
    "personalize.patience=0",
    "personalize.resolution=0",
    "personalize.width=0",
    "regress.samples=16",
    "regress.steps=4",
]
SMALL = resolve("default", OPTIONS)


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "me.scan"
    whole = actor_avatar.scan()
    names = ("images", "landmarks", "frame_index", "quality")
    with stage(path, "scan", {}, {}) as run:
        save(replace(whole, **{name: getattr(whole, name)[:6] for name in names}), run)
    return path


@pytest.fixture(scope="module")
def whole(scan, tmp_path_factory) -> Path:
    """The avatar of an undisturbed run."""
    return pipeline.run_personalize(scan, tmp_path_factory.mktemp("whole") / "me.avatar", "people128", SMALL)


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(resemblance, "COMPARED", 3)
    monkeypatch.setattr(personal, "DRAFT_SAMPLES", 6)


@pytest.fixture
def at_once(monkeypatch):
    """Drafts are due from the first step on, and cost nothing."""
    monkeypatch.setattr(drafts, "FIRST", 0.0)
    monkeypatch.setattr(drafts, "GROWTH", 0.0)
    monkeypatch.setattr(drafts, "SHARE", 0.0)


def flat(path: Path) -> torch.Tensor:
    return torch.cat([p.flatten() for p in load(path, Avatar).generator.parameters()])


def test_a_draft_can_be_driven_and_the_finished_avatar_replaces_it(scan, whole, tmp_path, at_once):
    out, seen = tmp_path / "me.avatar", []

    def tell(sentence: str) -> None:
        made = load(out, Avatar)  # while the stage still runs
        take = personal.reenact(made, actor_avatar.performance(actor_avatar.path(2, seed=3)), actor_avatar.SETTINGS)
        seen.append((sentence, made.info["steps"], len(take), is_draft(out)))

    pipeline.run_personalize(scan, out, "people128", SMALL, tell=tell)
    assert [step for _, step, *_ in seen] == [1, 2, 3, 4]
    assert all(sentence.startswith("me.avatar can be used from now on. Likeness 0.") for sentence, *_ in seen)
    assert all(frames == 2 and draft for *_, frames, draft in seen)
    assert not is_draft(out) and not (tmp_path / "me.avatar.partial").exists()
    assert torch.equal(flat(out), flat(whole))


def test_after_a_time_limit_the_same_command_goes_on_to_the_same_avatar(scan, whole, tmp_path, monkeypatch):
    out = tmp_path / "me.avatar"
    monkeypatch.setattr(drafts, "COST", 0.0)
    steps = []
    while not steps or is_draft(out):
        pipeline.run_personalize(scan, out, "people128", SMALL, minutes=1e-9)
        steps.append(load(out, Avatar).info["steps"])
    assert steps == [1, 2, 3, 4, 4]
    assert torch.equal(flat(out), flat(whole))


def test_drafts_never_replace_another_avatar(scan, whole, tmp_path, at_once):
    out, told = tmp_path / "me.avatar", []
    shutil.copytree(whole, out)
    before = digest(out)
    again = resolve("default", [*OPTIONS, "personalize.seed=1"])
    pipeline.run_personalize(scan, out, "people128", again, tell=told.append)
    assert not told and digest(out) != before and not is_draft(out)


def test_work_ends_when_the_avatar_is_good(scan, tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(drafts, "NEAR", math.inf)
    monkeypatch.setattr(drafts, "expected_fall", lambda info: 0.0)
    out = pipeline.run_personalize(scan, tmp_path / "me.avatar", "people128", SMALL, until_good=True)
    assert load(out, Avatar).info["steps"] < 4 and is_draft(out)


def test_the_forecast_is_exact_for_a_power_of_the_steps():
    history = [[step, 0.0, 3.0 * step**-0.4] for step in range(100, 1000, 100)]
    assert expected_fall({"history": history}) == pytest.approx(1 - 2**-0.4)
    assert expected_fall({"history": history[:2]}) is None
    near = {"likeness": 0.6, "own_likeness": 0.61}
    assert not is_good(near | {"history": history}) and is_good(near | {"history": [[s, 0, 1.0] for s in range(1, 9)]})
    assert not is_good({"likeness": 0.4, "own_likeness": 0.6, "history": [[s, 0, 1.0] for s in range(1, 9)]})
    told = quality(near | {"history": history}, 4.2)
    assert told == (
        "Likeness 0.60, among the scan's own images 0.61. Another 4 min would bring its pictures about 24% nearer."
    )


@pytest.mark.parametrize(("before", "steps", "cost"), [(10, 130, 9), (70, 40, 3), (2, 50, 20), (15, 4000, 30)])
def test_what_drafts_cost_is_foreseen(monkeypatch, tmp_path, before, steps, cost):
    """Against the drafts themselves, on a clock that steps of a second move on."""
    clock = [1000.0]
    monkeypatch.setattr(drafts.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(drafts, "save", lambda made, run, draft: None)
    with stage(tmp_path / "me.avatar", "avatar", {}, {}) as run:
        watch = drafts.Drafts(run, 0.0, False, lambda said: None)
    made = []

    def make():
        clock[0] += cost
        made.append(clock[0])
        return SimpleNamespace(info={})

    clock[0] += before
    for _ in range(steps):
        clock[0] += 1
        assert not watch(make)
    assert drafts.spent(before, steps, cost) == pytest.approx(len(made) * cost)
    assert clock[0] == 1000 + before + steps + len(made) * cost
