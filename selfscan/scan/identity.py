"""Identity check: does a clip show one person, and the same person as another clip?

Face embeddings (``selfscan.face.recognition``) of frontal frames are averaged over a second and a half and compared by
their distance. Twins and look-alikes pass as one person. Figures: docs/identity.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.errors import SecondPerson
from selfscan.face import recognition
from selfscan.face.headpose import euler, head_pose
from selfscan.face.observe import iter_crops
from selfscan.face.recognition import NUMBERS
from selfscan.types import IdentityCheck, Observation, Progress, check_shape, silent

SIDE = 256  # px, side of the crop of which the face is taken
FRONT = (25.0, 18.0)  # degrees: frames with more yaw or pitch are skipped, because turned heads are less alike
PRESENT = 0.5  # minimum presence of a face
RATE = 2.0  # frames measured a second
CELL_SECONDS, WINDOW = 0.5, 3  # s summed in a cell; cells in a window
SAME = 0.58  # minimum likeness of a window to the rest, and of two recordings: see docs/identity.md
SAME_PHOTO = 0.45  # the same for single photos, which differ more than means of 1.5 s: see docs/identity.md
ROUNDS = 3  # refinements of the majority's mean embedding
MOST_WINDOWS = 600  # windows compared in all pairs; longer clips are subsampled for this step


@dataclass(frozen=True)
class Faces:
    """Face embeddings of a clip, summed in cells of half a second."""

    start: np.ndarray  # [C] s, start of each cell
    total: np.ndarray  # [C, 128] float32 sum over the frames
    count: np.ndarray  # [C] number of frames; 0 = not measured

    def __post_init__(self):
        check_shape("total", self.total, (len(self.start), NUMBERS))
        check_shape("count", self.count, (len(self.start),))

    @property
    def seconds(self) -> float:
        """Time that could be measured, s."""
        return CELL_SECONDS * int((self.count > 0).sum())

    def mean(self) -> np.ndarray:
        """Mean embedding [1, 128]."""
        return (self.total.sum(0) / max(self.count.sum(), 1))[None]


@dataclass(frozen=True)
class Stranger:
    """A part of a clip whose face differs from the rest."""

    start: float  # s
    end: float  # s
    likeness: float  # to the rest


def faces_of(observation: Observation, progress: Progress = silent, checkpoints: Checkpoints = NO_CHECKPOINTS) -> Faces:
    """Measure the face of a clip in one decoding pass.

    Args:
        observation: the clip.
        progress: called with ("identity", frames done, frames in all).
        checkpoints: of the same clip; stored chunks are not measured again.
    Returns:
        Sums for every half second that shows the face; frames turned beyond FRONT do not count.
    Raises:
        ModelMissing: the face recognition network is not installed.
    """
    network, times = recognition.load_recognition(), observation.track.times
    wanted = _wanted(observation)
    kept, number = np.unique(np.floor((times - times[0]) / CELL_SECONDS).astype(int)[wanted], return_inverse=True)
    total, count = np.zeros((len(kept), NUMBERS), np.float32), np.zeros(len(kept))
    at = dict(zip(np.flatnonzero(wanted).tolist(), number))

    def work(chunk: np.ndarray, crops: Iterator[np.ndarray]) -> Arrays:
        for index, image in zip(chunk.tolist(), crops):
            total[at[index]] += network.embed(image[None], observation.landmarks[index][None])[0]
            count[at[index]] += 1
            progress("identity", index + 1, len(observation))
        touched = np.unique([at[index] for index in chunk.tolist()])  # a cell may continue in the next chunk
        return {"cells": touched, "total": total[touched], "count": count[touched]}

    shown = np.flatnonzero(wanted)
    for _, found in in_chunks(
        checkpoints,
        "faces",
        shown,
        lambda start: iter_crops(observation, SIDE, start),
        work,
        lambda done: progress("identity", int(shown[done - 1]) + 1, len(observation)),
    ):
        total[found["cells"]], count[found["cells"]] = found["total"], found["count"]
    progress("identity", len(observation), len(observation))
    return Faces(times[0] + kept * CELL_SECONDS, total, count)


def likeness(a: Faces, b: Faces) -> float:
    """Likeness of the faces of two clips: 1 = equal; nan if a clip shows no face."""
    if not (a.seconds and b.seconds):
        return float("nan")
    return float(recognition.likeness(a.mean(), b.mean())[0, 0])


def find_strangers(seen: Faces, photos: bool = False) -> tuple[IdentityCheck, list[Stranger]]:
    """Check whether a clip shows one person.

    The reference is the person in most windows of a second and a half. It starts as the window most like all others.
    Then it becomes the mean of the half that is most like it, which excludes strangers. Windows unlike that are
    strangers. Of photos each one is a window, because the next one may show anybody.

    Returns: the figures, and the parts of the clip that show another person, in order.
    """
    windows, least = _windows(seen, 1 if photos else WINDOW), SAME_PHOTO if photos else SAME
    if not len(windows):
        return IdentityCheck(0.0, None, least), []
    means = np.stack([seen.total[part].sum(0) / seen.count[part].sum() for part in windows])
    like = _like_most(means)
    strange = [(seen.start[windows[k]], like[k]) for k in np.flatnonzero(like < least)]
    return IdentityCheck(seen.seconds, float(like.min()), least), _spans(strange)


def check_one_person(path: str | Path, seen: Faces, photos: bool = False) -> IdentityCheck:
    """Reject a clip that shows two people one after the other, or photos of two people.

    Raises:
        SecondPerson: for a second and a half or longer the face differs from the rest, or in one of the photos.
    """
    found, strangers = find_strangers(seen, photos)
    if strangers and photos:
        numbers = ", ".join(f"{s.start + 1:.0f}" for s in strangers[:3])
        raise SecondPerson(
            f"{path}: expected photos of one person, but photo {numbers} in the order of their names shows another "
            f"face (likeness {min(s.likeness for s in strangers):.2f}, at least {found.threshold} is needed); take it "
            "out of the folder"
        )
    if strangers:
        parts = ", ".join(f"{s.start:.1f} to {s.end:.1f} s" for s in strangers[:3])
        raise SecondPerson(
            f"{path}: expected one person, but the face from {parts} is not that of the rest (likeness "
            f"{min(s.likeness for s in strangers):.2f}, at least {SAME} is needed); cut that part out, or record "
            f"again alone, with nothing in front of the face"
        )
    return found


def front(observation: Observation) -> np.ndarray:
    """[T] bool: frames that show the face from the front."""
    yaw, pitch, _ = np.degrees(np.abs(euler(head_pose(observation.landmarks)))).T
    return observation.track.valid & (observation.presence >= PRESENT) & (yaw < FRONT[0]) & (pitch < FRONT[1])


def _wanted(observation: Observation) -> np.ndarray:
    """[T] bool: frames to measure: seen from the front, at most RATE a second."""
    facing = front(observation)
    tick = np.floor((observation.track.times - observation.track.times[0]) * RATE + 1e-6)
    wanted = np.zeros(len(facing), bool)
    shown = np.flatnonzero(facing)
    wanted[shown[np.unique(tick[shown], return_index=True)[1]]] = True
    return wanted


def _windows(seen: Faces, most: int) -> list[np.ndarray]:
    """Cell indices of each window: ``most`` successive measured cells, or all if there are fewer."""
    judged = np.flatnonzero(seen.count)
    size = min(most, len(judged))
    return [judged[k : k + size] for k in range(len(judged) - size + 1)] if size else []


def _like_most(means: np.ndarray) -> np.ndarray:
    """Likeness [n] of each window's mean embedding [n, 128] to the person in most windows."""
    some = means[np.unique(np.linspace(0, len(means) - 1, MOST_WINDOWS).astype(int))]
    typical = recognition.likeness(some, some).sum(1).argmax()
    like = recognition.likeness(means, some[typical][None])[:, 0]
    for _ in range(ROUNDS):
        like = recognition.likeness(means, means[like >= np.median(like)].mean(0)[None])[:, 0]
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
