"""Muon (K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"), combined with Adam.

A layer's step has the singular directions of its averaged gradient, all with the same length. So a change that only a
few images need is learned as fast as one that all images need. torch's Muon takes only matrices, in bfloat16; this one
takes convolution filters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's: five rounds bring singular values above 0.01 into 0.7 .. 1.2
ROUNDS = 5


class Muon(torch.optim.Adam):
    """Muon for filters [out, in, h, w] (``is_filter``), Adam for all other parameters.

    Args:
        parameters, betas, eps: as for Adam.
        lr: learning rate of Adam, and root mean square of Muon's step. Adam's step is three to five times shorter; Liu
            et al. 2025 (arXiv 2502.16982) scale Muon's step by a fifth to match it.
        momentum: share of the averaged gradient that each step keeps. dtype: of ``orthogonal``.
    """

    def __init__(
        self,
        parameters,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        momentum: float = 0.9,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps)
        self._momentum, self._dtype = momentum, dtype

    @torch.no_grad()
    def step(self) -> None:
        """One optimiser step; the gradients are not changed."""
        turns = [
            (group["lr"], p, p.grad)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and is_filter(p)
        ]
        for _, p, _ in turns:
            p.grad = None  # Adam skips parameters without a gradient
        super().step()
        for rate, p, gradient in turns:
            p.grad = gradient
            slot = self.state[p]
            if not slot:
                slot |= {"step": torch.zeros(()), "momentum": torch.zeros_like(p)}  # Adam's loader requires "step"
            mean = slot["momentum"].lerp_(gradient, 1 - self._momentum)
            ahead = gradient.lerp(mean, self._momentum).flatten(1)  # Nesterov
            step = orthogonal(ahead.to(self._dtype)).to(p.dtype).view(p.shape)
            p.sub_(step, alpha=rate * math.sqrt(max(ahead.shape)))


def is_filter(parameter: Tensor) -> bool:
    """Whether Muon updates the parameter: a convolution filter larger than 1x1 with more than three outputs."""
    return parameter.ndim == 4 and parameter.shape[-1] > 1 and len(parameter) > 3


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximate U V^T of a matrix [m, n] = U S V^T: singular values become 0.7 to 1.2 (Newton-Schulz).

    Each round multiplies X by a polynomial of X X^T. In float32 the polynomials are multiplied first, because X X^T is
    a ninth of a filter's size, and X is multiplied once. bfloat16 cannot do this: its rounding errors of X X^T can
    exceed the small singular values, and they would grow.
    """
    a, b, c = QUINTIC
    x = matrix if len(matrix) <= matrix.shape[1] else matrix.t()
    x = x / x.norm().clamp_min(1e-7)
    if x.dtype == torch.bfloat16:
        for _ in range(ROUNDS):
            square = x @ x.t()
            x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    else:
        square, whole = x @ x.t(), torch.eye(len(x), dtype=x.dtype, device=x.device)
        for _ in range(ROUNDS):
            turn = torch.addmm(square, square, square, beta=b, alpha=c)
            turn.diagonal().add_(a)
            whole, square = turn @ whole, turn @ square @ turn
        x = whole @ x
    return x if x.shape == matrix.shape else x.t()
