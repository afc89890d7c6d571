"""Identity check: does a clip show one person, and the same person as another clip?

The check compares the face's texture, in three steps. The landmarks map each frame to a grid on the frontal canonical
face, which removes shape, pose and expression. Normalising local mean and contrast of the lightness removes the light.
Subtracting the mean of many faces removes what all faces share. The rest is averaged over two seconds and compared by
correlation. The mean face is from Turk and Pentland (Eigenfaces for Recognition, 1991). The shape-free picture is from
Craw and Cameron (Parameterising Images for Recognition and Reconstruction, 1991). The mean face is the only learned
data. Twins and look-alikes pass as one person. Figures: docs/identity.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.errors import SecondPerson
from selfscan.face.headpose import canonical_head, euler, head_pose, rotation
from selfscan.face.landmarks import EXTREMES, MESH, OVAL
from selfscan.face.observe import iter_crops
from selfscan.types import IdentityCheck, Observation, Progress, check_shape, silent

MEAN = Path(__file__).parents[1] / "data" / "mean_appearance.npz"  # made by recipes/make_mean_appearance.py
SIDE = 192  # px, side of the crop that is sampled
CELLS = 48  # grid cells a side over the box of the canonical face: about 3 px each
LOCAL = 2.0  # cells, sigma of the Gaussian for local mean and contrast; a wider one leaves more of the light
FAINT, DARK = 0.03, 8.0  # minimum contrast (of log lightness); grey level added before the logarithm
GRAZING, FACING = 0.35, 0.6  # cosine to the camera at which a grid point has weight 0, and weight 1
FRONT = (25.0, 18.0)  # degrees: frames with more yaw or pitch are skipped; one person's likeness falls to 0.33
PRESENT = 0.5  # minimum presence of a face
RATE = 8.0  # frames measured a second
CELL_SECONDS, WINDOW = 0.5, 4  # s summed in a cell; cells in a window
SAME = 0.55  # minimum likeness of a window to the rest, and of two recordings: see docs/identity.md
ROUNDS = 3  # refinements of the majority's mean face
MOST_WINDOWS = 600  # windows compared in all pairs; longer clips are subsampled for this step


@dataclass(frozen=True)
class Appearance:
    """Appearance of a face without light, pose and expression, summed in cells of half a second."""

    start: np.ndarray  # [C] s, start of each cell
    total: np.ndarray  # [C, G] float32 sum of the frames' values
    weight: np.ndarray  # [C, G] float32 sum of the frames' weights; 0 = not measured

    def __post_init__(self):
        check_shape("total", self.total, (len(self.start), None))
        check_shape("weight", self.weight, self.total.shape)

    @property
    def seconds(self) -> float:
        """Time that could be measured, s."""
        return CELL_SECONDS * int((self.weight.max(1, initial=0) > 0).sum())


@dataclass(frozen=True)
class Stranger:
    """A part of a clip whose face differs from the rest."""

    start: float  # s
    end: float  # s
    likeness: float  # to the rest


def appearance(
    observation: Observation, progress: Progress = silent, checkpoints: Checkpoints = NO_CHECKPOINTS
) -> Appearance:
    """Measure the appearance of a clip's face in one decoding pass.

    Args:
        observation: the clip.
        progress: called with ("identity", frames done, frames in all).
        checkpoints: of the same clip; stored chunks are not measured again.

    Returns:
        Sums for every half second that shows the face; frames turned beyond FRONT do not count.
    """
    times = observation.track.times
    wanted = _wanted(observation)
    cell = np.floor((times - times[0]) / CELL_SECONDS).astype(int)
    kept, number = np.unique(cell[wanted], return_inverse=True)
    total = np.zeros((len(kept), len(grid()[0])), np.float32)
    weight, at = np.zeros_like(total), dict(zip(np.flatnonzero(wanted).tolist(), number))

    def work(chunk: np.ndarray, crops: Iterator[np.ndarray]) -> Arrays:
        for index, image in zip(chunk.tolist(), crops):
            values, weights = of_images(image[None], observation.landmarks[index][None])
            total[at[index]] += (values * weights)[0]
            weight[at[index]] += weights[0]
            progress("identity", index + 1, len(observation))
        touched = np.unique([at[index] for index in chunk.tolist()])  # a cell may continue in the next chunk
        return {"cells": touched, "total": total[touched], "weight": weight[touched]}

    shown = np.flatnonzero(wanted)
    for _, found in in_chunks(
        checkpoints,
        "identity",
        shown,
        lambda start: iter_crops(observation, SIDE, start),
        work,
        lambda done: progress("identity", int(shown[done - 1]) + 1, len(observation)),
    ):
        total[found["cells"]], weight[found["cells"]] = found["total"], found["weight"]
    progress("identity", len(observation), len(observation))
    return Appearance(times[0] + kept * CELL_SECONDS, total, weight)


def of_images(images: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Appearance of single aligned crops.

    Args:
        images: [N, S, S, 3] uint8 RGB; the thresholds hold for S = 192.
        landmarks: [N, 478, 3] in crops (0..1).

    Returns:
        values [N, G], and weights [N, G] in 0..1 that grow with how far each grid point faces the camera.
    """
    values, weights = texture(images, landmarks)
    return values - mean_appearance(), weights


