"""``mystudio doctor --gpu``: its comparison finds a fault, and lets rounding pass."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mystudio.cli import cli
from mystudio.gpu_check import CheckSettings, Work, check, compare

SMALL = CheckSettings(images=4, steps=2, samples=3, frames=4)
CPU = torch.device("cpu")


def work(*results, bound=1.0) -> Work:
    """Gives one result after the other."""
    left = list(results)
    return Work("w", lambda device: left.pop(0), bound, "units")


def test_a_difference_within_the_bound_is_good_and_one_beyond_is_not():
    near, far = (compare(work(np.zeros(3), np.full(3, gap)), CPU) for gap in (0.5, 1.5))
    assert near.ok and near.difference == 0.5 and "within 1" in near.verdict
    assert not far.ok and far.difference == 1.5 and "beyond 1" in far.verdict


@pytest.mark.parametrize("wrong", [np.full(3, np.nan), np.zeros(4)])
def test_what_is_no_number_or_has_another_shape_is_bad(wrong):
    assert not compare(work(np.zeros(3), wrong), CPU).ok


def test_a_device_that_fails_says_so():
    def run(device):
        if device.type == "meta":
            raise RuntimeError("no kernel image is available")
        return np.zeros(2)

    row = compare(Work("w", run, 1.0, "units"), torch.device("meta"))
    assert not row.ok and row.difference is None and "no kernel image" in row.verdict


@pytest.mark.slow
def test_a_gpu_agrees_with_the_cpu_but_for_a_fault_that_was_put_in(gpu):
    def alter(name, found):
        return -found if name == "reenact" else found

    rows = {row.name: row for row in check(gpu, SMALL, alter=alter)}
    assert list(rows) == ["generator", "landmarks", "personalize", "reenact", "render"]
    assert [name for name, row in rows.items() if not row.ok] == ["reenact"], [row.verdict for row in rows.values()]


def test_without_a_gpu_the_command_says_so():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    told = CliRunner().invoke(cli, ["doctor", "--gpu", "--json"])
    assert told.exit_code == 1
    answer = json.loads(told.stdout.splitlines()[-1])
    assert not answer["ok"] and "no GPU was found" in answer["error"] and "CPU" in answer["error"]
