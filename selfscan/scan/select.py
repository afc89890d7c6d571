"""Select a few images that represent many: k-centre by farthest-point-first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def k_centre(
    embeddings: np.ndarray,
    k: int,
    first: int | None = None,
    weight: np.ndarray | None = None,
    limit: tuple[np.ndarray, int] | None = None,
    block: int = 64,
) -> np.ndarray:
    """Choose k rows so that every row is near a chosen one (Gonzalez 1985, farthest-point-first).

    Each pick is the row farthest from all earlier picks. Without ``weight`` and ``limit``, the covering radius (the
    largest Euclidean distance of a row to its nearest pick) is at most twice the optimum.

    Args:
        embeddings: [N, E], compared by squared Euclidean distance.
        k: number of picks, at most N; fewer are returned if ``limit`` excludes the rest.
        first: row to start from; None takes the medoid (smallest sum of squared distances).
        weight: [N] in 0..1, factor on each row's squared distance (quality); rows of weight 0 are never picked.
        limit: ([N] bool, count): at most ``count`` of the marked rows are picked.
        block: rows processed at once; the working memory is 4 block E bytes.

    Returns:
        [k] int64 indices in the order of choice; equal inputs give equal picks, ties go to the lowest index.

    Raises:
        ValueError: k is not in 1..N or an argument has the wrong shape.
    """
    e = np.asarray(embeddings)
    factor, marked, left = _rules(len(e), k, first, weight, limit)
    norm = np.concatenate([np.square(e[i : i + block], dtype=np.float32).sum(1) for i in range(0, len(e), block)])

    def to_row(row: int) -> np.ndarray:
        return _squared_to(e, norm, e[row].astype(np.float32), block)

    if first is None:
        first = _first(_squared_to(e, norm, e.mean(0, dtype=np.float32), block), factor, marked)
    return _farthest_first(to_row, k, first, factor, marked, left)


def k_centre_distances(
    distances: np.ndarray,
    k: int,
    first: int | None = None,
    weight: np.ndarray | None = None,
    limit: tuple[np.ndarray, int] | None = None,
) -> np.ndarray:
    """``k_centre`` from a matrix of squared distances.

    Args:
        distances: [N, N] squared distances.
        k: as in ``k_centre``, and so are ``first``, ``weight`` and ``limit``.

    Returns:
        [k] int64 indices in the order of choice.
    """
    factor, marked, left = _rules(len(distances), k, first, weight, limit)
    if first is None:
        first = _first(distances.sum(0), factor, marked)
    return _farthest_first(lambda row: distances[row], k, first, factor, marked, left)


def radius(distances: np.ndarray, picks: np.ndarray) -> float:
    """Largest Euclidean distance of any image to its nearest pick.

    Args:
        distances: [N, N] squared distances.
        picks: [k] indices.

    Returns:
        The covering radius, in units of the embedding (not squared).
    """
    return float(np.sqrt(distances[picks].min(0).max()))


def _rules(
    n: int, k: int, first: int | None, weight: np.ndarray | None, limit: tuple[np.ndarray, int] | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Check the arguments; return factor [N], marked [N] and the number of marked rows that may be picked."""
    if not 1 <= k <= n:
        raise ValueError(f"k: expected 1..{n} (the number of images), got {k}")
    if first is not None and not 0 <= first < n:
        raise ValueError(f"first: expected an index below {n}, got {first}")
    factor = np.ones(n) if weight is None else np.array(weight, np.float64)
    marked, left = (np.zeros(n, bool), n) if limit is None else (np.asarray(limit[0], bool), limit[1])
    if factor.shape != (n,) or marked.shape != (n,):
        raise ValueError(f"weight and limit: expected shape ({n},), got {factor.shape} and {marked.shape}")
    if left <= 0:
        factor[marked] = 0
    return factor, marked, left


def _first(squared: np.ndarray, factor: np.ndarray, marked: np.ndarray) -> int:
    for allowed in ((factor > 0) & ~marked, factor > 0):
        if allowed.any():
            return int(np.argmin(np.where(allowed, squared, np.inf)))
    raise ValueError("weight: expected at least one image that may be picked, got none")


def _farthest_first(
    to_row: Callable[[int], np.ndarray], k: int, first: int, factor: np.ndarray, marked: np.ndarray, left: int
) -> np.ndarray:
    picks, nearest, row = [], np.full(len(factor), np.inf), first
    while True:
        picks.append(row)
        factor[row] = 0
        left -= int(marked[row])
        if left <= 0:
            factor[marked] = 0
        if len(picks) == k or not factor.any():
            return np.array(picks, np.int64)
        nearest = np.minimum(nearest, to_row(row))
        row = int(np.argmax(np.where(factor > 0, nearest * factor, -1)))  # -1: below copies of a pick, at distance 0


def _squared_to(e: np.ndarray, norm: np.ndarray, point: np.ndarray, block: int) -> np.ndarray:
    dot = np.concatenate([e[i : i + block].astype(np.float32, copy=False) @ point for i in range(0, len(e), block)])
    return np.maximum(norm - 2 * dot + point @ point, 0)
