"""The process that draws previews of edits (``mystudio.web.preview``): it keeps takes loaded between questions.

A question is a line of JSON on stdin. The answer is a line of JSON on stdout, followed by as many bytes of a picture as
it says. What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mystudio import editing, engines, recipe
from mystudio.compute import blas
from mystudio.compute.compilation import Precision, drawer
from mystudio.compute.device import choose
from mystudio.errors import StudioError, memory_ran_out, reason
from mystudio.jobs.child import edit_of
from mystudio.provenance import claim as provenance
from mystudio.rendering.render import SMALLEST, enlarge
from mystudio.storage.artifacts import load
from mystudio.storage.manifest import digest, open_folder, written
from mystudio.types import Avatar, Edit, Take
from selfscan.errors import SelfscanError
from selfscan.io.pixels import to_uint8
from selfscan.types import Array

KEPT = 2  # takes that stay loaded, each with its avatar
QUICK = 0.1  # s: a draft is the largest picture that takes no longer
SMALLEST_DRAFT = 64  # px


@dataclass
class Opened:
    """A take that is loaded, and what drawing it took so far."""

    avatar: Avatar
    take: Take
    precision: Precision  # of the generator's feature maps, as in a render
    stamp: Callable[[Array], Array] | None  # marks a picture as the commands mark theirs
    seconds: dict[int, float] = field(default_factory=dict[int, float])  # size, px -> s of drawing

    @property
    def size(self) -> int:
        """Side of the whole picture, px."""
        return self.avatar.generator.resolution

    def draft_size(self) -> int:
        """The largest size that is drawn quickly, by what was measured; a size that was never drawn is tried."""
        size = self.size
        while size > SMALLEST_DRAFT and self.seconds.get(size, 0.0) > QUICK:
            size //= 2
        return size


def open_take(path: Path) -> Opened:
    """Load a take and the avatar that it was made with. Raises BadArtifact: one of them is missing or has changed."""
    source = open_folder(path, "take").source("avatar")
    avatar, take = load(source, Avatar), load(path, Take)
    avatar = replace(avatar, generator=avatar.generator.to(choose()))
    settings = recipe.resolve()
    return Opened(avatar, take, settings.render.precision, provenance.stamp(settings.provenance, digest(source)))


def draw(opened: Opened, edits: Sequence[Edit], frame: int, size: int) -> Array:
    """Draw one frame with edits, [H, W, 3] uint8; in the whole size it is the frame that ``render`` draws.

    Args: size: px, a power of two up to the generator's resolution.
    Raises: BadEdit, NotOffered: see ``editing.apply``.
    """
    avatar, still = opened.avatar, _still(opened.take, frame)
    edited = editing.apply(avatar, still, list(edits)) if edits else still
    start = time.perf_counter()
    net = avatar.generator
    picture = drawer(net.synthesize, next(net.parameters()).device, opened.precision, "no", size)
    with torch.inference_mode():
        image = to_uint8(picture(engines.of(avatar).decode(avatar, edited)).clamp(-1, 1))[0]
    opened.seconds[size] = min(opened.seconds.get(size, np.inf), time.perf_counter() - start)
    if size < opened.size:
        return image
    image = enlarge(image, max(SMALLEST, size))
    return opened.stamp(image) if opened.stamp else image


class Desk:
    """Answers questions; keeps the takes that were asked for last."""

    def __init__(self) -> None:
        self._opened: dict[str, tuple[object, Opened]] = {}

    def answer(self, question: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Answer a question of ``preview.Previews``."""
        opened = self._of(question["take"])
        if question["do"] == "open":
            names = list(engines.directions(opened.avatar))
            return {"directions": names, "times": opened.take.times.tolist(), "size": opened.size}, b""
        start, busy = time.perf_counter(), time.process_time()
        frame = min(max(int(question["frame"]), 0), len(opened.take) - 1)
        size = opened.draft_size() if question["draft"] else opened.size
        image = draw(opened, [edit_of(edit) for edit in question["edits"]], frame, size)
        content = _png(image)
        spent = {"seconds": time.perf_counter() - start, "processor": time.process_time() - busy}
        return {"frame": frame, "size": size, "full": size == opened.size} | spent, content

    def _of(self, path: str) -> Opened:
        stamp, known = written(Path(path)), self._opened.pop(path, None)
        if known is None or known[0] != stamp:
            while len(self._opened) >= KEPT:
                del self._opened[next(iter(self._opened))]
            known = stamp, open_take(Path(path))
        self._opened[path] = known
        return known[1]


def main() -> None:
    """Answer questions from stdin until it ends, or none came for the time that the first argument says."""
    answers, idle = os.dup(1), float(sys.argv[1])
    os.dup2(2, 1)  # what a library prints must not look like an answer
    torch.set_num_threads(1)  # the steps are small: more threads cost more than they give, and a job may run beside
    blas.reserve()
    desk = Desk()
    while select.select([0], [], [], idle)[0]:
        if not (line := _line()):
            return
        try:
            facts, content = desk.answer(json.loads(line))
        except Exception as error:
            facts, content = _failure(error), b""
        whole = memoryview(json.dumps(facts | {"bytes": len(content)}).encode() + b"\n" + content)
        while whole:
            whole = whole[os.write(answers, whole) :]


def _failure(error: Exception) -> dict[str, Any]:
    if memory_ran_out(error):
        return {"error": "memory ran out; close other programs and try again", "expected": True}
    if isinstance(error, OSError):
        return {"error": f"{error.strerror or error}; check the disk and try again", "expected": True}
    return {"error": reason(error, 2000), "expected": isinstance(error, (StudioError, SelfscanError))}


def _still(take: Take, frame: int) -> Take:
    here = slice(frame, frame + 1)
    codes = {name: values[here] for name, values in take.codes.items()}
    return Take(codes, take.outcome[here], take.times[here], {})


def _png(image: Array) -> bytes:
    import cv2

    return cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _line() -> bytes:
    """Read a line without a buffer, so that ``select`` sees what is left; b"" at the end."""
    data = bytearray()
    while not data.endswith(b"\n"):
        if not (block := os.read(0, 1 << 16)):
            return b""
        data += block
    return bytes(data)
