"""The causal filter and the causal neutral face, which use past frames only."""

import math

import numpy as np
import pytest
import torch

from mystudio.live import causal
from mystudio.live.causal import NeutralSoFar, OneEuro
from mystudio.motion.retarget import neutral_face
from selfscan.face.headpose import canonical_head

STEP = 0.04


def run(filter_, values):
    return torch.stack([filter_(v, STEP * i) for i, v in enumerate(values)])


def faces(count: int, amount: float, seed: int = 0) -> np.ndarray:
    """Frontal mean heads with random expressions of a size."""
    head = 0.33 * canonical_head() + (0.5, 0.48, 0)
    moved = head + amount * np.random.default_rng(seed).standard_normal((count, 478, 3))
    return moved.astype(np.float32)


def test_at_rest_the_filter_is_exponential_smoothing():
    values = torch.zeros(20, 3)
    values[1] = 1e-6 * torch.tensor([1.0, -2.0, 3.0])  # too slow to open it
    share = 1 / (1 + 1 / (2 * math.pi * 2.0 * STEP))
    out = run(OneEuro(2.0, 1.0), values)
    expected = values[1] * share * (1 - share) ** torch.arange(19.0)[:, None]
    torch.testing.assert_close(out[1:], expected, atol=1e-12, rtol=1e-3)


def test_steady_values_pass_and_zero_switches_off():
    values = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run(OneEuro(0.0, 0.5), values), values)
    assert torch.equal(run(OneEuro(1.0, 0.5), values[:1].expand(30, -1)), values[:1].expand(30, -1))


def test_noise_is_damped_and_quick_motion_is_not_late():
    noise = 0.1 * torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    assert run(OneEuro(4.0, 0.5), noise)[50:].std() < 0.75 * noise[50:].std()
    ramp = torch.arange(60.0)[:, None].expand(-1, 8) * STEP * 20  # 20 deviations a second
    late = [float((ramp - run(OneEuro(4.0, slope), ramp))[-1].mean()) / 20 for slope in (0.0, 0.5)]
    assert late[1] < 0.015 < 0.035 < late[0]  # s


def test_the_path_keeps_its_direction():
    """One cut-off for all: values on a line stay on it."""
    line = torch.tensor([1.0, -3.0, 0.2])
    values = torch.randn(50, 1, generator=torch.Generator().manual_seed(2)).cumsum(0) * line
    out = run(OneEuro(1.0, 2.0), values)
    torch.testing.assert_close(out, (out @ line)[:, None] / line.square().sum() * line, atol=1e-5, rtol=1e-4)


def test_time_counts_not_frames():
    """The filter follows a step after a long pause at once, and damps the same step after 1 ms."""
    for pause, low, high in ((5.0, 0.95, 1.0), (0.001, 0.0, 0.1)):
        f = OneEuro(2.0, 0.0)
        f(torch.zeros(2), 0.0)
        assert low <= float(f(torch.ones(2), pause)[0]) <= high


def test_a_short_stream_has_the_neutral_face_of_a_clip():
    marks = faces(60, 0.004)
    so_far = NeutralSoFar(1e-9)
    for i, face in enumerate(marks):
        found = so_far(face, STEP * i)
        if i in (0, 19, 39, 59):
            torch.testing.assert_close(found, neutral_face(marks[: i + 1], np.ones(i + 1, bool)))


def test_a_better_neutral_face_comes_gradually():
    marks = np.concatenate([faces(1, 0.01), faces(1, 0.0)])
    so_far = NeutralSoFar(0.5)
    first = so_far(marks[0], 0.0)
    second = so_far(marks[1], 0.5)
    torch.testing.assert_close(second, first.lerp(torch.as_tensor(marks[1]), 1 - math.exp(-1)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("at", [2, 101, 333])
def test_a_neutral_face_seen_once_is_never_forgotten(at):
    marks, calm = faces(420, 0.012), faces(10, 0.0005, seed=1)
    marks[at : at + 10] = calm
    so_far = NeutralSoFar(1e-9)
    for i, face in enumerate(marks):
        found = so_far(face, STEP * i)
        assert len(so_far._spread | so_far._best) <= causal.POOL + causal.BEST
    away = [float((found - torch.as_tensor(face)).norm(dim=-1).mean()) for face in (calm[0], marks[0])]
    assert away[0] < 0.3 * away[1]
