"""Images of winks, each put together from two images of a scan.

Scans show blinks, and hardly ever a wink. What a scan does not show, tuning cannot learn. So one eye of a blink is set
into the image with open eyes that is most alike around the eyes.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from selfscan.face.facemesh import FaceMesh
from selfscan.face.landmarks import EYE_CORNERS, NOSE_BRIDGE, SIDED_BROWS
from selfscan.face.measures import measures, side_measures
from selfscan.face.observe import measure
from selfscan.types import Array, Scan

MOST = 5  # blinks that give winks; each gives two, one a side
USUAL = 75  # percentile of the eyes' opening that is taken as usual, as in the coverage
CLOSED, OPEN = 0.45, 0.8  # of the usual opening
FARTHEST = 0.02  # crops: greatest misfit of the fixed points of two images
LEAST = 0.08  # ``side_measures``' wink that the landmarks of the result must show; a whole one is 0.25 to 0.3
PRESENT = 0.5  # least presence of a face in the result
#: points that place an eye and that lids do not move: brow, corners of the eye, bridge of the nose; right, left
FIXED = tuple((*brow, *corners, NOSE_BRIDGE) for brow, corners in zip(SIDED_BROWS, EYE_CORNERS))
HALF_WIDTH, HALF_HEIGHT, SOFT = 0.95, 0.55, 0.35  # of the ellipse that is taken, in widths of the eye; its soft rim


def with_winks(scan: Scan, mesh: FaceMesh) -> Scan:
    """The scan with images of winks behind its own; the scan itself if it yields none.

    Their ``frame_index`` is that of the image with open eyes.
    """
    opening = measures(scan.landmarks)["eyes_open"]
    opening = opening / np.percentile(opening, USUAL)
    made, rows = list[Array](), list[int]()
    for shut, wide in _pairs(scan.landmarks, np.flatnonzero(opening < CLOSED), np.flatnonzero(opening > OPEN)):
        for side in (0, 1):
            made.append(_joined(scan, shut, wide, side))
            rows.append(wide)
    if not made:
        return scan
    images, came = np.stack(made), np.array(rows)
    found = [measure(mesh, part) for part in np.array_split(images, -(-len(images) // 8))]
    marks, presence = (np.concatenate(part) for part in zip(*found))
    change = side_measures(marks)["wink"] - side_measures(scan.landmarks[came])["wink"]
    good = (abs(change) > LEAST) & (presence > PRESENT)
    more = {"images": images[good], "landmarks": marks[good].astype(scan.landmarks.dtype)}
    for name in ("frame_index", "quality", "frame_corners"):
        if len(values := getattr(scan, name)):  # an older version stored no corners
            more[name] = values[came[good]]
    return replace(scan, **{name: np.concatenate([getattr(scan, name), values]) for name, values in more.items()})


def _pairs(marks: Array, shut: Array, wide: Array) -> list[tuple[int, int]]:
    """The best pairs of a blink and an image with open eyes, at most ``MOST``; each blink once."""
    found = list[tuple[float, int, int]]()
    for blink in shut:
        misfits = [max(_fit(marks, blink, other, side)[1] for side in (0, 1)) for other in wide]
        if misfits and min(misfits) < FARTHEST:
            found.append((min(misfits), int(blink), int(wide[np.argmin(misfits)])))
    return [(blink, other) for _, blink, other in sorted(found)[:MOST]]


def _fit(marks: Array, blink: int, other: int, side: int) -> tuple[Array, float]:
    """The similarity [2, 3] from the blink's crop to the other one's, and its greatest misfit in crops."""
    a, b = (marks[row, list(FIXED[side]), :2].astype(np.float64) for row in (blink, other))
    x, y, one, none = a[:, 0], a[:, 1], np.ones(len(a)), np.zeros(len(a))
    system = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
    c, s, right, down = np.linalg.lstsq(system, np.concatenate([b[:, 0], b[:, 1]]), rcond=None)[0]
    found = np.array([[c, -s, right], [s, c, down]])
    return found, float(np.linalg.norm(a @ found[:, :2].T + found[:, 2] - b, axis=1).max())


def _joined(scan: Scan, blink: int, other: int, side: int) -> Array:
    """The other image [H, W, 3] with one eye of the blink, in the other one's light."""
    size = scan.images.shape[1]
    place, _ = _fit(scan.landmarks, blink, other, side)
    place[:, 2] *= size
    image, given = (scan.images[row].astype(np.float32) for row in (other, blink))
    given = cv2.warpAffine(given, place, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    ends = size * scan.landmarks[other, list(EYE_CORNERS[side]), :2]
    width = float(np.linalg.norm(ends[1] - ends[0]))
    across = (ends[1] - ends[0]) / width
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1) - ends.mean(0)
    away = np.hypot(
        grid @ across / (HALF_WIDTH * width), grid @ np.array([-across[1], across[0]]) / (HALF_HEIGHT * width)
    )
    share = np.clip((1 - away) / SOFT, 0, 1)[..., None]
    rim = (away > 0.7) & (away < 1.1)
    given = given + (image[rim].mean(0) - given[rim].mean(0))
    return np.clip(image + share * share * (3 - 2 * share) * (given - image), 0, 255).round().astype(np.uint8)
