"""Networks with their optimisers by name: what the trainees of one-shot engines have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mystudio.base.adam import descend, fill_slots, make_adam, slots_of
from mystudio.base.parallel import Team


class Networks:
    """Networks by name; some of them are trained at a time.

    Args: nets: with weights; a network without any is not stored.
    """

    def __init__(self, nets: Mapping[str, nn.Module]):
        self.nets, self.adams = dict(nets), dict[str, torch.optim.Adam]()

    def train(self, rates: Mapping[str, float], betas: tuple[float, float] = (0.9, 0.99)) -> None:
        """Train these networks, name -> learning rate, with new optimisers; the others are frozen."""
        for name, net in self.nets.items():
            net.requires_grad_(name in rates)
        self.adams = {name: make_adam(self.nets[name], rate, 0, betas) for name, rate in rates.items()}

    def descend(self, loss: Tensor, rate: float) -> Tensor:
        """One step of all optimisers; a gradient that is not finite changes nothing.

        Args: rate: factor on the learning rates. Returns: [] whether the gradient was finite.
        """
        for adam in self.adams.values():
            for group in adam.param_groups:
                group["lr"] = group["peak"] * rate
        return descend(loss, list(self.adams.values()), [self.nets[name] for name in self.adams], Team())

    def state(self) -> dict[str, Tensor]:
        """Weights and moments by name."""
        found = {f"{name}.{key}": value for name, net in self.nets.items() for key, value in net.state_dict().items()}
        for name, adam in self.adams.items():
            found |= {f"adam.{name}.{key}": value for key, value in slots_of(adam).items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a state, after ``train`` of the same networks."""
        for name, net in self.nets.items():
            net.load_state_dict(part_of(tensors, name))
        for name, adam in self.adams.items():
            fill_slots(adam, part_of(tensors, f"adam.{name}"))

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(p.isfinite().all()) for net in self.nets.values() for p in net.parameters())


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with NAME and a dot, without it."""
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
