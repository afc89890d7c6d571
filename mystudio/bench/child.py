"""One stage in a process of its own: seconds and processor time by phase, and the peak of its memory.

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

#: phases with a set-up of their own (networks loaded, targets embedded): timed from their first unit to their last
ITERATIONS = ("invert", "tune")
PATHS = ("video", "out", "scan_path", "avatar_path", "take_path", "identity_net", "blendshapes", "folder")


class Clock:
    """A progress that remembers when each phase began and ended.

    Args:
        now: seconds and processor seconds since some moment.
    """

    def __init__(self, now: Callable[[], tuple[float, float]] = lambda: (time.perf_counter(), time.process_time())):
        self.now, self.last = now, now()
        self.phases: dict[str, dict[str, Any]] = {}
        self.held_mb = 0.0  # the most that was seen of ``held_mb``

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Called by the stage."""
        now = self.now()
        self.held_mb = max(self.held_mb, held_mb())
        phase = self.phases.setdefault(stage, {"begin": self.last, "first": now, "first_done": done})
        phase |= {"end": now, "done": done}
        self.last = now

    def costs(self) -> dict[str, dict[str, float]]:
        """Phase -> units, seconds and processor seconds a unit."""
        costs = {}
        for name, phase in self.phases.items():
            start, units = phase["begin"], phase["done"]
            if name in ITERATIONS and phase["done"] > phase["first_done"]:
                start, units = phase["first"], phase["done"] - phase["first_done"]
            wall, processor = (end - begin for begin, end in zip(start, phase["end"]))
            costs[name] = {"units": units, "seconds": wall / max(units, 1), "cpu_seconds": processor / max(units, 1)}
        return costs


def peak_mb() -> float:
    """Peak of the resident memory of this process, MB.

    Linux counts the parent's peak into ``ru_maxrss`` of a child that it starts; ``VmHWM`` begins anew.
    """
    found = _status("VmHWM")
    if found:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def held_mb() -> float:
    """Memory of this process alone, MB; 0 where the system does not tell (Linux does).

    Pages that are mapped from files are left out: the system can take them back at any time.
    """
    return _status("RssAnon")


def _status(name: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def run_stage(stage: str, arguments: Mapping[str, Any], recipe: str, options: Sequence[str]) -> dict[str, Any]:
    """Run a stage of the pipeline and say what it cost."""
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
