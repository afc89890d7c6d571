"""The optimiser of base training: Adam, adjusted for StyleGAN2's lazy regularisation. Its state is named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mystudio.base.parallel import Team
from mystudio.stylegan2.generator import Generator


def make_adam(
    net: nn.Module, rate: float, every: int, betas: tuple[float, float], mapping: float = 1.0
) -> torch.optim.Adam:
    """Adam over the weights of a network.

    Args:
        net: the network. rate: learning rate; each group also stores it as ``peak``, for schedules.
        every: main steps between two steps of a lazy regulariser (StyleGAN2, appendix B); 0 = no regulariser.
        betas: decay of the two moments. mapping: factor on the learning rate of a generator's mapping network.
    """
    share = every / (every + 1) if every else 1.0  # a regulariser's step is an extra update
    slow = list(net.mapping.parameters()) if mapping != 1 and isinstance(net, Generator) else []
    fast = [p for p in net.parameters() if all(p is not q for q in slow)]
    groups = [{"params": fast, "peak": rate * share}]
    groups += [{"params": slow, "peak": rate * share * mapping}] if slow else []
    return torch.optim.Adam(groups, lr=rate * share, betas=tuple(b**share for b in betas), eps=1e-8)


def descend(loss: Tensor, adams: Sequence[torch.optim.Adam], nets: Sequence[nn.Module], team: Team) -> Tensor:
    """Back-propagate the loss, average the gradients over processes and step each optimiser once.

    Returns: bool [] on the device, whether the gradient was finite. A gradient that is not finite is set to zero.
        The call does not synchronise with the device.
    """
    for adam in adams:
        adam.zero_grad()
    loss.backward()
    gradients = [p.grad for net in nets for p in net.parameters() if p.grad is not None]
    team.average_(gradients)
    norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
    good = torch.stack(norms).isfinite().all()
    for gradient in gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0)
    torch._foreach_mul_(gradients, good.to(gradients[0].dtype))  # pyright: ignore[reportPrivateImportUsage]
    for adam in adams:
        adam.step()
    return good


def slots_of(adam: torch.optim.Adam) -> dict[str, Tensor]:
    """Adam's moments and step counts by name: ``NUMBER.KEY``, where NUMBER is the index of the weight."""
    slots = adam.state_dict()["state"]
    return {f"{number}.{key}": value for number, slot in slots.items() for key, value in slot.items()}


def fill_slots(adam: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors that ``slots_of`` returned. Weights without entries keep their state."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".")
        layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        slots.setdefault(int(number), {})[key] = value.contiguous(memory_format=layout)
    if slots:
        adam.load_state_dict({**adam.state_dict(), "state": slots})
