"""Gaussian smoothing over time that skips invalid frames."""

from __future__ import annotations

import numpy as np

from selfscan.types import Array


def smooth_over_time(values: Array, sigma: float, valid: Array | None = None) -> Array:
    """Gaussian smoothing along the first axis that ignores invalid frames (normalised convolution).

    Args:
        values: [T, ...]. sigma: frames; 0 returns the input. valid: [T] bool; None = all.
    Returns: [T, ...] in the dtype of ``values``; an invalid frame gets the mean of its valid neighbours.
    """
    if sigma <= 0 or len(values) < 2:
        return values
    reach = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weight = np.ones(len(values)) if valid is None else valid.astype(float)
    flat = values.reshape(len(values), -1) * weight[:, None]
    out = np.stack(
        [
            np.convolve(column, kernel, "same")[: len(values)]
            if len(values) > 2 * reach
            else np.convolve(column, kernel)[reach : reach + len(values)]
            for column in flat.T
        ],
        1,
    )
    norm = (np.convolve(weight, kernel)[reach : reach + len(values)]).clip(1e-9)
    return (out / norm[:, None]).reshape(values.shape).astype(values.dtype)
