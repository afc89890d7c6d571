"""The persons of a clip with cuts: which shots show another person than most of the clip.

A shot is often shorter than the windows of the identity check, so its likeness varies more. Pieces of 0.6 s of real
clips have a likeness of at least 0.48 to others of the same person, and at most 0.48 to those of other people; the
99th percentile is 0.43.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.face.observe import iter_crops
from selfscan.scan.identity import SIDE, Appearance, front, likeness, of_images
from selfscan.types import Observation, Progress, silent

SHOT_FRAMES = 16  # frames that tell the person of a shot
OTHER = 0.45  # a lower likeness to all shots of a person is another person


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


def by_shot(observation: Observation, progress: Progress, checkpoints: Checkpoints) -> list[Appearance]:
    """Appearance of the face in each shot, one cell each; no cell if the shot never shows it from the front."""
    facing = front(observation)
    chosen = [shot.start + np.flatnonzero(facing[shot]) for shot in observation.track.shots]
    chosen = [at[np.linspace(0, len(at) - 1, min(len(at), SHOT_FRAMES)).astype(int)] for at in chosen]
    shown = np.concatenate(chosen).astype(int)
    rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def work(chunk: np.ndarray, crops: Iterator[np.ndarray]) -> Arrays:
        found = [of_images(image[None], observation.landmarks[k][None]) for k, image in zip(chunk.tolist(), crops)]
        return dict(zip(("values", "weights"), map(np.concatenate, zip(*found))))

    for part, found in in_chunks(
        checkpoints,
        "persons",
        shown,
        lambda start: iter_crops(observation, SIDE, start),
        work,
        lambda done: progress("persons", done, len(shown)),
    ):
        rows |= dict(zip(part.tolist(), zip(found["values"], found["weights"])))
        progress("persons", len(rows), len(shown))
    return [
        _appearance(float(observation.track.times[at[0]]), [rows[k] for k in at]) if len(at) else NONE
        for at in map(np.ndarray.tolist, chosen)
    ]


NONE = Appearance(np.zeros(0), np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))


def _appearance(start: float, rows: list[tuple[np.ndarray, np.ndarray]]) -> Appearance:
    values, weights = (np.stack(part) for part in zip(*rows))
    return Appearance(np.array([start]), (values * weights).sum(0)[None], weights.sum(0)[None])


def _joined(parts: list[Appearance]) -> Appearance:
    names = ("start", "total", "weight")
    return Appearance(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
