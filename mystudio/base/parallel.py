"""Data-parallel training: ``torchrun`` starts the processes, each takes a share of a batch; gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from mystudio.errors import StudioError


@dataclass(frozen=True)
class Team:
    """The processes of a run. If there is only one, the methods return at once."""

    rank: int = 0
    size: int = 1

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the team, in one all-reduce; all processes get the same bits."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors])):
            tensor.copy_(part.view_as(tensor))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the team."""
        value = value.detach().clone()
        self.average_([value])
        return value

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in at least one process."""
        return flag if self.size == 1 else bool(self.mean(torch.tensor(float(flag), device=device)) > 0)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier()

    def share(self, rows: Tensor) -> Tensor:
        """This process's rows of the whole batch: every size-th row."""
        return rows[self.rank :: self.size]


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Team, torch.device]]:
    """Join the processes that ``torchrun`` started, or make a team of one. Yields the team and this process's device.

    Raises: StudioError: there are more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(), device
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise StudioError(
                f"expected a GPU for each process, got process {local + 1} and "
                f"{torch.cuda.device_count()} GPUs; start fewer with --nproc-per-node"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), size), device
    finally:
        dist.destroy_process_group()
