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

YIELDS = 3  # added to the thread's niceness
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
    with closing(Adviser(person)) as adviser:
        for thing in looks:
            if isinstance(thing, dict):
                adviser.begin(thing)
                tell({"ready": True})
            elif answer := adviser.answer(thing):
                tell(answer)


class Adviser:
    """The guide of one page, and what it keeps of a recording that may be continued."""

    def __init__(self, person: Person):
        self._person, self._decode = person, PictureStream()
        self._recording: Recording | None = None
        self._guide: Guide | None = None
        self._kept = 0.0

    def begin(self, values: Mapping[str, Any]) -> None:
        """Begin anew: for a recording, or for the picture alone. Raises StudioError: the message is odd."""
        name, reduced = values.get("recording") or "", values.get("reduced")
        if isinstance(reduced, bool) or not isinstance(reduced, (int, float)) or not 0.5 <= reduced <= 32:
            raise StudioError("expected the size of the camera's picture in a look; reload the page")
        self._end()
        made = self._recording = recording.find(self._person, str(name)) if name else None
        items, seen = (made.items, made.seen()) if made else ((), [])
        self._guide = Guide(items, recording.SECONDS, float(reduced), seen)

    def answer(self, look: Look) -> Mapping[str, Any] | None:
        """Answer a look; None before ``begin``."""
        if self._guide is None:
            return None
        try:
            advice = self._guide(self._decode(look.jpeg), look.time)
        except UnreadablePicture as error:
            return {"time": look.time, "wrong": [str(error)]}
        if self._recording and time.monotonic() - self._kept > KEEPS:
            self._recording.keep_seen(self._guide.seen)
            self._kept = time.monotonic()
        return told(self._guide, advice, self._recording is not None)

    def close(self) -> None:
        """Free the guide and the decoder."""
        self._end()
        self._decode.close()

    def _end(self) -> None:
        if self._guide and self._recording:
            self._recording.keep_seen(self._guide.seen)
        if self._guide:
            self._guide.close()
        self._guide = None


def _give_way() -> None:
    """Let this thread, and its decoder, wait for others: the browser encodes the recording meanwhile."""
    torch.set_num_threads(1)  # of this thread
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.getpriority(os.PRIO_PROCESS, 0) + YIELDS))


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
