"""Advice during a recording in the page, by the same code as ``mystudio record``: looks in, coverage and advice out."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import torch

from mystudio.errors import StudioError
from mystudio.web import recording
from mystudio.web.library.people import Person
from mystudio.web.looks import Look, Looks, Tell
from mystudio.web.recording import Recording
from selfscan.errors import UnreadablePicture
from selfscan.io.picture_stream import PictureStream
from selfscan.scan.guide import LEAST_SECONDS, Advice, Guide

YIELDS = 8  # added to the thread's niceness
KEEPS = 1.0  # s between two times that what was seen is kept
#: what a recording should show: title -> bins of the coverage
GROUPS = {
    "Head": ("yaw front", "yaw left", "yaw far left", "yaw right", "yaw far right", "pitch up", "pitch down"),
    "Mouth": ("mouth closed", "mouth open", "mouth wide open", "smile", "lips pursed"),
    "Eyes and brows": ("eyes closed", "eyes wide", "brows raised", "brows lowered"),
    "Gaze": ("gaze left", "gaze right", "gaze up", "gaze down"),
}


def guide(person: Person, looks: Looks, tell: Tell) -> None:
    """Answer a page's looks: first on the picture alone, then, after a message that names it, for a recording.

    A message {"recording": id or "", "reduced": px of the recording for one px of a look} comes before the looks.
    """
    _give_way()
    made: Recording | None = None
    advises: Guide | None = None
    kept = time.monotonic()
    with closing(PictureStream()) as decode:
        try:
            for thing in looks:
                if isinstance(thing, dict):
                    if advises:
                        advises.close()
                    made = recording.find(person, name) if (name := str(thing.get("recording") or "")) else None
                    advises = _guide(made, thing.get("reduced"))
                    tell({"ready": True})
                elif advises:
                    tell(_answer(advises, decode, thing, made is not None))
                if made and advises and time.monotonic() - kept > KEEPS:
                    made.keep_seen(advises.seen)
                    kept = time.monotonic()
        finally:
            if made and advises:
                made.keep_seen(advises.seen)
            if advises:
                advises.close()


def _give_way() -> None:
    """Let this thread, and its decoder, wait for others: the browser encodes the recording meanwhile."""
    torch.set_num_threads(1)  # of this thread
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.getpriority(os.PRIO_PROCESS, 0) + YIELDS))


def _guide(made: Recording | None, reduced: Any) -> Guide:
    is_number = isinstance(reduced, (int, float)) and not isinstance(reduced, bool)
    if not is_number or not 0.5 <= reduced <= 32:
        raise StudioError("expected the size of the camera's picture in a look; reload the page")
    items = made.items if made else ()
    return Guide(items, recording.SECONDS, float(reduced), made.seen() if made else ())


def _answer(advises: Guide, decode: PictureStream, look: Look, recorded: bool) -> Mapping[str, Any]:
    try:
        advice = advises(decode(look.jpeg), look.time)
    except UnreadablePicture as error:
        return {"time": look.time, "wrong": [str(error)]}
    return told(advises, advice, recorded)


def told(advises: Guide, advice: Advice, recorded: bool) -> dict[str, Any]:
    """An advice as the page's script sees it."""
    groups = [sum(advises.parts[name] for name in bins) / len(bins) for bins in GROUPS.values()]
    return {
        "time": advice.time,
        "wrong": list(advice.wrong),
        "todo": list(advice.todo),
        "groups": [round(share, 3) for share in groups] if recorded else [],
        "seen": [[advises.parts[name] >= 1 for name in bins] for bins in GROUPS.values()] if recorded else [],
        "enough": recorded and advice.enough and advice.time >= max(LEAST_SECONDS, advises.last_word),
    }
