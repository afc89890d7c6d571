"""Checkpoints of a stage, so that a stopped command continues: arrays by name, one chunk of a clip at a time.

The caller decides where they are stored. A chunk is computed in the same batches whether the chunks before it were
computed or loaded, so a resumed run gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from selfscan.types import Array

CHUNK = 32  # frames in a checkpoint: a killed command loses at most this much work, a second or two
Arrays = dict[str, Array]
Item = TypeVar("Item")


class Checkpoints(Protocol):
    """Stores arrays by name."""

    def get(self, name: str) -> Arrays | None:
        """Return the arrays stored under a name; None if they are missing or damaged."""

    def put(self, name: str, arrays: Arrays) -> None:
        """Store arrays: all of them or none. Raises OSError."""

    def show(self, name: str, picture: Array) -> None:
        """Publish a preview [H, W, 3] uint8 RGB of the work so far; it replaces the one before."""


class NoCheckpoints:
    """Stores nothing; the default."""

    def get(self, name: str) -> None:
        return None

    def put(self, name: str, arrays: Arrays) -> None:
        pass

    def show(self, name: str, picture: Array) -> None:
        pass


NO_CHECKPOINTS = NoCheckpoints()


@dataclass(frozen=True)
class Share:
    """One of several equal parts of a pass, each computed by a run of its own, perhaps on another machine."""

    name: str  # of the pass: the start of its checkpoints' names
    part: int  # from 0
    of: int  # number of parts


class ShareDone(Exception):
    """The checkpoints of a share are stored. It ends the stage, which makes nothing else in this run."""


_share: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def only(share: Share) -> Iterator[None]:
    """Compute one share of a pass and nothing else: stages inside end with ``ShareDone``.

    The passes before it must be stored. The same stage without shares then loads what all shares have stored, and
    joins it: its result is that of one run.
    """
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def own_starts(name: str, starts: Sequence[int]) -> Sequence[int] | None:
    """Return the chunks of a pass that this run computes, by their first indices; None = all of them."""
    share = _share.get()
    if share is None or share.name != name:
        return None
    first, last = (len(starts) * k // share.of for k in (share.part, share.part + 1))
    return starts[first:last]


def refuse_others(name: str) -> None:
    """Raise ShareDone before a chunk is computed of a pass that is not this run's share."""
    share = _share.get()
    if share is not None and share.name != name:
        raise ShareDone


class Prefixed:
    """Checkpoints stored in other checkpoints, with a prefix before every name."""

    def __init__(self, checkpoints: Checkpoints, prefix: str):
        self._checkpoints, self._prefix = checkpoints, prefix

    def get(self, name: str) -> Arrays | None:
        return self._checkpoints.get(f"{self._prefix}{name}")

    def put(self, name: str, arrays: Arrays) -> None:
        self._checkpoints.put(f"{self._prefix}{name}", arrays)

    def show(self, name: str, picture: Array) -> None:
        self._checkpoints.show(f"{self._prefix}{name}", picture)


def once(checkpoints: Checkpoints, name: str, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays stored under a name; if there are none, call ``make`` and store its result."""
    found = checkpoints.get(name)
    if found is None:
        checkpoints.put(name, found := make())
    return found


def in_chunks(
    checkpoints: Checkpoints,
    name: str,
    indices: Array | range,
    stream: Callable[[int], Iterator[tuple[int, Item]]],
    work: Callable[[Array, Iterator[Item]], Arrays],
    tick: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Array, Arrays]]:
    """Compute something for a clip chunk by chunk; chunks with a checkpoint are loaded instead.

    Args:
        checkpoints: store finished chunks as ``NAME0000000``; the number is the position of the chunk's first index.
        name: name of this pass, the start of its checkpoints' names.
        indices: [N] indices of the wanted frames, ascending; CHUNK of them make a chunk.
        stream: opens the clip at a frame or before it and returns pairs of frame index and item, ascending. It is not
            called if every chunk has a checkpoint, and not read beyond the last wanted frame.
        work: gets a chunk's indices [n] and its items; returns the measured arrays.
        tick: called with the number of finished indices after each chunk that was loaded.
    Returns: pairs of a chunk's indices and its measured arrays, in order.
    """
    opened, starts = None, range(0, len(indices), CHUNK)
    own = own_starts(name, starts)
    for start in starts if own is None else own:
        chunk = np.asarray(indices[start : start + CHUNK])
        found = checkpoints.get(f"{name}{start:07d}")
        if found is None:
            refuse_others(name)
            opened = opened or stream(int(chunk[0]))
            found = work(chunk, _wanted(opened, chunk))
            checkpoints.put(f"{name}{start:07d}", found)
        else:
            tick(start + len(chunk))
        yield chunk, found
    if own is not None:
        raise ShareDone


def _wanted(stream: Iterator[tuple[int, Item]], chunk: Array) -> Iterator[Item]:
    """The items of a chunk; the stream's other items are skipped."""
    for wanted in chunk.tolist():
        yield next(item for index, item in stream if index == wanted)
