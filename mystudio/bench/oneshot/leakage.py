"""Leakage: how much of the driver's look can be read from pictures of the person that is driven.

A linear model predicts the driver's look factors from the pictures. Its R2 on held-out drivers is 0 if the pictures
tell nothing about how the driver looks, and 1 if they tell everything. On few drivers it falls below 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FOLDS = 5
LEAST = 20  # drivers: with fewer, a held-out R2 means nothing
STRENGTHS = 10.0 ** np.arange(-1, 5)  # of the ridge, times the number of features


def leak(features: np.ndarray, looks: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Held-out R2 of each look factor of the driver.

    Features and looks are taken relative to their means over the same person's pictures, because people differ. The
    ridge is chosen inside the training part of each fold.

    Args: features: [N, F] of the pictures. looks: [N, L] of their drivers. people: [N] who is shown.
    Returns: [L].
    Raises: ValueError: fewer than ``LEAST`` drivers.
    """
    if len(features) < LEAST:
        raise ValueError(f"features: expected at least {LEAST} drivers, got {len(features)}")
    names = np.asarray(people)
    x, y = (values - np.stack([values[names == name].mean(0) for name in names])
            for values in (features.astype(np.float64), looks.astype(np.float64)))  # fmt: skip
    fold = np.arange(len(x)) % FOLDS  # the drivers are in random order already
    rest, spread = np.zeros_like(y), np.zeros_like(y)
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        predicted = _ridge(x[train], y[train], x[test])
        rest[test], spread[test] = y[test] - predicted, y[test] - y[train].mean(0)
    return 1 - np.square(rest).sum(0) / np.square(spread).sum(0)


def _ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Ridge regression with the strength of least generalised cross-validation error, for each target.

    Golub, Heath and Wahba, 1979.
    """
    middle, scale, mean = x.mean(0), x.std(0) + 1e-9, y.mean(0)
    u, s, vt = np.linalg.svd((x - middle) / scale, full_matrices=False)
    projected, best = u.T @ (y - mean), np.full(y.shape[1], np.inf)
    chosen = np.zeros((len(s), y.shape[1]))
    for strength in STRENGTHS * x.shape[1]:
        shrunk = s**2 / (s**2 + strength)
        rest = y - mean - u @ (shrunk[:, None] * projected)
        error = np.square(rest).mean(0) / (1 - shrunk.sum() / len(x)) ** 2
        chosen = np.where(error < best, (s / (s**2 + strength))[:, None] * projected, chosen)
        best = np.minimum(best, error)
    return mean + (new - middle) / scale @ (vt.T @ chosen)
