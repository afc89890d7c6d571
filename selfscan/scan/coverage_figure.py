"""A figure of the coverage of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from selfscan.scan.coverage import BINS
from selfscan.types import Array, Coverage

INK, SEEN, CHOSEN, LACKING = "#333333", "#4878a8", "#d1662f", "#b03030"


def draw(coverage: Coverage, path: str | Path | BinaryIO, picks: Array | None = None) -> None:
    """Draw the coverage of a clip: pose, mouth, gaze, expression over time, and the shares with missing bins marked.

    Args:
        coverage: the clip's coverage.
        path: PNG (or SVG, PDF) to write, or a binary file for a PNG.
        picks: [N] indices of chosen frames, drawn as rings.
    """
    figure(coverage, picks).savefig(path)


def figure(coverage: Coverage, picks: Array | None = None):
    """Make the figure of a coverage.

    Args:
        coverage: the clip's coverage.
        picks: [N] indices of chosen frames, drawn as rings.

    Returns:
        A matplotlib Figure, 12 x 7 inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picks = np.zeros(0, int) if picks is None else np.asarray(picks, int)
    page = Figure(figsize=(12, 7), layout="constrained")
    FigureCanvasAgg(page)
    grid = page.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.1))
    m = coverage.measures
    degrees = {name: np.degrees(m[name]) for name in ("yaw", "pitch")}
    pose = page.add_subplot(grid[0, 0])
    _cloud(pose, degrees["yaw"], degrees["pitch"], picks, "Head", "yaw, ° (right: person's left)", "pitch, °")
    _guides(pose, (-30, -15, 15, 30), (-10, 10))
    pose.invert_yaxis()  # a lowered chin is drawn at the bottom
    mouth = page.add_subplot(grid[0, 1])
    _cloud(mouth, m["mouth_width"], m["mouth_open"], picks, "Mouth", "width / eye distance", "opening / eye distance")
    _guides(mouth, (), (0.08, 0.3))
    gaze = page.add_subplot(grid[0, 2])
    _cloud(gaze, m["gaze_x"], m["gaze_y"], picks, "Gaze", "sideways (right: person's left)", "upwards")
    _over_time(page.add_subplot(grid[1, :3]), m, picks)
    _bars(page.add_subplot(grid[:, 3]), coverage)
    return page


def _cloud(ax, x: Array, y: Array, picks: Array, title: str, xlabel: str, ylabel: str) -> None:
    ax.plot(x, y, ".", color=SEEN, markersize=3, alpha=0.6)
    ax.plot(x[picks], y[picks], "o", color=CHOSEN, markersize=6, fillstyle="none")
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)


def _guides(ax, vertical: tuple[float, ...], horizontal: tuple[float, ...]) -> None:
    for value in vertical:
        ax.axvline(value, color=INK, linewidth=0.5, alpha=0.4)
    for value in horizontal:
        ax.axhline(value, color=INK, linewidth=0.5, alpha=0.4)


def _over_time(ax, m: dict[str, Array], picks: Array) -> None:
    names = {"eyes_open": "eyes open", "mouth_open": "mouth open", "brows": "brows", "smile": "smile"}
    for step, (name, label) in enumerate(names.items()):
        low, high = np.percentile(m[name], [0, 100])
        height = (m[name] - low) / max(high - low, 1e-6) * 0.85 + (len(names) - 1 - step)
        ax.plot(height, color=SEEN, linewidth=1)
        ax.plot(picks, height[picks], "o", color=CHOSEN, markersize=4, fillstyle="none")
        ax.text(0.005, (len(names) - step - 0.05) / len(names), label, transform=ax.transAxes, va="top", color=INK)
    ax.set(title="Expression over time", xlabel="frame", yticks=[], ylim=(-0.05, len(names)))
    ax.margins(x=0.01)


def _bars(ax, coverage: Coverage) -> None:
    names = list(coverage.share)
    share = np.array([coverage.share[name] for name in names])
    lacking = [bool(BINS[name][-1]) and BINS[name][-1] in coverage.missing for name in names]
    rows = np.arange(len(names))[::-1]
    ax.barh(rows, np.sqrt(share), color=[LACKING if no else SEEN for no in lacking])
    for row, name, value, no in zip(rows, names, share, lacking):
        text = f"record: {BINS[name][-1]}" if no else f"{100 * value:.0f} %"
        ax.text(np.sqrt(value) + 0.02, row, text, va="center", fontsize=8, color=LACKING if no else INK)
    ax.set_yticks(rows, names, fontsize=8)
    ax.set(title="Share of the frames", xticks=[], xlim=(0, 1.15))
    ax.spines[["top", "right", "bottom"]].set_visible(False)
