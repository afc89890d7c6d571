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
from mystudio.engines.personal.settings import PersonalizeSettings
from mystudio.engines.personal.trial import IMAGES, SAMPLES, STEPS, forecast, shortened
from mystudio.engines.protocol import Forecasts
from mystudio.recipe import resolve

REST = 7.0  # s of everything else


def made_of(clock: list[float], resolution: int, step: dict[int, float], sample: float):
    """An engine whose parts take known times; the first step of each size takes a second more."""

    def make(scan, settings, note):
        assert len(scan) == IMAGES
        clock[0] += REST
        before = None
        for k in range(settings.personalize.steps):
            size = forecasting.tune.size_at(settings.personalize, k, resolution)
            clock[0] += step[size] + (size != before)
            before = size
            note("tune", k + 1, settings.personalize.steps)
        for done in range(8, settings.regress.samples + 1, 8):
            clock[0] += 8 * sample
            note("samples", done, settings.regress.samples)
        return SimpleNamespace(generator=SimpleNamespace(resolution=resolution))

    return make


@pytest.mark.parametrize(("resolution", "step"), [(256, {256: 0.5}), (512, {256: 0.5, 512: 2.0})])
def test_every_part_grows_with_its_own_units(monkeypatch, resolution, step):
    clock = [100.0]
    monkeypatch.setattr(forecasting, "_now", lambda: (clock[0], 2 * clock[0]))  # two processors at work
    settings = PersonalizeSettings()
    scan = actor_avatar.scan(12)
    found = forecast(made_of(clock, resolution, step, 0.02), scan, settings)
    tune, regress = settings.personalize, settings.regress
    shares = {256: tune.grow, 512: 1 - tune.grow} if resolution == 512 else {256: 1.0}
    tuning = sum(step[size] * share * tune.steps for size, share in shares.items())
    true = REST + tuning + 0.02 * (regress.samples + len(scan))
    assert found == pytest.approx(true, abs=4)  # first steps and first samples are part of what is done once
    assert found > tuning


def test_a_busy_machine_slows_the_trial_and_not_the_estimate(monkeypatch):
    """Another program takes five seconds between every two looks at the clock."""
    clock, waits = [100.0], [0.0]

    def now():
        waits[0] += 5.0
        return clock[0] + waits[0], clock[0]

    monkeypatch.setattr(forecasting, "_now", now)
    settings, scan, step = PersonalizeSettings(), actor_avatar.scan(12), {256: 0.5}
    busy = forecast(made_of(clock, 256, step, 0.02), scan, settings)
    waiting = forecast(made_of(clock, 256, step, 0.02), scan, settings, on_cpu=False)
    tuning = step[256] * settings.personalize.steps
    assert busy == pytest.approx(REST + tuning + 0.02 * (settings.regress.samples + len(scan)), abs=4)
    assert waiting > 5 * busy  # of a GPU, only the clock tells


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
    assert 3 * spent < found < 4000 * spent / STEPS
