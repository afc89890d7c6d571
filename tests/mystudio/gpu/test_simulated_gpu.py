"""The simulated GPU rejects the operations that a real GPU rejects."""

import copy

import numpy as np
import pytest
import torch
from simulated_gpu import simulated_gpu
from torch import nn


@pytest.fixture
def gpu():
    with simulated_gpu() as device:
        yield device


def test_values_come_along_and_go_back(gpu):
    a = torch.arange(6.0).reshape(2, 3)
    there = a.to(gpu) * 2 + 1
    assert there.device == gpu and there.is_cuda and not there.is_cpu
    assert torch.equal(there.cpu(), a * 2 + 1)
    assert float(there.sum()) == 36.0 and there.tolist()[1] == [7.0, 9.0, 11.0]
    assert len(torch.nonzero(there > 6)) == 3
    made = (
        there[[1, 0]][:, [2]].flatten(),
        there.new_tensor([11.0, 5.0]),
        torch.tensor([11.0, 5.0], device=gpu),
        torch.as_tensor(np.array([11.0, 5.0], np.float32), device=gpu),
        torch.as_tensor([11.0, 5.0]).to(there),
        torch.where(there[:, 2] < 6, 11.0, 5.0),
    )
    for values in made:
        assert values.device == gpu and values.tolist() == [11.0, 5.0]


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there, here: there + here,
        lambda there, here: there @ here.t(),
        lambda there, here: torch.cat([there, here]),
        lambda there, here: torch.where(there > 0, there, here),
        lambda there, here: here[there > 0],
        lambda there, here: torch.nn.functional.linear(there, here),
    ],
)
def test_two_devices_do_not_meet(gpu, mixed):
    with pytest.raises(RuntimeError, match="device"):
        mixed(torch.ones(2, 3, device=gpu), torch.ones(2, 3))


def test_what_may_meet_meets(gpu):
    there = torch.ones(4, 3, device=gpu)
    assert torch.equal((there * torch.tensor(2.0)).cpu(), torch.full((4, 3), 2.0))  # a number of the CPU
    assert there[torch.tensor([0, 2])].shape == (2, 3)  # indices of the CPU
    there[torch.tensor([1])] = 0.0
    assert float(there.sum()) == 9


def test_no_numpy_without_a_copy(gpu):
    there = torch.ones(3, device=gpu)
    for read in (lambda: there.numpy(), lambda: np.asarray(there), lambda: torch.from_numpy(there)):
        with pytest.raises(TypeError):
            read()
    assert there.cpu().numpy().sum() == 3


def test_generators_belong_to_a_device(gpu):
    here, there = torch.Generator().manual_seed(0), torch.Generator(gpu).manual_seed(0)
    assert there.device == gpu
    assert torch.randn(3, generator=there, device=gpu).is_cuda
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, generator=here, device=gpu)
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, generator=there)


def test_only_memory_of_the_cpu_is_pinned(gpu):
    assert torch.ones(2).pin_memory().to(gpu, non_blocking=True).is_cuda
    with pytest.raises(RuntimeError, match="pin"):
        torch.ones(2, device=gpu).pin_memory()


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_a_network_learns_there_as_here(optimizer):
    def learn(device):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2, inplace=True), nn.Flatten(), nn.Linear(16, 1))
        net = copy.deepcopy(net.to(device, memory_format=torch.channels_last))
        steps = optimizer(net.parameters(), 1e-2)
        x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1)).to(device)
        for _ in range(3):
            steps.zero_grad()
            net(x).square().mean().backward()
            steps.step()
        assert all(p.device == device for p in net.parameters())
        return net.cpu().state_dict()

    here = learn(torch.device("cpu"))
    with simulated_gpu() as gpu:
        there = learn(gpu)
    assert all(torch.equal(here[name], there[name]) for name in here)
