"""How long ``personalize`` takes here: a few real steps on a few images of the scan, scaled to the whole work.

Other programs slow a trial of some seconds down far more than the hour that it stands for. So its fastest step counts,
and no part counts for more than its processor time.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

from mystudio.engines.personal import tune
from mystudio.engines.personal.settings import PersonalizeSettings
from mystudio.types import Avatar, Progress
from selfscan.scan.without import without
from selfscan.types import Scan

IMAGES = 8  # of the scan: some batches of tuning
STEPS = 6  # of tuning: three at each of two sizes, where it draws smaller pictures first
SAMPLES = 32  # drawn for the regressor

#: makes an avatar of a scan with settings, and reports
Make = Callable[[Scan, PersonalizeSettings, Progress], Avatar]
Moment = tuple[float, float]  # s of the clock, and of the processors


def shortened(settings: PersonalizeSettings) -> PersonalizeSettings:
    """The settings of the trial: as the whole work's, with fewer steps and samples."""
    few = replace(settings.personalize, steps=min(STEPS, settings.personalize.steps))
    samples = min(SAMPLES, settings.regress.samples)
    return replace(settings, personalize=few, regress=replace(settings.regress, samples=samples))


def forecast(make: Make, scan: Scan, settings: PersonalizeSettings, on_cpu: bool = True) -> float:
    """Run the trial; returns how long the whole work would take, s, if tuning does not stop early.

    Args:
        make: runs the engine. scan: of the person. settings: of the whole work.
        on_cpu: the processor does the work; it only waits for a GPU.
    Raises: as ``make``.
    """
    few, times = shortened(settings), defaultdict[str, dict[int, Moment]](dict)

    def note(stage: str, done: int, total: int) -> None:
        times[stage][done] = _now()

    begin = _now()
    made = make(without(scan, scan.frame_index[IMAGES:].tolist()), few, note)
    end, size = _now(), made.generator.resolution
    steps, samples = dict(times["tune"]), dict(times["samples"])
    (first, drew), (last, drawn) = min(samples.items()), max(samples.items())
    one = _between(drew, drawn, on_cpu) / max(last - first, 1)
    gaps = {k: _between(steps[k - 1], steps[k], on_cpu) for k in steps if k - 1 in steps}
    step = _step_seconds(gaps, few.personalize, size)
    whole = Counter(tune.size_at(settings.personalize, k, size) for k in range(settings.personalize.steps))
    tuning = sum(step.get(side, max(step.values(), default=0.0)) * count for side, count in whole.items())
    rest = [(begin, steps[min(steps)]), (steps[max(steps)], drew), (drawn, end)]
    once = sum(_between(*span, on_cpu) for span in rest)
    return once + tuning + one * (settings.regress.samples + len(scan))


def _step_seconds(gaps: dict[int, float], few: tune.TuneSettings, size: int) -> dict[int, float]:
    """Size that is drawn, px -> s of its fastest step.

    Args: gaps: step -> s. The first step of a size also prepares the images, and does not count.
    """
    found = defaultdict[int, list[float]](list)
    for k, seconds in gaps.items():
        side, before = (tune.size_at(few, n, size) for n in (k - 1, k - 2))  # step k is the one from k - 1 on
        if side == before:
            found[side].append(seconds)
    return {side: min(values) for side, values in found.items()}


def _now() -> Moment:
    return time.perf_counter(), time.process_time()


def _between(start: Moment, end: Moment, on_cpu: bool) -> float:
    clock, busy = end[0] - start[0], end[1] - start[1]
    return min(clock, busy) if on_cpu else clock
