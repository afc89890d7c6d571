"""How long ``personalize`` takes here: a few real steps on a few images of the scan, scaled to the whole work.

Other programs slow a trial of some seconds down far more than the hour that it stands for. So its fastest step counts,
and no part counts for more than its processor time.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np

from mystudio.engines.personal import tune
from mystudio.engines.personal.settings import PersonalizeSettings
from mystudio.engines.protocol import Forecast
from mystudio.types import Avatar, Progress
from selfscan.checkpoints import Arrays, NoCheckpoints
from selfscan.scan.without import without
from selfscan.types import Scan

IMAGES = 16  # of the scan: some batches of tuning
FEWER = 4  # images of a second look at what is done before tuning: the difference is what an image costs
STEPS = 6  # of tuning: three at each of two sizes, where it draws smaller pictures first
SAMPLES = 32  # drawn for the regressor

#: makes an avatar of a scan with settings, and reports
Make = Callable[[Scan, PersonalizeSettings, Progress], Avatar]
Moment = tuple[float, float]  # s of the clock, and of the processors


class Unwritten(NoCheckpoints):
    """Does what storing a checkpoint takes of the processor, and stores nothing."""

    def put(self, name: str, arrays: Arrays) -> None:
        np.savez(content := BytesIO(), **arrays)
        hashlib.sha256(content.getbuffer())


class _Enough(Exception):
    """Tuning has begun."""


@dataclass(frozen=True)
class _Seen:
    """A trial: when it began and ended, and when each step of tuning and each sample was done."""

    begin: Moment
    steps: dict[int, Moment]
    samples: dict[int, Moment]
    end: Moment
    size: int  # px, side of the avatar


def shortened(settings: PersonalizeSettings) -> PersonalizeSettings:
    """The settings of the trial: as the whole work's, with fewer steps and samples."""
    few = replace(settings.personalize, steps=min(STEPS, settings.personalize.steps))
    samples = min(SAMPLES, settings.regress.samples)
    return replace(settings, personalize=few, regress=replace(settings.regress, samples=samples))


def forecast(
    make: Make, scan: Scan, settings: PersonalizeSettings, on_cpu: bool = True, draft_samples: int = 0
) -> Forecast:
    """Run the trial; returns how long the parts of the whole work would take, if tuning does not stop early.

    Args:
        make: runs the engine, with checkpoints that are ``Unwritten``. scan: of the person. settings: of the whole
            work. on_cpu: the processor does the work; it only waits for a GPU. draft_samples: of an avatar on the way.
    Raises: as ``make``.
    """
    few, count = shortened(settings), min(IMAGES, len(scan))
    cold, warm = (_until_tuning(make, _first(scan, FEWER), few, on_cpu) for _ in range(2))
    seen = _whole(make, _first(scan, count), few)
    (first, drew), (last, drawn) = min(seen.samples.items()), max(seen.samples.items())
    one = _between(drew, drawn, on_cpu) / max(last - first, 1)  # s a sample
    step, prepared = _step_seconds(seen, few.personalize, on_cpu)
    begun = _between(seen.begin, seen.steps[min(seen.steps)], on_cpu)
    image = max(0.0, begun - warm) / max(count - FEWER, 1)
    check = max(0.0, _between(seen.steps[max(seen.steps)], drew, on_cpu) - one * first)
    aims = prepared * len(scan) / count  # tuning prepares all images for each larger size
    fitted = _between(drawn, seen.end, on_cpu)
    during = _tuning(settings.personalize, step, seen.size) + check * _checks(settings.personalize) + aims
    return Forecast(
        before=cold + image * (len(scan) - min(FEWER, len(scan))),
        during=during,
        after=one * (settings.regress.samples + len(scan)) + fitted,
        draft=one * (min(draft_samples, settings.regress.samples) + len(scan)) + fitted,
    )


def _first(scan: Scan, count: int) -> Scan:
    return without(scan, scan.frame_index[count:].tolist())


def _until_tuning(make: Make, scan: Scan, settings: PersonalizeSettings, on_cpu: bool) -> float:
    """What is done before the first step and with it, s."""

    def note(stage: str, done: int, total: int) -> None:
        if stage == "tune":
            raise _Enough

    begin = _now()
    with suppress(_Enough):
        make(scan, settings, note)
    return _between(begin, _now(), on_cpu)


def _whole(make: Make, scan: Scan, settings: PersonalizeSettings) -> _Seen:
    times = defaultdict[str, dict[int, Moment]](dict)

    def note(stage: str, done: int, total: int) -> None:
        times[stage][done] = _now()

    begin = _now()
    made = make(scan, settings, note)
    return _Seen(begin, dict(times["tune"]), dict(times["samples"]), _now(), made.generator.resolution)


def _step_seconds(seen: _Seen, few: tune.TuneSettings, on_cpu: bool) -> tuple[dict[int, float], float]:
    """Size that is drawn, px -> s of its fastest step; and what the first steps of larger sizes take beyond it, s.

    The first step of a size also prepares the images.
    """
    found, firsts = defaultdict[int, list[float]](list), dict[int, float]()
    for k in seen.steps:
        if k - 1 not in seen.steps:
            continue
        seconds = _between(seen.steps[k - 1], seen.steps[k], on_cpu)
        side, before = (tune.size_at(few, n, seen.size) for n in (k - 1, k - 2))  # step k is the one from k - 1 on
        if side == before:
            found[side].append(seconds)
        else:
            firsts[side] = seconds
    step = {side: min(values) for side, values in found.items()}
    return step, sum(max(0.0, seconds - step.get(side, seconds)) for side, seconds in firsts.items())


def _tuning(whole: tune.TuneSettings, step: dict[int, float], size: int) -> float:
    counts = Counter(tune.size_at(whole, k, size) for k in range(whole.steps))
    return sum(step.get(side, max(step.values(), default=0.0)) * count for side, count in counts.items())


def _checks(whole: tune.TuneSettings) -> int:
    """How often tuning checks, stores a checkpoint and shows a preview."""
    return -(-whole.steps // whole.check_every)


def _now() -> Moment:
    return time.perf_counter(), time.process_time()


def _between(start: Moment, end: Moment, on_cpu: bool) -> float:
    clock, busy = end[0] - start[0], end[1] - start[1]
    return min(clock, busy) if on_cpu else clock