def texture(images: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``of_images`` before the mean face is subtracted; same arguments and shapes."""
    import cv2

    weights = _facing(landmarks)
    corners, shares, inside = grid()
    triangles = np.asarray(landmarks, np.float64)[:, corners, :2] * images.shape[1]
    places = np.einsum("gk,ngkd->ngd", shares, triangles) - 0.5
    values = np.empty((len(images), len(corners)), np.float32)
    for n, image in enumerate(images):
        x, y = places[n].astype(np.float32).T
        smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
        sampled = cv2.remap(smooth, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
        values[n] = _without_light(np.log(sampled.astype(np.float32).mean(-1) + DARK), weights[n], inside)
    return values, weights


def likeness(a: Appearance, b: Appearance) -> float:
    """Likeness of the faces of two clips: 1 = equal, 0 = unrelated people; nan if a clip shows no face."""
    if not (a.seconds and b.seconds):
        return float("nan")
    return float(
        _correlations(
            *_means(a.total.sum(0)[None], a.weight.sum(0)[None]), *_means(b.total.sum(0)[None], b.weight.sum(0)[None])
        )[0, 0]
    )


def find_strangers(seen: Appearance) -> tuple[IdentityCheck, list[Stranger]]:
    """Check whether a clip shows one person.

    The reference is the person in most windows of two seconds. It starts as the window most like all others. Then it
    becomes the mean of the half that is most like it, which excludes strangers. Windows unlike it are strangers.

    Returns: the figures, and the parts of the clip that show another person, in order.
    """
    windows = _windows(seen)
    if not len(windows):
        return IdentityCheck(0.0, None, SAME), []
    total = np.stack([seen.total[part].sum(0) for part in windows])
    weight = np.stack([seen.weight[part].sum(0) for part in windows])
    values, weights = _means(total, weight)
    like = _like_most(values, weights, total, weight)
    strange = [(seen.start[windows[k]], like[k]) for k in np.flatnonzero(like < SAME)]
    return IdentityCheck(seen.seconds, float(like.min()), SAME), _spans(strange)


def check_one_person(path: str | Path, seen: Appearance) -> IdentityCheck:
    """Reject a clip that shows two people one after the other.

    Raises:
        SecondPerson: for two seconds or longer the face differs from the rest.
    """
    found, strangers = find_strangers(seen)
    if strangers:
        parts = ", ".join(f"{s.start:.1f} to {s.end:.1f} s" for s in strangers[:3])
        raise SecondPerson(
            f"{path}: expected one person, but the face from {parts} is not that of the rest (likeness "
            f"{min(s.likeness for s in strangers):.2f}, at least {SAME} is needed); cut that part out, or record "
            f"again alone, with nothing in front of the face"
        )
    return found


@lru_cache(maxsize=1)
def grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid over the frontal canonical face.

    Returns:
        Landmark indices [G, 3] of each point's triangle, barycentric coordinates [G, 3] of the point in it, and the
        mask [CELLS, CELLS] of the G cells inside the face.
    """
    import cv2
    from scipy.spatial import Delaunay

    flat = canonical_head()[MESH, :2]
    low, high = flat.min(0), flat.max(0)
    steps = (np.arange(CELLS) + 0.5) / CELLS
    points = low + np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2) * (high - low)
    mesh = Delaunay(flat)
    triangle = mesh.find_simplex(points)
    outline = flat[list(OVAL)].astype(np.float32)
    inside = np.array([cv2.pointPolygonTest(outline, (float(x), float(y)), False) > 0 for x, y in points])
    inside &= triangle >= 0
    origin = mesh.transform[triangle[inside]]
    two = np.einsum("gij,gj->gi", origin[:, :2], points[inside] - origin[:, 2])
    shares = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1)
    return mesh.simplices[triangle[inside]], shares, inside.reshape(CELLS, CELLS)


