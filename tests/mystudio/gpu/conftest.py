"""Fixtures: the simulated GPU, and the CPU's results of the same work."""

import copy
from dataclasses import replace

import pytest
import torch
from simulated_gpu import simulated_gpu

from mystudio.types import Avatar
from selfscan.perceptual.metric import load_perceptual


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread, because sums over several threads differ in the last bits and results are compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpu():
    load_perceptual()  # the simulation cannot read files of pickled tensors; LPIPS's channel weights are kept
    with simulated_gpu() as device:
        yield device


@pytest.fixture
def avatar_there(tiny_avatar, gpu) -> Avatar:
    """The tiny avatar with its generator on the GPU, as the pipeline gives it to render and evaluate."""
    return replace(tiny_avatar, generator=copy.deepcopy(tiny_avatar.generator).to(gpu))
