"""The optimiser of base training: Adam with StyleGAN2's lazy regularisation, its slots as tensors by name."""

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
        rate: step; also kept as ``peak`` of each group, for schedules.
        every: a regulariser has a step of its own after so many others (StyleGAN2, appendix B); 0 = never.
        betas: decay of the two moments. mapping: factor on the rate of a generator's mapping network.
    """
    share = every / (every + 1) if every else 1.0  # two updates where a regulariser has its turn
    slow = list(net.mapping.parameters()) if mapping != 1 and isinstance(net, Generator) else []
    fast = [p for p in net.parameters() if all(p is not q for q in slow)]
    groups = [{"params": fast, "peak": rate * share}]
    groups += [{"params": slow, "peak": rate * share * mapping}] if slow else []
    return torch.optim.Adam(groups, lr=rate * share, betas=tuple(b**share for b in betas), eps=1e-8)


def descend(loss: Tensor, adams: Sequence[torch.optim.Adam], nets: Sequence[nn.Module], team: Team) -> Tensor:
    """Gradient of the loss, mean over processes, one step of each optimiser.

    Returns: bool [], whether the gradient was finite; one that is not becomes zero. Nothing waits for the device.
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
    """The moments and step counts, as ``NUMBER.KEY`` with the number of the weight."""
    slots = adam.state_dict()["state"]
    return {f"{number}.{key}": value for number, slot in slots.items() for key, value in slot.items()}


def fill_slots(adam: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """Take over what ``slots_of`` gave; nothing is changed where there are none."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".")
        layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        slots.setdefault(int(number), {})[key] = value.contiguous(memory_format=layout)
    if slots:
        adam.load_state_dict({**adam.state_dict(), "state": slots})
