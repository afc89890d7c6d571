"""How long an avatar takes: a trial of the real work, scaled by its parts."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import actor_avatar
import pytest

from mystudio import engines
from mystudio.bases import find_base
from mystudio.engines.personal import trial as forecasting
from mystudio.engines.personal import tune
from mystudio.engines.personal.settings import PersonalizeSettings
from mystudio.engines.personal.trial import SAMPLES, STEPS, forecast, shortened
from mystudio.engines.protocol import Forecast, Forecasts
from mystudio.recipe import resolve

START, IMAGE, CHECK, FIT = 7.0, 0.3, 1.5, 4.0  # s: what is done once, an image before tuning, a check, the regressor


def made_of(clock: list[float], resolution: int, step: dict[int, float], sample: float):
    """An engine whose parts take known times; before the first step of each size it prepares its images."""

    def make(scan, settings, note):
        clock[0] += START + IMAGE * len(scan)
        before, tuning = None, settings.personalize
        for k in range(tuning.steps):
            size = tune.size_at(tuning, k, resolution)
            clock[0] += step[size] + 0.1 * len(scan) * (size != before)
            before = size
            note("tune", k + 1, tuning.steps)
            clock[0] += CHECK * ((k + 1) % tuning.check_every == 0 or k + 1 == tuning.steps)
        total = settings.regress.samples + len(scan)
        for done in range(0, total, 8):
            clock[0] += sample * min(8, total - done)
            note("samples", min(done + 8, total), total)
        clock[0] += FIT
        return SimpleNamespace(generator=SimpleNamespace(resolution=resolution))

    return make


def parts_of(scan, settings, resolution: int, step: dict[int, float], sample: float) -> Forecast:
    """What the same engine takes for the whole work, found by doing it."""
    clock, tuned, samples = [0.0], [], settings.regress.samples

    def note(stage, done, total):
        if stage == "tune":
            tuned.append(clock[0])

    made_of(clock, resolution, step, sample)(scan, settings, note)
    after = FIT + sample * (samples + len(scan))
    return Forecast(tuned[0], clock[0] - after - tuned[0], after, FIT + sample * (min(120, samples) + len(scan)))


SIZES = [(256, {256: 0.5}), (512, {256: 0.5, 512: 2.0})]


@pytest.mark.parametrize("recipe", ["quick", "default"])
@pytest.mark.parametrize(("resolution", "step"), SIZES)
def test_every_part_grows_with_its_own_units(monkeypatch, recipe, resolution, step):
    """Steps with their sizes, checks, images, samples: the estimate of each part is what the whole work takes."""
    clock = [100.0]
    monkeypatch.setattr(forecasting, "_now", lambda: (clock[0], 2 * clock[0]))  # two processors at work
    scan, settings = actor_avatar.scan(40), resolve(recipe).of("personal", "personalize")
    found = forecast(made_of(clock, resolution, step, 0.02), scan, settings, draft_samples=120)
    true = parts_of(scan, settings, resolution, step, 0.02)
    for part in ("before", "during", "after", "draft"):
        assert getattr(found, part) == pytest.approx(getattr(true, part), rel=0.01, abs=step[256]), part


def test_a_busy_machine_slows_the_trial_and_not_the_estimate(monkeypatch):
    """Another program takes five seconds between every two looks at the clock."""
    clock, waits = [100.0], [0.0]

    def now():
        waits[0] += 5.0
        return clock[0] + waits[0], clock[0]

    monkeypatch.setattr(forecasting, "_now", now)
    settings, scan, step = PersonalizeSettings(), actor_avatar.scan(20), {256: 0.5}
    busy = forecast(made_of(clock, 256, step, 0.02), scan, settings)
    waiting = forecast(made_of(clock, 256, step, 0.02), scan, settings, on_cpu=False)
    true = parts_of(scan, settings, 256, step, 0.02)
    assert busy.during == pytest.approx(true.during, rel=0.01) and busy.after == pytest.approx(true.after, rel=0.01)
    assert waiting.during > 5 * busy.during  # of a GPU, only the clock tells


def test_the_trial_is_short_and_otherwise_the_whole_work():
    whole = resolve("quick").of("personal", "personalize")
    few = shortened(whole)
    assert (few.personalize.steps, few.regress.samples) == (STEPS, SAMPLES)
    assert replace(few.personalize, steps=whole.personalize.steps) == whole.personalize
    short = shortened(replace(whole, personalize=replace(whole.personalize, steps=2)))
    assert short.personalize.steps == 2


def test_a_real_trial_says_how_long_its_steps_take():
    """Of 4,000 steps it did six: the whole takes far longer than the trial, and less than the trial for each step."""
    engine = engines.named("personal")
    assert isinstance(engine, Forecasts)
    options = ["personalize.resolution=0", "personalize.width=0", "regress.samples=40", "regress.steps=20"]
    settings = resolve("default", [*options, "personalize.steps=4000"]).of("personal", "personalize")
    begin = time.perf_counter()
    found = engine.forecast(actor_avatar.scan(9), find_base("people128"), settings)
    spent = time.perf_counter() - begin
    assert 3 * spent < found.during < 4000 * spent / STEPS
    assert 0 < found.draft and 0 < found.before < spent and 0 < found.after < spent
