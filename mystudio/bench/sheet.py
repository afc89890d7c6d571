"""Contact sheets: the same frames of driver, truth and avatar below each other, for visual comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mystudio.bench import comparison
from mystudio.bench.studio import open_take
from mystudio.evaluation.evaluate import choose_columns
from mystudio.rendering.render import enlarge
from mystudio.storage.journal import write_bytes
from selfscan.types import Observation

TILE, LABEL, HEAD = 160, 150, 22  # px
COLUMNS = 8


def contact_sheet(path: Path, rows: Mapping[str, np.ndarray], times: Sequence[float | str]) -> Path:
    """Write pictures as a PNG with a label for each row and the time above each column.

    Args:
        path: target file. rows: label -> [C, H, H, 3] uint8. times: [C] s, or other words in ASCII.
    """
    import cv2

    if not rows or any(len(images) != len(times) for images in rows.values()):
        raise ValueError(f"expected {len(times)} pictures in each row, got {[len(images) for images in rows.values()]}")
    sheet = np.full((HEAD + TILE * len(rows), LABEL + TILE * len(times), 3), 255, np.uint8)

    def text(words: str, x: int, y: int) -> None:
        cv2.putText(sheet, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)

    for column, time in enumerate(times):
        text(time if isinstance(time, str) else f"{time:.2f} s", LABEL + TILE * column + 4, HEAD - 7)
    for row, (label, images) in enumerate(rows.items()):
        top = HEAD + TILE * row
        for line, words in enumerate(_wrapped(label)):
            text(words, 4, top + 18 + 16 * line)
        for column, image in enumerate(images):
            left = LABEL + TILE * column
            sheet[top : top + TILE, left : left + TILE] = enlarge(image, TILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    return path


def sheet_of(
    path: Path,
    takes: Mapping[str, Path],
    truth: Observation | None = None,
    more: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    device: str = "cpu",
    first_row: str = "driver",
) -> Path:
    """Draw driver, truth and several takes of the same performance.

    Args:
        takes: label -> take. truth: the true result, if it is not the driver itself.
        more: label -> (frame indices, pictures [F, H, H, 3]) of rows that exist for some frames only.
    """
    first = open_take(next(iter(takes.values())))
    driver = first[2].observation
    columns = choose_columns(driver, first[1], COLUMNS)
    for frames, _ in (more or {}).values():
        columns = sorted({int(frames[np.abs(frames - c).argmin()]) for c in columns})
    rows = {first_row: comparison.crops(driver, columns)}
    if truth is not None:
        rows["truth"] = comparison.crops(truth, columns)
    for label, take in takes.items():
        avatar, made, _, _ = open_take(take)
        rows[label] = comparison.pictures(avatar, made, columns, device)
    for label, (frames, images) in (more or {}).items():
        rows[label] = np.stack([images[np.flatnonzero(frames == c)[0]] for c in columns])
    return contact_sheet(path, rows, [float(driver.track.times[c]) for c in columns])


def _wrapped(label: str, width: int = 19) -> list[str]:
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
