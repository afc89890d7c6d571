"""Feature spaces for comparing sets of images, from networks that are installed on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfscan.perceptual.lpips_layers import LpipsLayers
from selfscan.perceptual.metric import load_perceptual


@dataclass(frozen=True)
class FeatureSpace:
    """Images [N, 3, H, W] in [-1, 1] -> features [N, E]. Reports state the name of the space."""

    name: str
    embed: Callable[[Tensor], Tensor]


def load_features(device: torch.device) -> FeatureSpace:
    """SqueezeNet's last maps averaged over pixels: the network of ImageNet, or the one distilled on faces."""
    perceptual = load_perceptual().to(device)
    layers = perceptual.layers
    assert isinstance(layers, LpipsLayers)
    return FeatureSpace(
        f"{perceptual.name}, last maps, mean over pixels [512]",
        lambda x: layers.features((x - layers.shift) / layers.scale).mean((2, 3)),
    )


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to features (Heusel et al., arXiv 1706.08500, equation 6).

    Args: a: [N, E]. b: [M, E].
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    root = _root(np.cov(a, rowvar=False))
    # Tr (A B)^1/2 = Tr (A^1/2 B A^1/2)^1/2, which is symmetric: no complex numbers
    cross = np.linalg.eigvalsh(root @ np.cov(b, rowvar=False) @ root).clip(0)
    spread = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False)) - 2 * np.sqrt(cross).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + spread)


def precision_recall(real: np.ndarray, made: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Precision and recall (Kynkaanniemi et al., arXiv 1904.06991).

    Precision is the share of generated images inside the manifold of real ones; recall is the reverse. A manifold is
    the union of balls around its points; each ball reaches the point's k-th neighbour.

    Args: real: [N, E]. made: [M, E].
    """
    apart = _distances(real, made)
    reach_real, reach_made = (np.sort(_distances(x, x), 1)[:, min(k, len(x) - 1)] for x in (real, made))
    precision = (apart <= reach_real[:, None]).any(0).mean()
    return float(precision), float((apart <= reach_made[None]).any(1).mean())


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    square = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    if a is b or (a.shape == b.shape and np.array_equal(a, b)):
        np.fill_diagonal(square, 0)
    return np.sqrt(square.clip(0))


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
