"""The personal latent space: anchors, their principal axes, and the (dilated) convex hull around them.

MyStyle (Nitzan et al., arXiv 2203.17272): P0 is the convex hull of the anchors in W; P_beta dilates it,
alpha_i >= -beta with sum(alpha) = 1; P+ holds one alpha for every layer.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def hull_weights(logits: Tensor, dilation: float = 1.0) -> Tensor:
    """Exact parametrisation of the convex hull, dilated about the mean anchor.

    alpha = -beta + (1 + N beta) softmax(u) with beta = (dilation - 1) / N. Then sum(alpha) = 1 and alpha >= -beta
    always hold, and no renormalisation biases the weights as in ``softplus_weights``.

    Args:
        logits: [..., N] free parameters u.
        dilation: 1 = the convex hull itself; MyStyle's N = 100 and beta = 0.03 give 4.
    Returns: alpha [..., N].
    """
    n = logits.shape[-1]
    return (1 - dilation) / n + dilation * logits.softmax(-1)


def softplus_weights(raw: Tensor, beta: float, sharpness: float = 100.0) -> Tensor:
    """MyStyle's own parametrisation: alpha = softplus(raw + beta) - beta with the given sharpness.

    A loss term pulls the sum towards 1, and ``alpha / alpha.sum()`` here makes it exact, as in their code.

    Args: raw: [..., N]. Returns: alpha [..., N].
    """
    alpha = F.softplus(raw + beta, beta=sharpness) - beta
    return alpha / alpha.sum(-1, keepdim=True)


@dataclass(frozen=True)
class AnchorSpace:
    """Coordinates on the principal axes of the anchors: w = mean + code @ axes.

    Axes are scaled so that a code of 1 is one standard deviation of the anchors on every axis.
    """

    mean: Tensor  # [D]
    axes: Tensor  # [K, D]
    codes: Tensor  # [N, K] of the anchors

    @classmethod
    def of(cls, anchors: Tensor, rank: int = 32) -> AnchorSpace:
        """Principal axes of ``anchors`` [N, D], at most ``rank`` of them (0 = all that the anchors span)."""
        mean = anchors.mean(0)
        _, spread, vectors = torch.linalg.svd((anchors - mean).double(), full_matrices=False)
        keep = int((spread > spread[0].clamp_min(1e-12) * 1e-6).sum())
        keep = max(1, min(keep, rank) if rank else keep)
        pivot = vectors[:keep].abs().argmax(1, keepdim=True)  # fixes the signs, so that axes are reproducible
        vectors = vectors[:keep] * vectors[:keep].gather(1, pivot).sign()
        scale = spread[:keep].clamp_min(1e-12) / max(len(anchors) - 1, 1) ** 0.5
        codes = ((anchors - mean).double() @ vectors.t()) / scale
        return cls(mean, (vectors * scale[:, None]).to(anchors), codes.to(anchors))

    @property
    def rank(self) -> int:
        return len(self.axes)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [..., K] -> w [..., D]."""
        return self.mean + codes @ self.axes

    def encode(self, w: Tensor) -> Tensor:
        """w [..., D] -> codes [..., K], by orthogonal projection on the axes."""
        return (w - self.mean) @ self.axes.t() / self.axes.square().sum(1)

    def direction(self, d: Tensor) -> Tensor:
        """A direction in W [..., D] -> a direction in codes [..., K]."""
        return d @ self.axes.t() / self.axes.square().sum(1)

    def project(self, codes: Tensor, dilation: float = 1.0, steps: int = 200) -> Tensor:
        """Nearest point of the dilated hull for each code.

        Accelerated projected gradient (FISTA) on the simplex: min |a^T C - c'|^2 with c' = codes / dilation. Centred
        codes scaled by ``dilation`` = 1 + N beta span exactly P_beta.

        Args:
            codes: [..., K] in anchor standard deviations. dilation: >= 1. steps: of the iteration.
        Returns: [..., K]; points inside the hull return within the iteration's accuracy (about 1e-3).
        """
        corners, target = self.codes.double(), codes.double().reshape(-1, self.rank) / dilation
        step = 1.0 / torch.linalg.matrix_norm(corners, 2).square()
        distance = torch.cdist(target, corners)
        a = torch.zeros_like(distance).scatter_(1, distance.argmin(1, keepdim=True), 1.0)
        y, t = a, 1.0
        for _ in range(steps):
            new = _simplex(y - step * (y @ corners - target) @ corners.t())
            t_next = 0.5 + (0.25 + t * t) ** 0.5
            y, a, t = new + (t - 1) / t_next * (new - a), new, t_next
        return (dilation * (a @ corners)).to(codes).reshape(codes.shape)

    def outside(self, codes: Tensor, dilation: float = 1.0) -> Tensor:
        """Distance [...] of each code from the dilated hull, in anchor standard deviations."""
        return (codes - self.project(codes, dilation)).norm(dim=-1)


def _simplex(v: Tensor) -> Tensor:
    """Euclidean projection of each row [B, N] on the probability simplex, by sorting."""
    n = v.shape[1]
    ordered = v.sort(1, descending=True).values
    excess = ordered.cumsum(1) - 1
    count = torch.arange(1, n + 1, device=v.device)
    rho = ((ordered * count) > excess).sum(1, keepdim=True)
    return (v - excess.gather(1, rho - 1) / rho).clamp_min(0)
