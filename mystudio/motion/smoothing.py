"""Gaussian smoothing over time that skips invalid frames."""

from __future__ import annotations

import numpy as np

from selfscan.types import Array


def smooth_over_time(
    values: Array, sigma: float, valid: Array | None = None, shots: tuple[slice, ...] | None = None
) -> Array:
    """Gaussian smoothing along the first axis that ignores invalid frames (normalised convolution).

    Args:
        values: [T, ...]. sigma: frames; 0 returns the input. valid: [T] bool; None = all.
        shots: parts of the clip that are smoothed each by itself; None = one.
    Returns: [T, ...] in the dtype of ``values``; an invalid frame gets the mean of its valid neighbours. A shot
        without a valid frame is unchanged.
    """
    if sigma <= 0 or len(values) < 2:
        return values
    valid = np.ones(len(values), bool) if valid is None else np.asarray(valid, bool)
    if shots is None or len(shots) < 2:
        return _smooth(values, sigma, valid)
    out = values.copy()
    for shot in shots:
        if valid[shot].any():
            out[shot] = _smooth(values[shot], sigma, valid[shot])
    return out


def _smooth(values: Array, sigma: float, valid: Array) -> Array:
    reach = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weight = valid.astype(float)
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
