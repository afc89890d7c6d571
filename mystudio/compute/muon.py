"""Muon (K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") beside Adam.

A layer's step has the directions of its averaged gradient and the same length in all of them: what few pictures ask
for is learned as fast as what all of them ask for. torch has it for matrices in bfloat16; filters are what counts here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's: five rounds bring singular values from above .01 between .7 and 1.2
ROUNDS = 5


class Muon(torch.optim.Adam):
    """Adam for biases and the like, Muon for filters [out, in, h, w] of more than one pixel and three outputs.

    Args:
        parameters, betas, eps: as for Adam. lr: of Adam, and the root mean square of Muon's step, which is three to
            five times as far as Adam goes (Liu et al. 2025, arXiv 2502.16982, take a fifth to be as far).
        momentum: share of the averaged gradient that stays. dtype: in which directions are found.
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
        """One step along the gradients, which stay as they are."""
        turns = [
            (group["lr"], p, p.grad)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and is_filter(p)
        ]
        for _, p, _ in turns:
            p.grad = None  # hidden from Adam
        super().step()
        for rate, p, gradient in turns:
            p.grad = gradient
            slot = self.state[p]
            if not slot:
                slot |= {"step": torch.zeros(()), "momentum": torch.zeros_like(p)}  # Adam's loader asks for a step
            mean = slot["momentum"].lerp_(gradient, 1 - self._momentum)
            ahead = gradient.lerp(mean, self._momentum).flatten(1)  # Nesterov
            step = orthogonal(ahead.to(self._dtype)).to(p.dtype).view(p.shape)
            p.sub_(step, alpha=rate * math.sqrt(max(ahead.shape)))


def is_filter(parameter: Tensor) -> bool:
    """Whether Muon moves it: a convolution that mixes channels, other than one to colours."""
    return parameter.ndim == 4 and parameter.shape[-1] > 1 and len(parameter) > 3


def orthogonal(matrix: Tensor) -> Tensor:
    """U V^T of a matrix [m, n] = U S V^T, roughly: its singular values become .7 to 1.2 (Newton-Schulz).

    A round is a polynomial of X X^T. In float32 they are multiplied out there, on a ninth of a filter, and meet X once;
    what bfloat16 rounds off X X^T can be more than its small values, and would grow.
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
