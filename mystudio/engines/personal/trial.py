"""How long ``personalize`` takes here: a few real steps on a few images of the scan, scaled to the whole work."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from mystudio.engines.personal import tune
from mystudio.engines.personal.settings import PersonalizeSettings
from mystudio.types import Avatar, Progress
from selfscan.scan.without import without
from selfscan.types import Scan

IMAGES = 8  # of the scan: two batches of tuning
STEPS = 6  # of tuning: three at each of two sizes, where it draws smaller pictures first
SAMPLES = 32  # drawn for the regressor

#: makes an avatar of a scan with settings, and reports
Make = Callable[[Scan, PersonalizeSettings, Progress], Avatar]


def shortened(settings: PersonalizeSettings) -> PersonalizeSettings:
    """The settings of the trial: as the whole work's, with fewer steps and samples."""
    few = replace(settings.personalize, steps=min(STEPS, settings.personalize.steps))
    samples = min(SAMPLES, settings.regress.samples)
    return replace(settings, personalize=few, regress=replace(settings.regress, samples=samples))


def forecast(make: Make, scan: Scan, settings: PersonalizeSettings) -> float:
    """Run the trial; returns how long the whole work would take, s, if tuning does not stop early.

    Args: make: runs the engine. scan: of the person. settings: of the whole work.
    Raises: as ``make``.
    """
    few, times = shortened(settings), defaultdict[str, dict[int, float]](dict)

    def note(stage: str, done: int, total: int) -> None:
        times[stage][done] = time.perf_counter()

    begin = time.perf_counter()
    made = make(without(scan, scan.frame_index[IMAGES:].tolist()), few, note)
    spent, size = time.perf_counter() - begin, made.generator.resolution
    steps, samples = dict(times["tune"]), dict(times["samples"])
    step = _step_seconds(steps, few.personalize, size)
    whole = Counter(tune.size_at(settings.personalize, k, size) for k in range(settings.personalize.steps))
    tuning = sum(step.get(side, max(step.values(), default=0.0)) * count for side, count in whole.items())
    (first, start), (last, end) = min(samples.items()), max(samples.items())
    one = (end - start) / max(last - first, 1)
    rest = spent - sum(_gaps(steps).values()) - (end - start)
    return rest + tuning + one * (settings.regress.samples + len(scan))


def _step_seconds(steps: dict[int, float], few: tune.TuneSettings, size: int) -> dict[int, float]:
    """Size that is drawn, px -> s of a step; the first step of a size also prepares the images, and does not count."""
    found = defaultdict[int, list[float]](list)
    for k, seconds in _gaps(steps).items():
        side, before = (tune.size_at(few, n, size) for n in (k - 1, k - 2))  # step k is the one from k - 1 on
        if side == before:
            found[side].append(seconds)
    return {side: median(values) for side, values in found.items()}


def _gaps(steps: dict[int, float]) -> dict[int, float]:
    return {k: steps[k] - steps[k - 1] for k in steps if k - 1 in steps}
