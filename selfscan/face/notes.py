"""Sentences about a tracked face: where the clip is cut, and where the face was turned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfscan.face.headpose import euler
from selfscan.types import Array, FaceTrack

TURNED = 60.0  # degrees of roll: a face beyond it lies on its side or is upside down
UPSIDE_DOWN = 120.0  # degrees of roll
SHOWN = 6  # spans named in a sentence
ANOTHER = "Another person's face drives at "  # begins the sentence about a cut to another person


def notes(track: FaceTrack, stills: bool = False) -> list[str]:
    """Sentences for the user of a clip.

    Args:
        track: the face. stills: the clip is single photos, which are not cut.
    """
    said = list[str]()
    if len(track.cuts) and not stills:
        said.append(f"The clip is cut at {in_words(track.cut_spans)} s; each part is followed and smoothed by itself.")
    roll = np.abs(np.degrees(euler(track.pose)[:, 2]))
    for turned, words in (
        ((roll > TURNED) & (roll <= UPSIDE_DOWN), "lies on its side"),
        (roll > UPSIDE_DOWN, "is upside down"),
    ):
        if (spans := spans_of(turned & track.valid, track)) and not stills:
            said.append(f"The face {words} at {in_words(spans)} s; it is turned upright.")
        elif spans:
            said.append(f"The face {words} in {int((turned & track.valid).sum())} pictures; it is turned upright.")
    return said


def left_out(warnings: Sequence[str]) -> tuple[str, ...]:
    """The warnings about a clip of a take in which the other person is left out."""
    return tuple(
        f"Another person's face is left out at {text.removeprefix(ANOTHER).split(';')[0]}; there the avatar waits."
        if text.startswith(ANOTHER)
        else text
        for text in warnings
    )


def spans_of(marked: Array, track: FaceTrack) -> tuple[tuple[float, float], ...]:
    """Start and end, s, of the runs of marked frames [T] bool; gaps of the track inside a run do not end it."""
    spans, last = list[tuple[float, float]](), -1
    for index in np.flatnonzero(marked):
        time = float(track.times[index])
        known = bool(last >= 0) and not (track.valid & ~marked)[last:index].any()
        spans[-1:] = [(spans[-1][0], time)] if known else [*spans[-1:], (time, time)]
        last = int(index)
    return tuple(spans)


def in_words(spans: tuple[tuple[float, float], ...]) -> str:
    """Times and spans in s as words, such as "0.60, 2.00 to 2.48 and 3 more"."""
    shown = [f"{a:.2f}" if b - a < 0.005 else f"{a:.2f} to {b:.2f}" for a, b in spans[:SHOWN]]
    return ", ".join(shown) + (f" and {len(spans) - SHOWN} more" if len(spans) > SHOWN else "")