@lru_cache(maxsize=1)
def mean_appearance() -> np.ndarray:
    """Mean appearance of many people, [G]."""
    with np.load(MEAN) as file:
        return file["mean"].astype(np.float32)


def _wanted(observation: Observation) -> np.ndarray:
    """[T] bool: frames to measure: seen from the front, at most RATE a second."""
    facing = front(observation)
    tick = np.floor((observation.track.times - observation.track.times[0]) * RATE + 1e-6)
    wanted = np.zeros(len(facing), bool)
    shown = np.flatnonzero(facing)
    wanted[shown[np.unique(tick[shown], return_index=True)[1]]] = True
    return wanted


def front(observation: Observation) -> np.ndarray:
    """[T] bool: frames that show the face from the front."""
    yaw, pitch, _ = np.degrees(np.abs(euler(head_pose(observation.landmarks)))).T
    return observation.track.valid & (observation.presence >= PRESENT) & (yaw < FRONT[0]) & (pitch < FRONT[1])


def _facing(landmarks: np.ndarray) -> np.ndarray:
    """[N, G] in 0..1: how far each grid point faces the camera, if the head is a sphere."""
    corners, shares, _ = grid()
    head = canonical_head()
    outward = np.einsum("gk,gkd->gd", shares, head[corners]) - (head[list(EXTREMES)].mean(0) + [0, 0, 0.3])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    turn = rotation(euler(head_pose(landmarks)))
    cosine = -np.einsum("gd,nd->ng", outward, turn[:, 2])
    return np.clip((cosine - GRAZING) / (FACING - GRAZING), 0, 1).astype(np.float32)


def _without_light(lightness: np.ndarray, weight: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Normalise lightness [G] by its local mean and contrast, weighted by visibility [G]."""
    import cv2

    def around(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (0, 0), LOCAL)

    picture, seen = np.zeros(inside.shape, np.float32), np.zeros(inside.shape, np.float32)
    picture[inside], seen[inside] = lightness, weight
    share = around(seen) + 1e-3
    away = picture - around(picture * seen) / share
    contrast = np.sqrt(around(away * away * seen) / share) + FAINT
    return (away / contrast)[inside]


def _windows(seen: Appearance) -> list[np.ndarray]:
    """Cell indices of each window: WINDOW successive measured cells, or all if there are fewer."""
    judged = np.flatnonzero(seen.weight.max(1, initial=0) > 0)
    count = min(WINDOW, len(judged))
    return [judged[k : k + count] for k in range(len(judged) - count + 1)] if count else []


def _means(total: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean values [n, G], and weights [n, G] in 0..1."""
    return total / np.maximum(weight, 1e-6), weight / np.maximum(weight.max(1, keepdims=True), 1e-6)


def _correlations(a: np.ndarray, a_weight: np.ndarray, b: np.ndarray, b_weight: np.ndarray) -> np.ndarray:
    """Correlation [n, m] of all pairs, over the points visible in both."""
    x, y = a * a_weight, b * b_weight
    across = (a * x) @ b_weight.T * (a_weight @ (b * y).T)
    return (x @ y.T) / np.sqrt(np.maximum(across, 1e-12))


def _like_most(values: np.ndarray, weights: np.ndarray, total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Likeness [n] of each window to the person in most windows."""
    some = np.unique(np.linspace(0, len(values) - 1, MOST_WINDOWS).astype(int))
    pairs = _correlations(values[some], weights[some], values[some], weights[some])
    like = _correlations(values, weights, *(part[some[[pairs.sum(1).argmax()]]] for part in (values, weights)))[:, 0]
    for _ in range(ROUNDS):
        mine = like >= np.median(like)
        person = _means(total[mine].sum(0)[None], weight[mine].sum(0)[None])
        like = _correlations(values, weights, *person)[:, 0]
    return like


def _spans(strange: list[tuple[np.ndarray, float]]) -> list[Stranger]:
    spans: list[Stranger] = []
    for cells, like in strange:
        start, end = float(cells[0]), float(cells[-1]) + CELL_SECONDS
        if spans and start <= spans[-1].end:
            spans[-1] = Stranger(spans[-1].start, end, min(like, spans[-1].likeness))
        else:
            spans.append(Stranger(start, end, float(like)))
    return spans
