"""Channels of edits: the same numbers as ``selfscan.face.measures``, differentiable, and each edit's aim."""

import numpy as np
import pytest
import torch

from mystudio.motion.attributes import BROADENED, CHANNELS, EDITS, LOWERED, UNITS, aim, along, attributes, beside
from selfscan.face.headpose import canonical_head, rotation
from selfscan.face.measures import measures


def heads(count: int = 20) -> np.ndarray:
    """The canonical head [count, 478, 3], turned and with moved points."""
    rng = np.random.default_rng(0)
    moved = canonical_head() + 0.01 * rng.standard_normal((count, 478, 3))
    return np.einsum("tij,tkj->tki", rotation(0.3 * rng.standard_normal((count, 3))), moved)


def test_channels_are_the_measures_of_the_same_name():
    marks = heads()
    found, known = attributes(torch.as_tensor(marks)).numpy(), measures(marks)
    for channel in ("mouth_open", "brows", "gaze_x", "gaze_y", "yaw", "pitch", "roll"):
        value = found[:, CHANNELS.index(channel)] * UNITS[channel]
        assert value == pytest.approx(known[channel], abs=2e-6 if channel in ("yaw", "pitch", "roll") else 1e-9)
    lids = [found[:, CHANNELS.index(f"lid_{side}")] * UNITS[f"lid_{side}"] for side in ("right", "left")]
    assert np.mean(lids, 0) == pytest.approx(known["eyes_open"])
    gap = found[:, CHANNELS.index("mouth_open")] * UNITS["mouth_open"]
    lift = found[:, CHANNELS.index("smile")] * UNITS["smile"]
    width = found[:, CHANNELS.index("mouth_width")] * UNITS["mouth_width"] + BROADENED * lift
    assert width == pytest.approx(known["mouth_width"])
    assert width + lift - LOWERED * gap == pytest.approx(known["smile"])


def test_channels_do_not_depend_on_size_and_place():
    marks = torch.as_tensor(heads(3))
    assert torch.allclose(attributes(marks), attributes(5 * marks + 7), atol=1e-6)


def test_gradients_are_those_of_small_changes():
    marks = torch.as_tensor(heads(1)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda m: attributes(m[None]), marks[0].detach().requires_grad_(True), atol=1e-4)


def test_a_raised_corner_is_a_smile_and_a_moved_chin_a_jaw_to_the_side():
    marks = torch.as_tensor(canonical_head().copy())[None]
    before, moved = attributes(marks), marks.clone()
    moved[:, [61, 291], 1] -= 0.05
    moved[:, 61, 0] -= 0.04  # a smile widens the mouth
    moved[:, 291, 0] += 0.04
    change = (attributes(moved) - before)[0]
    assert change[CHANNELS.index("smile")] > 0.5 and change.abs().argmax() == CHANNELS.index("smile")
    moved = marks.clone()
    moved[:, [152, 148, 377, 175, 199], 0] += 0.05
    change = (attributes(moved) - before)[0]
    assert change[CHANNELS.index("jaw_side")] > 0.5 and change.abs().argmax() == CHANNELS.index("jaw_side")


@pytest.mark.parametrize("name", EDITS)
def test_an_edits_own_change_is_its_strength_and_nothing_beside(name):
    change = 1.7 * aim(name)
    assert float(along(change, name)) == pytest.approx(1.7)
    assert not beside(change, name).any()
    other = change + 0.4 * aim("jaw_side" if name != "jaw_side" else "yaw")
    assert float(beside(other, name).abs().max()) == pytest.approx(0.4)
