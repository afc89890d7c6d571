"""The avatar follows a camera of the page, by the same code as ``mystudio live``: looks in, pictures out."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import cv2

from mystudio.live.follow import Shown
from mystudio.live.session import Wish
from mystudio.live.stream import Frames
from mystudio.pipeline import run_live
from mystudio.recipe import resolve
from mystudio.web.library import names
from mystudio.web.library.people import Person
from mystudio.web.looks import Look, Looks, Tell
from selfscan.errors import UnreadablePicture
from selfscan.io.picture_stream import PictureStream
from selfscan.types import Array

RATE = 10.0  # frames a second that the size of the pictures is chosen for
QUALITY = 88  # of a JPEG
HEAD = struct.Struct("<dB")  # of a picture: time of its look in s, outcome
PREFIX = "live"  # of a recording's name


def follow(person: Person, looks: Looks, tell: Tell) -> None:
    """Answer a page's looks with pictures of the avatar, until a message {"end": true} or until the page is gone.

    The first message is {"record": whether a clip is written}; {"neutral": true} takes the face as being at rest now.
    At the end, the page is told {"ended": true, "clip": name of the clip or ""} and how fast it was.
    """
    first = next(iter(looks), None)
    if not isinstance(first, dict):
        return
    out = new_clip(person) if first.get("record") is True else None
    session = Session(looks, tell)
    tell({"ready": True})
    try:
        told = run_live(person.avatar, session.frames(), resolve(options=[f"live.rate={RATE}"]), session.show, out=out)
    except ValueError:
        if session.count:
            raise
        told = {}  # it ended before the first look
    tell({"ended": True, "clip": out.name if out and out.is_file() else "", **_pace(told)})


def new_clip(person: Person) -> Path:
    """Place of a new recording."""
    person.renders.mkdir(mode=0o700, exist_ok=True)
    return person.renders / names.new_name(PREFIX, ".mp4")


class Session:
    """One page's looks as frames, and what it wishes."""

    def __init__(self, looks: Looks, tell: Tell):
        self._looks, self._tell = looks, tell
        self._wish: Wish = ""
        self.count = 0  # frames that were read

    def frames(self) -> Frames:
        """Times and frames of the looks; damaged ones and those that are not later than the last are left out."""
        last = -1.0
        with closing(PictureStream()) as decode:
            for thing in self._looks:
                if isinstance(thing, dict) and thing.get("end") is True:
                    return
                if isinstance(thing, dict):
                    self._wish = "neutral" if thing.get("neutral") is True else self._wish
                elif thing.time > last and thing.time >= 0:
                    last = thing.time
                    yield from self._frame(decode, thing)

    def _frame(self, decode: PictureStream, look: Look) -> Frames:
        with suppress(UnreadablePicture):
            frame = decode(look.jpeg)
            self.count += 1
            yield look.time, frame

    def show(self, shown: Shown) -> Wish:
        """Send the avatar's picture."""
        size = len(shown.picture)
        try:
            self._tell(HEAD.pack(shown.time, int(shown.outcome)) + _jpeg(shown.picture[:, size:]))
        except Exception:  # the page is gone; a recording is finished all the same
            return "stop"
        wish, self._wish = self._wish, ""
        return wish


def _jpeg(picture: Array) -> bytes:
    return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _pace(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("frames", "frames_per_second", "latency_ms", "stages_ms") if name in told}
