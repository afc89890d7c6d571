"""Run one stage in a separate process and measure wall-clock and processor time by phase, and peak memory.

    python -m mystudio.bench.child '{"stage": "run_scan", "arguments": {...}, "recipe": "default", "options": []}'

The last line of stdout is one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mystudio import pipeline
from mystudio.recipe import resolve

#: phases that begin with a set-up (loading networks, embedding targets): timed from the first unit to the last
ITERATIONS = ("invert", "tune")
PATHS = ("video", "out", "scan_path", "avatar_path", "take_path", "identity_net", "blendshapes", "folder")


class Clock:
    """A progress callable that records when each phase began and ended.

    Args:
        now: returns (seconds, processor seconds) since any fixed time.
    """

    def __init__(self, now: Callable[[], tuple[float, float]] = lambda: (time.perf_counter(), time.process_time())):
        self.now, self.last = now, now()
        self.phases: dict[str, dict[str, Any]] = {}
        self.held_mb = 0.0  # largest value of ``held_mb`` so far

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Called by the stage."""
        now = self.now()
        self.held_mb = max(self.held_mb, held_mb())
        phase = self.phases.setdefault(stage, {"begin": self.last, "first": now, "first_done": done})
        phase |= {"end": now, "done": done}
        self.last = now

    def costs(self) -> dict[str, dict[str, float]]:
        """Return phase -> number of units, seconds per unit and processor seconds per unit."""
        costs = {}
        for name, phase in self.phases.items():
            start, units = phase["begin"], phase["done"]
            if name in ITERATIONS and phase["done"] > phase["first_done"]:
                start, units = phase["first"], phase["done"] - phase["first_done"]
            wall, processor = (end - begin for begin, end in zip(start, phase["end"]))
            costs[name] = {"units": units, "seconds": wall / max(units, 1), "cpu_seconds": processor / max(units, 1)}
        return costs


def peak_mb() -> float:
    """Return the peak resident memory of this process, MB.

    On Linux ``ru_maxrss`` of a child includes the parent's peak, so ``VmHWM`` is read instead.
    """
    found = _status("VmHWM")
    if found:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def held_mb() -> float:
    """Return the anonymous memory of this process, MB; 0 on systems that do not report it (Linux does).

    Pages mapped from files are excluded, because the system can reclaim them at any time.
    """
    return _status("RssAnon")


def _status(name: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def run_stage(stage: str, arguments: Mapping[str, Any], recipe: str, options: Sequence[str]) -> dict[str, Any]:
    """Run a stage of the pipeline and return its costs: seconds, processor seconds and memory, by name."""
    clock, start = Clock(), time.perf_counter()
    given = {name: Path(value) if name in PATHS and value else value for name, value in arguments.items()}
    if stage not in ("run_perform", "run_evaluate"):
        given["recipe"] = resolve(recipe, options)
    getattr(pipeline, stage)(**given, progress=clock, force=True)
    return {
        "wall": time.perf_counter() - start,
        "cpu": time.process_time(),
        "peak_mb": peak_mb(),
        "held_mb": clock.held_mb,
        "phases": clock.costs(),
        **_gpu(),
    }


def _gpu() -> dict[str, float]:
    import torch

    return {"gpu_mb": torch.cuda.max_memory_allocated() / 2**20} if torch.cuda.is_available() else {}


if __name__ == "__main__":
    print(json.dumps(run_stage(**json.loads(sys.argv[1]))))
