"""Warnings of a report, in words: where the avatar's result is poor, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mystudio.evaluation.forecast import Forecast
from mystudio.types import Avatar, Outcome, Take
from selfscan.types import Observation, Scan

SEEN_FACE = 0.5  # presence below which a crop counts as having no face
SAME_PERSON = 0.45  # likeness that pictures of two people reach at most, see docs/identity.md


@dataclass(frozen=True)
class Case:
    """What is judged."""

    avatar: Avatar
    take: Take
    driver: Observation
    truth: Observation | None  # the driver itself in self-reenactment
    scan: Scan | None
    forecast: Forecast | None = None  # of what the avatar cannot follow; None: its engine has none


def warnings(case: Case, seen: dict, rows: dict[str, dict], usable: np.ndarray) -> list[str]:
    """Return sentences about poor results and their reasons, for the reader of a report."""
    take, track = case.take, case.driver.track
    counts = [
        (int((take.outcome == Outcome.NO_FACE).sum()), "had no face and were held"),
        (int((take.outcome == Outcome.HELD).sum()), "could not be solved and were held"),
        (int((take.outcome == Outcome.MAX_STEPS).sum()), "stopped at the recipe's step limit"),
        (int(track.second_face.sum()), "show a second face, which was ignored"),
        (int((usable & (seen["avatar"]["presence"] < SEEN_FACE)).sum()), "of the avatar show no recognisable face"),
    ]
    said = [f"{n} of {len(take)} frames {words}." for n, words in counts if n]
    if not usable.any():
        said.append("No frame could be measured.")
    said += [f"{line}." for line in case.forecast.sentences()] if case.forecast else []
    said += case.driver.warnings
    reference = sharpness_reference(case)
    limits = (
        ("jitter", lambda v: v > 2, "The avatar shakes {:.1f} times as much as the driver; more smoothing helps."),
        ("sharpness", lambda v: v < 0.6, f"The mouth is {{:.0%}} as sharp as in the {reference}: it looks soft."),
        ("expression_motion", lambda v: v < 0.6, "Expressions swing {:.0%} as far as the driver's: they look muted."),
        ("head_motion", lambda v: v < 0.6, "The head moves only {:.0%} as far as the driver's."),
        ("likeness", lambda v: v < SAME_PERSON, "Likeness is only {:.2f}: the avatar does not look like the person."),
        ("identity_share", lambda v: v < 0.75, "Likeness is {:.0%} of the person's own spread: identity drifts."),
    )
    for name, bad, words in limits:
        value = rows[name]["value"] if name in rows else math.nan
        if math.isfinite(value) and bad(value):
            said.append(words.format(value))
    if case.truth is None:
        said.append("There is no true result to compare with: errors are taken against the driver's motion.")
    return said


def sharpness_reference(case: Case) -> str:
    """Return the word for what the mouth's sharpness is compared with."""
    return "scan" if case.scan else "true clip" if case.truth else "driving clip"
