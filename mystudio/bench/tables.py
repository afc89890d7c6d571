"""tables.md: the measurements as markdown, with the commands that made each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mystudio.bench.ledger import Ledger
from mystudio.storage.journal import write_bytes


@dataclass(frozen=True)
class Column:
    """One column of numbers."""

    value: str  # key in a row's values
    title: str
    digits: int = 2


@dataclass(frozen=True)
class Table:
    """What a table shows."""

    part: str  # first component of the keys part/who/what
    group: str  # selects the rows with this value of the label "table"
    title: str
    columns: tuple[Column, ...]
    note: str = ""


FRAMES = Column("frames", "frames", 0)
LIKENESS = (Column("identity", "identity (cosine) ↑", 3), Column("own_spread", "identity within the scan", 3))
MOTION = (
    Column("pose", "pose (°) ↓"),
    Column("expression", "expression ↓", 3),
    Column("blendshapes", "blendshapes ↓", 3),
    Column("gaze", "gaze ↓", 3),
)
PIXELS = (Column("perceptual", "perceptual ↓", 3), Column("psnr", "PSNR (dB) ↑"), Column("ssim", "SSIM ↑", 3))
STEADY = (Column("jitter", "jitter (× driver's)"), Column("sharpness", "mouth sharpness (×)"))
COST = (
    Column("units", "units", 0),
    Column("seconds", "s a unit", 3),
    Column("cpu_seconds", "CPU s a unit", 3),
    Column("wall", "whole stage, s", 1),
    Column("peak_mb", "peak memory (MB)", 0),
    Column("held_mb", "of it private (MB)", 0),
)
SOLVED = (
    FRAMES,
    Column("cpu_seconds", "CPU s a frame", 3),
    Column("passes", "passes a frame", 1),
    Column("objective", "objective ↓", 3),
    Column("keypoint", "keypoint term ↓", 3),
    *PIXELS[:2],
    Column("keypoints", "keypoints (%) ↓"),
    *MOTION,
)
ONE_SHOT = (
    FRAMES,
    *PIXELS[:2],
    Column("keypoints", "keypoints (%) ↓"),
    *MOTION,
    Column("likeness", "likeness ↑", 3),
    LIKENESS[0],
    Column("leak", "leak, mean R2", 3),
    Column("leak_most", "most", 2),
    Column("prepare", "s a person", 1),
    Column("rate", "pictures a second", 1),
)
RANGE = (
    Column("missed", "missed (%) ↓", 0),
    Column("range", "range (1) ↑"),
    Column("expression", "expression ↓", 3),
    Column("gaze", "gaze ↓", 3),
    Column("lid_left", "left lid ↓", 3),
    Column("lid_right", "right lid ↓", 3),
    Column("brow_left", "left brow ↓", 3),
    Column("brow_right", "right brow ↓", 3),
    Column("pose", "pose (°) ↓"),
    Column("blendshapes", "blendshapes ↓", 3),
    Column("likeness", "likeness ↑", 3),
    Column("identity", "identity ↑", 3),
    Column("perceptual", "perceptual ↓", 3),
)
TABLES = (
    Table("real", "self", "Real clips, driven by their own held-out seconds",
          (FRAMES, *PIXELS, *LIKENESS, Column("keypoints", "keypoints (%) ↓"), *MOTION, *STEADY),
          "Every fifth second was held out of the scan; its frames are driver and truth. Keypoints in % of the "
          "inter-ocular distance. Jitter is measured within the held-out seconds, not across their cuts."),
    Table("real", "cross", "Real clips, driven by somebody else",
          (FRAMES, *LIKENESS, Column("identity_driver", "driver's identity", 3),
           Column("keypoints_by_part", "keypoints by part (%) ↓"), *MOTION, *STEADY),
          "There is no truth: expression and gaze are compared as changes from each one's median, keypoints part by "
          "part in the driver's shape, pose as it is."),
    Table("actors", "cross", "Actors, against the true cross-reenactment",
          (FRAMES, *PIXELS, *LIKENESS, Column("keypoints", "keypoints (%) ↓"), *MOTION, *STEADY),
          "The truth is the scan's own actor rendered with the driver's exact motion."),
    Table("actors", "ceiling", "Actors: the gap to the ceiling, on the same frames",
          (FRAMES, *PIXELS, Column("keypoints", "keypoints (%) ↓"), *MOTION),
          "Ceiling: the same avatar fitted directly to the true frames by pixels and perception, codes free on every "
          "layer."),
    Table("oneshot", "actors", "One-shot: actors, against the true cross-reenactment", ONE_SHOT,
          "The photos show the person, the driver is another one, and the truth is the person in the driver's motion. "
          "Likeness is to the photos. Leak: held-out R2 of the driver's look factors from the pictures, mean and most; "
          "0 = nothing of the driver's look shows."),
    Table("oneshot", "actors-far", "One-shot: actors, head turned more than 25 degrees from the photos", ONE_SHOT),
    Table("oneshot", "real", "One-shot: real clips, driven by their own second half", ONE_SHOT,
          "The photos are from the first half of the clip, driver and truth are frames of the second half."),
    Table("oneshot", "real-far", "One-shot: real clips, head turned more than 25 degrees from the photos", ONE_SHOT),
    Table("tuning", "curve", "Tuning: scan images that it does not see, step by step",
          (Column("resolution", "px", 0), Column("cpu_seconds", "CPU s", 0), Column("whole", "LPIPS", 4),
           Column("face", "of faces", 4), Column("eyes", "of eyes", 4), Column("mouth", "of mouths", 4),
           Column("psnr", "PSNR (dB)"), Column("sharp_face", "sharpness of faces"), Column("sharp_eyes", "of eyes"),
           Column("sharp_mouth", "of mouths"), Column("identity", "identity", 3), Column("likeness", "likeness", 3)),
          "Distances are taken at 256 px, parts enlarged or reduced to 160 px. Sharpness is the energy of the "
          "Laplacian at the avatar's own size over that of the images held out."),
    Table("range", "gap", "Motion that a scan lacks, at its height in the driver, against the true frames",
          (Column("shown", "scan shows it, % of full", 0), *RANGE),
          "Missed: distance of the motion's own measures from the truth, in % of the truth's change from rest. Range: "
          "how far they move for one unit of the truth's; 1 = as far, 0 = not at all. Lids in widths of the eye, brows "
          "in distances between the eyes. Likeness is to the true frames of all motions. Gap closed: 0 = as before, "
          "100 = as the full scan; a dash where the full scan is not clearly better."),
    Table("range", "full", "Motion by motion, of the avatar of the full scan", RANGE),
    Table("range", "seen", "What the measures see of each motion in the true frames",
          (Column("change", "change of the motion's own measures", 3), Column("noise", "deviation at rest", 3),
           Column("correlation", "correlation with the motion's height", 3))),
    Table("ablation", "self", "Ablation: a real clip, driven by its held-out seconds",
          (*PIXELS, *LIKENESS[:1], Column("keypoints", "keypoints (%) ↓"), *MOTION, *STEADY[:1])),
    Table("ablation", "cross", "Ablation: actors, against the true cross-reenactment",
          (*PIXELS, *LIKENESS[:1], Column("keypoints", "keypoints (%) ↓"), *MOTION, *STEADY[:1])),
    Table("costs", "stage", "Cost of each stage",
          COST, "A unit is an iteration, a sample or a frame. Measured, not extrapolated; each stage runs in its own "
          "process. Iterations are timed without their set-up; the stage's seconds hold everything, start-up too."),
    Table("speed", "solve", "Solvers from the same start, against the truth", SOLVED,
          "All minimise the default's objective, which is measured once for all, without windows. A pass forward and "
          "back counts as three."),
    Table("speed", "paper", "The paper's solver against the default, on the same frames", SOLVED,
          "The paper's takes every frame from the last one's solution, 1,000 steps each, as MyStyle publishes it; its "
          "own objective penalises codes in another way, on every layer."),
    Table("speed", "ratios", "Optimised parts against plain implementations",
          (Column("ours", "ours, CPU s", 3), Column("theirs", "plain, CPU s", 3), Column("times", "speed-up", 1),
           Column("same", "share of equal choices", 2), Column("difference", "largest difference", 6))),
    Table("speed", "tuning", "Tuning until held-out scan images are as near as MyStyle's schedule leaves them",
          (Column("met", "LPIPS", 4), Column("ours", "ours, CPU s", 1),
           Column("theirs", "MyStyle's schedule, CPU s", 0), Column("times", "speed-up", 1),
           Column("share", "share of MyStyle's schedule used", 2),
           Column("first", "CPU s until this LPIPS is first reached", 0), Column("first_times", "speed-up", 1),
           Column("end", "LPIPS at our end", 4)),
          "Means of ten checks. The schedule is 1,000 passes over the images, cut where its budget ended."),
    Table("speed", "live", "Live preview",
          (FRAMES, Column("fps", "frames a second", 1), Column("delay", "delay (ms)", 0),
           Column("cpu_seconds", "CPU s a frame, all threads", 3))),
    Table("speed", "rates", "Wall-clock rates",
          (Column("resolution", "px", 0), Column("frames", "frames, or images", 0), Column("steps", "steps", 0),
           Column("wall", "seconds", 2), Column("fps", "frames a second", 1), Column("tflops", "TFLOP/s", 2),
           Column("peak", "TFLOP/s of a matrix product", 2), Column("share", "share of that", 2)),
          "The clip is tracked already. Personalizing is timed from the scan to the avatar."),
    Table("costs", "length", "Time, memory and the length of the driving clip",
          (Column("cpu_seconds", "CPU s a frame, start-up too", 4), *COST[3:]),
          "Reenactment with one step a frame, rendering with paste-back."),
)  # fmt: skip


def write_tables(ledger: Ledger, path: Path) -> str:
    """Write all tables that have rows; return the markdown."""
    text = "# Measurements\n\n" + "\n".join(f"{markdown(*found)}\n{commands(found[1])}\n" for found in _found(ledger))
    write_bytes(path, text.encode())
    return text


def shown(ledger: Ledger, part: str) -> str:
    """Return the tables of one part without commands, for a terminal."""
    return "\n".join(markdown(table, rows) for table, rows in _found(ledger) if table.part == part)


def markdown(table: Table, rows: Sequence[Mapping]) -> str:
    """Return one table: labels, and the columns that hold any number."""
    names = [name for name in rows[0]["labels"] if name != "table"]
    columns = [c for c in table.columns if any(row["values"].get(c.value) is not None for row in rows)]
    head = ["", *names, *(c.title for c in columns)]
    lines = [_line(head), _line(["---:", *("---" for _ in names), *("---:" for _ in columns)])]
    for number, row in enumerate(rows, start=1):
        cells = [cell(row["values"].get(c.value), c.digits) for c in columns]
        if "error" in row:
            cells = [f"failed: {row['error']}", *[""] * (len(columns) - 1)]
        lines.append(_line([str(number), *(row["labels"].get(name, "") for name in names), *cells]))
    metric = sorted({row["values"]["metric"] for row in rows if row["values"].get("metric")})
    notes = [table.note] if table.note else []
    notes += [f"Perceptual metric: {', '.join(metric)}."] if metric else []
    return "\n".join([f"## {table.title}", "", *notes, *([""] if notes else []), *lines, ""])


def cell(value: float | str | None, digits: int) -> str:
    """Format a number with fixed digits; a dash means "not measured"."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.{digits}f}"


def _found(ledger: Ledger) -> list[tuple[Table, list[dict]]]:
    rows = {t: [row for row in ledger.rows(t.part) if row["labels"].get("table") == t.group] for t in TABLES}
    return [(table, found) for table, found in rows.items() if found]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "/") for text in cells) + " |"


def commands(rows: Sequence[Mapping]) -> str:
    """Return the commands, each once: first those of the whole table, then the steps of each row."""
    made = sorted({row["command"] for row in rows})
    lines = ["<details><summary>Commands</summary>", "", *(f"`{command}`, which runs, row by row:" for command in made)]
    lines.append("")
    told: set[str] = set()
    for number, row in enumerate(rows, start=1):
        new = [step for step in row["steps"] if step not in told]
        told |= set(new)
        lines += [f"- {number}: " + "; ".join(f"`{step}`" for step in new)] if new else []
    return "\n".join([*lines, "", "</details>", ""])
