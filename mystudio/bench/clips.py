"""Clips made for a measurement, each once: the held-out seconds, the first seconds, or a clip repeated to a length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mystudio.errors import StudioError
from selfscan.io import video
from selfscan.scan.scan import ScanSettings, held_out_spans, inside

CRF = 10  # better than visually lossless, because the truth is compared with these frames
EVERY = 5  # s: every fifth second is held out


def held_out(source: Path, out: Path, every: int = EVERY) -> Path:
    """Write the seconds that are held out from a scan (``scan.hold_out_every``), with their original time stamps."""
    if not out.is_file():
        times = np.array([time for time, _ in video.read(source)])
        chosen = inside(times, held_out_spans(times, ScanSettings(hold_out_every=every)))
        if not chosen.any():
            raise StudioError(f"{source}: expected at least {every} s, to hold out the last; take a longer clip")
        _write(source, out, chosen, times)
    return out


def first_seconds(source: Path, out: Path, seconds: float) -> Path:
    """The beginning of a clip."""
    if not out.is_file():
        times = np.array([time for time, _ in video.read(source)])
        _write(source, out, times < times[0] + seconds, times)
    return out


def played_for(source: Path, out: Path, frames: int, stock: int = 100) -> Path:
    """Write ``frames`` frames: the clip's first ``stock`` frames, repeated forwards and backwards to avoid jumps."""
    if not out.is_file():
        pictures = [frame for _, (_, frame) in zip(range(stock), video.read(source))]
        order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
        out.parent.mkdir(parents=True, exist_ok=True)
        stream = (pictures[order[k % len(order)]] for k in range(frames))
        video.write(out, stream, np.arange(frames) / video.probe(source).fps)
    return out


def of_folder(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The .mp4 clips of a folder, or those of these names without .mp4.

    Raises: StudioError: there is none, or a named one is missing.
    """
    found = [folder / f"{name}.mp4" for name in names] or sorted(folder.glob("*.mp4"))
    for path in found or [folder / "*.mp4"]:
        if not path.is_file():
            raise StudioError(f"expected the clip {path}, it is not there; give the folder that holds it")
    return found


def cuts(times: np.ndarray) -> np.ndarray:
    """Return [T - 1] bool: true if the gap between frames t and t + 1 is much longer than usual."""
    steps = np.diff(times)
    return steps > 2.5 * np.median(steps) if len(steps) else np.zeros(0, bool)


def _write(source: Path, out: Path, chosen: np.ndarray, times: np.ndarray) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    video.write(out, _chosen(source, chosen), times[chosen], crf=CRF)


def _chosen(source: Path, chosen: np.ndarray) -> Iterator[np.ndarray]:
    return (frame for wanted, (_, frame) in zip(chosen, video.read(source)) if wanted)
