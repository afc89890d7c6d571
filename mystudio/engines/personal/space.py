"""The personal latent space: anchors, their principal axes, and the (dilated) convex hull around them.

MyStyle (Nitzan et al., arXiv 2203.17272): P0 is the convex hull of the anchors in W; P_beta dilates it,
alpha_i >= -beta with sum(alpha) = 1; P+ holds one alpha for every layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def hull_weights(logits: Tensor, dilation: float = 1.0) -> Tensor:
    """Exact parametrisation of the hull dilated by ``dilation`` about the mean anchor.

    alpha = -beta + (1 + N beta) softmax(u) with beta = (dilation - 1) / N, so that sum(alpha) = 1 and
    alpha >= -beta always hold; no renormalisation bias (compare ``softplus_weights``).

    Args:
        logits: [..., N] free parameters u.
        dilation: 1 = the convex hull itself; MyStyle's N = 100, beta = 0.03 is 4.
    Returns: alpha [..., N].
    """
    n = logits.shape[-1]
    return (1 - dilation) / n + dilation * logits.softmax(-1)


def softplus_weights(raw: Tensor, beta: float, sharpness: float = 100.0) -> Tensor:
    """MyStyle's own parametrisation: alpha = softplus(raw + beta) - beta with the given sharpness.

    alpha >= -beta holds; the sum is held near 1 by a loss and by ``alpha / alpha.sum()`` here, as in their code.
    """
    alpha = F.softplus(raw + beta, beta=sharpness) - beta
    return alpha / alpha.sum(-1, keepdim=True)


@dataclass(frozen=True)
class AnchorSpace:
    """Coordinates on the principal axes of the anchors: w = mean + code @ axes.

    Axes are scaled to unit spread of the anchors, so a code of 1 is one standard deviation on every axis.
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
        pivot = vectors[:keep].abs().argmax(1, keepdim=True)  # a fixed sign makes the axes reproducible
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
        """A direction in W [..., D] -> in codes [..., K]."""
        return d @ self.axes.t() / self.axes.square().sum(1)

    def project(self, codes: Tensor, dilation: float = 1.0, steps: int = 200) -> Tensor:
        """Nearest point of the dilated hull for each code, in anchor standard deviations.

        Projected gradient (FISTA) on the simplex: min |a^T C - c'|^2 with c' = codes / dilation. The hull of
        centred codes scaled by ``dilation`` is P_beta exactly (method: dilation = 1 + N beta).

        Args:
            codes: [..., K]. dilation: >= 1.
        Returns: [..., K]; points inside come back within the solver's accuracy (about 1e-3).
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
    """Euclidean projection of each row on the probability simplex (sort form)."""
    n = v.shape[1]
    ordered = v.sort(1, descending=True).values
    excess = ordered.cumsum(1) - 1
    count = torch.arange(1, n + 1, device=v.device)
    rho = ((ordered * count) > excess).sum(1, keepdim=True)
    return (v - excess.gather(1, rho - 1) / rho).clamp_min(0)
