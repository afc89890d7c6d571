"""One self-contained HTML page about a take: it loads nothing from other files or the network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np

from mystudio.types import TAKE_OUTCOMES

TILE = 192  # px of a picture in the strip
OUTCOME_COLOURS = ("#3a7d5c", "#d9a441", "#b5483b", "#8a8fa3")  # by Outcome
LINE, SECOND = "#2f5d9b", "#c07a2c"


@dataclass(frozen=True)
class Curve:
    """One panel of values over time."""

    title: str
    lines: Mapping[str, np.ndarray]  # label -> [T]; the first line is the avatar's
    unit: str = ""
    log: bool = False


@dataclass(frozen=True)
class Page:
    """Pictures and series that the report shows in addition to the numbers."""

    strip: Mapping[str, Sequence[np.ndarray]]  # row title -> images [H, W, 3] uint8, one per column
    strip_times: Sequence[float]  # s, one per column
    curves: Sequence[Curve]
    times: np.ndarray  # [T] s
    outcome: np.ndarray  # [T] values of Outcome
    held_out: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # [M, 2] s
    cuts: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # [C, 2] s, start and end of each cut
    coverage: bytes | None = None  # PNG
    missing: Sequence[str] = ()  # advice on what to record again
    edit_sheet: bytes | None = None  # PNG or JPEG


def write(path: Path, numbers: Mapping, page: Page) -> None:
    """Write ``report.html``.

    Args:
        path: target file.
        numbers: content of ``metrics.json`` (see ``evaluate``).
        page: pictures and curves.
    """
    path.write_text(html(numbers, page), encoding="utf-8")


def html(numbers: Mapping, page: Page) -> str:
    """Return the report as one string; every text from user files is escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "sentence": sentence}
    template = environment.from_string(resources.files("mystudio").joinpath("templates/report.html").read_text("utf-8"))
    return template.render(
        numbers=numbers,
        headline=[row for row in numbers["metrics"] if row["headline"]],
        strip={title: [data_uri(image) for image in images] for title, images in page.strip.items()},
        strip_times=page.strip_times,
        curves=Markup(curves_svg(page)),
        coverage=page.coverage and png_uri(page.coverage),
        missing=page.missing,
        edit_sheet=page.edit_sheet and png_uri(page.edit_sheet),
        recipe=json.dumps(numbers["recipe"], indent=2, ensure_ascii=False) if numbers["recipe"] else "",
    )


def number(value: float | None, digits: int = 2) -> str:
    """Format a number; a dash means "not measured"."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def sentence(text: str) -> str:
    """Return a warning with a capital letter and a full stop; names of files and networks are unchanged."""
    return f"{text[0].upper() if ' ' in text else text[0]}{text[1:]}." if text else ""


def data_uri(image: np.ndarray, size: int = TILE) -> str:
    """Return a picture [H, W, 3] uint8 as a data URI: a JPEG of at most ``size`` px a side."""
    import cv2

    scale = size / max(image.shape[:2])
    if scale < 1:
        shape = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def png_uri(data: bytes) -> str:
    """Return PNG or JPEG bytes as a data URI."""
    kind = "jpeg" if data[:2] == b"\xff\xd8" else "png"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def curves_svg(page: Page) -> str:
    """Plot all curves over one time axis, with the frames' outcomes as a band on top; returns inline SVG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "curves", "font.family": "sans-serif", "font.size": 9}):
        count = len(page.curves)
        figure = Figure(figsize=(10.5, 0.55 + 1.45 * count), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(count + 1, 1, sharex=True, height_ratios=[0.22] + [1.3] * count, squeeze=False)[:, 0]
        _draw_outcomes(axes[0], page)
        for axis, curve in zip(axes[1:], page.curves):
            _draw_curve(axis, curve, page)
        axes[-1].set_xlabel("time, s")
        axes[-1].set_xlim(page.times[0], max(page.times[-1], page.times[0] + 1e-3))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _draw_outcomes(axis, page: Page) -> None:
    edges = _edges(page.times)
    for outcome in TAKE_OUTCOMES:
        chosen = np.flatnonzero(page.outcome == outcome)
        if len(chosen):
            spans = [(edges[i], edges[i + 1] - edges[i]) for i in chosen]
            axis.broken_barh(spans, (0, 1), color=OUTCOME_COLOURS[outcome], linewidth=0, antialiased=False,
                             label=outcome.word.replace("_", " "))  # fmt: skip
    axis.set_yticks([])
    axis.set_ylim(0, 1)
    axis.spines[:].set_visible(False)
    axis.tick_params(bottom=False)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 0.9), ncols=4, frameon=False, handlelength=1, borderaxespad=0)


def _draw_curve(axis, curve: Curve, page: Page) -> None:
    colours = (LINE, SECOND, "#3a7d5c", "#8b5a9b", "#8a8fa3", "#b5483b", "#4a9aa8", "#555555")
    for (label, values), colour in zip(curve.lines.items(), colours * len(curve.lines)):
        shown = np.where(values > 0, values, np.nan) if curve.log else values
        axis.plot(page.times, shown, color=colour, linewidth=1.1, label=label)
    for start, end in page.cuts:
        axis.axvline(start, color="#b5483b", linewidth=0.8, linestyle=(0, (3, 2)), gid="cut")
        axis.axvspan(start, end, color="#b5483b", alpha=0.15, linewidth=0)
    for start, end in page.held_out:
        axis.axvspan(start, end, color="#000000", alpha=0.06, linewidth=0)
    if curve.log and any((np.asarray(v) > 0).any() for v in curve.lines.values()):
        axis.set_yscale("log")
    axis.set_title(curve.title + (f" ({curve.unit})" if curve.unit else ""), loc="left", fontsize=9.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25, linewidth=0.6)
    axis.margins(x=0)
    if len(curve.lines) > 1:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1.0), frameon=False, ncols=8, fontsize=8, borderaxespad=0.1)


def _edges(times: np.ndarray) -> np.ndarray:
    if len(times) < 2:
        return np.array([times[0], times[0] + 0.04])
    steps = np.diff(times)
    return np.concatenate([times, [times[-1] + np.median(steps)]])
