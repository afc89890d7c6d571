"""The persons of a clip with cuts: which shots show another person than most of the clip.

A shot is often shorter than the windows of the identity check, so its likeness varies more. Half seconds of eight real
clips have a likeness of at least 0.59 to their person, and of at most 0.44 to other people.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.face import recognition
from selfscan.face.observe import iter_crops
from selfscan.face.recognition import NUMBERS
from selfscan.scan.identity import SIDE, Faces, front, likeness
from selfscan.types import Observation, Progress, silent

SHOT_FRAMES = 8  # frames that tell the person of a shot
OTHER = 0.5  # a lower likeness to all shots of a person is another person


def find_others(
    observation: Observation, progress: Progress = silent, checkpoints: Checkpoints = NO_CHECKPOINTS
) -> np.ndarray:
    """Find the shots that show another person than most of the clip.

    Args:
        observation: the clip.
        progress: called with ("persons", frames done, frames in all).
        checkpoints: of the same clip; stored chunks are not measured again.
    Returns:
        [T] bool. A shot that never shows the face from the front cannot be compared and counts as the same person.
    """
    other, shots = np.zeros(len(observation), bool), observation.track.shots
    if len(shots) < 2:
        return other
    seen = by_shot(observation, progress, checkpoints)
    frames = [int(observation.track.valid[shot].sum()) for shot in shots]
    persons: list[list[int]] = []  # shots of each person
    for k in sorted(range(len(shots)), key=lambda k: -frames[k]):
        if seen[k].seconds:
            known = [likeness(seen[k], _joined([seen[i] for i in person])) for person in persons]
            best = int(np.argmax(known)) if known else -1
            if best >= 0 and known[best] >= OTHER:
                persons[best].append(k)
            else:
                persons.append([k])
    persons.sort(key=lambda person: -sum(frames[k] for k in person))
    for k in (k for person in persons[1:] for k in person):
        other[shots[k]] = True
    return other


def by_shot(observation: Observation, progress: Progress, checkpoints: Checkpoints) -> list[Faces]:
    """Faces of each shot, one cell each; no cell if the shot never shows the face from the front."""
    network, facing = recognition.load_recognition(), front(observation)
    chosen = [shot.start + np.flatnonzero(facing[shot]) for shot in observation.track.shots]
    chosen = [at[np.linspace(0, len(at) - 1, min(len(at), SHOT_FRAMES)).astype(int)] for at in chosen]
    shown = np.concatenate(chosen).astype(int)
    rows: dict[int, np.ndarray] = {}

    def work(chunk: np.ndarray, crops: Iterator[np.ndarray]) -> Arrays:
        marks = observation.landmarks[chunk]
        return {"rows": np.concatenate([network.embed(i[None], m[None]) for i, m in zip(crops, marks)])}

    for part, found in in_chunks(
        checkpoints,
        "persons.faces",
        shown,
        lambda start: iter_crops(observation, SIDE, start),
        work,
        lambda done: progress("persons", done, len(shown)),
    ):
        rows |= dict(zip(part.tolist(), found["rows"]))
        progress("persons", len(rows), len(shown))
    return [_faces(observation.track.times, [rows[k] for k in at], at) for at in map(np.ndarray.tolist, chosen)]


def _faces(times: np.ndarray, rows: list[np.ndarray], at: list[int]) -> Faces:
    total = np.array(rows, np.float32).reshape(-1, NUMBERS).sum(0, keepdims=True)
    return Faces(times[at[:1]], total[: len(at)], np.array([len(at)] if at else []))


def _joined(parts: list[Faces]) -> Faces:
    return Faces(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("start", "total", "count")))
