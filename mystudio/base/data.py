"""The order of training images: a weighted mixture of sources.

(seed, step) determines every sample of a step, so that a resumed run sees the same images as an uninterrupted one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mystudio.base.sources import ImageSource
from mystudio.errors import BadData


@dataclass(frozen=True)
class Batch:
    """The part of one step's batch that one process trains on."""

    images: np.ndarray  # [n, R, R, 3] uint8 RGB
    codes: np.ndarray  # [n, Z] float32, zero where the image has none
    coded: np.ndarray  # [n] bool
    coded_in_all: int  # number of images with a code in the whole batch, over all processes
    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))  # [P, 2] rows that are a pair


@dataclass
class Mixture:
    """Several sources, drawn from in proportion to their weights; the seed alone determines the order.

    Raises: BadData: there is no source, a weight is invalid, or two sources have codes of different sizes.
    """

    sources: Sequence[ImageSource]
    weights: Sequence[float] = ()
    mirror: bool = True  # flip half of the images that have no code; codes distinguish left and right
    seed: int = 0
    paired: bool = False  # draw images with codes in pairs: 2k and 2k + 1 of one source
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)

    def __post_init__(self):
        self.weights = list(self.weights) or [1.0] * len(self.sources)
        if not self.sources or len(self.weights) != len(self.sources) or min(self.weights) < 0 or not sum(self.weights):
            raise BadData(f"expected a weight from 0 for each of {len(self.sources)} data sources, got {self.weights}")
        if len({s.code_size for s in self.sources} - {0}) > 1:
            raise BadData(
                "expected codes of one size in all data sources, got "
                f"{[f'{s.name}: {s.code_size}' for s in self.sources]}; train them one after the other"
            )

    @property
    def code_size(self) -> int:
        """Numbers in a code; 0 if no source has codes."""
        return max(s.code_size for s in self.sources)

    @cached_property
    def shares(self) -> np.ndarray:
        """Probability of each source."""
        return np.asarray(self.weights, np.float64) / np.sum(self.weights)

    @property
    def coded_share(self) -> float:
        """Share of the images that have a code."""
        return float(sum(share for share, s in zip(self.shares, self.sources) if s.code_size))

    def coded_only(self) -> Mixture:
        """A mixture of only the sources that have codes. Raises BadData if there are none."""
        kept = [(s, w) for s, w in zip(self.sources, self.weights) if s.code_size and w > 0]
        if not kept:
            raise BadData(
                "expected data with codes (.npz with images and codes) for the supervised phase, got images "
                "alone; give such data, or start with the adversarial phase"
            )
        return Mixture([s for s, _ in kept], [w for _, w in kept], self.mirror, self.seed, self.paired)

    def plan(self, step: int, batch: int) -> list[tuple[int, int, bool]]:
        """(source, index, whether to flip) for every image of a step's whole batch."""
        rng = np.random.default_rng((self.seed, step))
        # stratified draw: a source's number of images varies by at most one between steps
        spread = (np.arange(batch) + rng.random()) / batch * self.shares.sum()
        chosen = rng.permutation(np.searchsorted(np.cumsum(self.shares)[:-1], spread, "right"))
        where, flips = rng.random(batch), rng.random(batch) < 0.5
        plan = [
            (int(s), int(u * len(self.sources[s])), bool(f) and self.mirror and not self.sources[s].code_size)
            for s, u, f in zip(chosen, where, flips)
        ]
        return self._in_pairs(plan) if self.paired else plan

    def _in_pairs(self, plan: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
        """The plan with the second of every two images with codes of a source replaced by the first one's partner."""
        first: dict[int, int] = {}
        for row, (source, index, flip) in enumerate(plan):
            if not self.sources[source].code_size:
                continue
            if source in first:
                plan[row] = source, first.pop(source) ^ 1, flip
            elif index ^ 1 < len(self.sources[source]):
                first[source] = index
        return plan

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Images of a step for process ``rank`` of ``world``: every world-th image of the whole batch of ``size``."""
        plan = self.plan(step, size)
        self._pool = self._pool or ThreadPoolExecutor(max(1, os.cpu_count() or 1))
        own = plan[rank::world]
        found = list(self._pool.map(self._take, own))
        codes = np.zeros((len(found), self.code_size), np.float32)
        for row, (_, code) in zip(codes, found):
            row[:] = 0 if code is None else code
        return Batch(
            np.stack([image for image, _ in found]),
            codes,
            np.array([c is not None for _, c in found]),
            sum(self.sources[s].code_size > 0 for s, _, _ in plan),
            self._pairs(own),
        )

    def _pairs(self, plan: list[tuple[int, int, bool]]) -> np.ndarray:
        """Rows [P, 2] of the pairs of a plan."""
        first: dict[tuple[int, int], int] = {}
        found = []
        for row, (source, index, _) in enumerate(plan if self.paired else ()):
            if not self.sources[source].code_size:
                continue
            if (source, index ^ 1) in first:
                found.append((first.pop((source, index ^ 1)), row))
            else:
                first[source, index] = row
        return np.array(found, np.int64).reshape(-1, 2)

    def _take(self, row: tuple[int, int, bool]) -> tuple[np.ndarray, np.ndarray | None]:
        source, index, flip = row
        image, code = self.sources[source].get(index)
        return (image[:, ::-1] if flip else image), code


class Prefetcher:
    """Prepares the next step's batch in another thread while the current one is in use."""

    def __init__(self, mixture: Mixture, size: int, rank: int, world: int):
        self._of, self._pool = (mixture, size, rank, world), ThreadPoolExecutor(1)
        self._lock, self._waiting = threading.Lock(), {}

    def batch(self, step: int) -> Batch:
        """Return the batch of a step and start to prepare the batch of the following step."""
        mixture, size, rank, world = self._of
        with self._lock:
            futures = {
                s: self._waiting.get(s) or self._pool.submit(mixture.batch, s, size, rank, world)
                for s in (step, step + 1)
            }
            self._waiting = futures
        return futures[step].result()

    def close(self) -> None:
        """Stop the thread that prepares batches."""
        self._pool.shutdown(wait=True, cancel_futures=True)
