"""The networks of a tuning: the generator being tuned, the running average of its weights, and the optimiser."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mystudio.stylegan2.generator import Generator

AVERAGED = 4  # steps between two weights that enter the average: weights of adjacent steps hardly differ

Snapshot = tuple[dict[str, dict[str, Tensor]], dict[str, Any]]  # of generators by name, of the optimiser


class Nets:
    """A copy of a generator that is tuned, and the average of its weights, which is the result.

    Args:
        generator: the base; it is not changed. optimizer: function from parameters to the optimiser.
        average: share of the steps so far over which the weights are averaged; 0 = the last weights are the result.
    """

    def __init__(
        self,
        generator: Generator,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        average: float,
    ):
        self.tuned = copy.deepcopy(generator).train().requires_grad_(False)
        self.mean = copy.deepcopy(self.tuned) if average else self.tuned
        self.tuned.synthesis.requires_grad_(True)
        self.optimizer = optimizer(self.tuned.synthesis.parameters())
        self.generators = {"g": self.tuned} | ({"mean": self.mean} if average else {})
        self._share = average

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Move the average towards the weights after ``step`` steps. Averaging removes step-to-step noise."""
        if self.mean is self.tuned:
            return
        weight = min(1.0, AVERAGED / (self._share * step))
        if weight == 1 or step % AVERAGED == 0:
            mean, last = (list[Tensor](net.synthesis.parameters()) for net in (self.mean, self.tuned))
            torch._foreach_lerp_(mean, last, weight)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]

    def are_finite(self) -> bool:
        """Whether all tuned weights are finite numbers."""
        return all(bool(p.isfinite().all()) for p in self.tuned.synthesis.parameters())

    def snapshot(self) -> Snapshot:
        """Copies of the states of the generators and of the optimiser."""
        states = {
            name: {key: value.clone() for key, value in net.state_dict().items()}
            for name, net in self.generators.items()
        }
        return states, copy.deepcopy(self.optimizer.state_dict())

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a snapshot, which may be used again."""
        states, optimizer = snapshot
        for name, net in self.generators.items():
            net.load_state_dict(states[name])
        self.optimizer.load_state_dict(copy.deepcopy(optimizer))
