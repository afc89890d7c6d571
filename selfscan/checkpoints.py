"""Checkpoints of a stage, so that a stopped command continues: arrays by name, one chunk of a clip at a time.

The caller decides where they are stored. A chunk is computed in the same batches whether the chunks before it were
computed or loaded, so a resumed run gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import numpy as np

from selfscan.types import Array

CHUNK = 32  # frames of a checkpoint: a second or two of work, which a kill may cost
Arrays = dict[str, Array]
Item = TypeVar("Item")


class Checkpoints(Protocol):
    """A place for arrays, by name."""

    def get(self, name: str) -> Arrays | None:
        """Return what was put under a name; None if nothing was, or it is damaged."""

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep arrays: all of them or none. Raises OSError."""

    def show(self, name: str, picture: Array) -> None:
        """Show a picture [H, W, 3] uint8 RGB of the work so far to whoever looks; a later one replaces it."""


class NoCheckpoints:
    """Keeps nothing."""

    def get(self, name: str) -> None:
        return None

    def put(self, name: str, arrays: Arrays) -> None:
        pass

    def show(self, name: str, picture: Array) -> None:
        pass


NO_CHECKPOINTS = NoCheckpoints()


class Prefixed:
    """A part of another place: every name gets a prefix."""

    def __init__(self, checkpoints: Checkpoints, prefix: str):
        self._checkpoints, self._prefix = checkpoints, prefix

    def get(self, name: str) -> Arrays | None:
        return self._checkpoints.get(f"{self._prefix}{name}")

    def put(self, name: str, arrays: Arrays) -> None:
        self._checkpoints.put(f"{self._prefix}{name}", arrays)

    def show(self, name: str, picture: Array) -> None:
        self._checkpoints.show(f"{self._prefix}{name}", picture)


def once(checkpoints: Checkpoints, name: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays under a name; if there are none, those that ``make`` returns, which are kept."""
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
    """Compute something for a clip chunk by chunk; chunks that were kept are not computed again.

    Args:
        checkpoints: where finished chunks are kept, as ``NAME0000000`` with the number of their first index.
        name: of this pass.
        indices: [N] of the wanted frames, ascending; CHUNK of them make a chunk.
        stream: opens the clip at a frame or before it: pairs of frame index and item, ascending; not opened if all
            chunks were kept, and not read beyond the last wanted frame.
        work: gets the indices [n] of a chunk and its items, and returns what is measured.
        tick: told how many indices are done, where a chunk was done before.
    Returns: pairs of a chunk's indices and what was measured, in order.
    """
    opened = None
    for start in range(0, len(indices), CHUNK):
        chunk = np.asarray(indices[start : start + CHUNK])
        found = checkpoints.get(f"{name}{start:07d}")
        if found is None:
            opened = opened or stream(int(chunk[0]))
            found = work(chunk, _wanted(opened, chunk))
            checkpoints.put(f"{name}{start:07d}", found)
        else:
            tick(start + len(chunk))
        yield chunk, found


def _wanted(stream: Iterator[tuple[int, Item]], chunk: Array) -> Iterator[Item]:
    """The items of a chunk; other items of the stream are skipped."""
    for wanted in chunk.tolist():
        yield next(item for index, item in stream if index == wanted)
