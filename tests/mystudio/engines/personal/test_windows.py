"""Windows: where a clip is split, how far frames influence each other, and out-of-memory errors."""

import logging

import numpy as np
import pytest
import torch

from mystudio.engines.personal.windows import NEGLIGIBLE, Solved, Window, reach, solve_windows
from mystudio.errors import memory_ran_out
from mystudio.storage.journal import DiskCheckpoints


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# A linear stand-in for a solver, whose whole solution is known: sum d (c - a)^2 + p c^2 + t (c_t - c_(t-1))^2

FRAMES, PRIOR, TEMPORAL = 60, 10.0, 2.0
AIM, DATA = draw(FRAMES, 2, 3).double(), draw(FRAMES, seed=1).abs().double()


def exact(frames: range) -> torch.Tensor:
    """Return the solution for some frames alone, [B, 2, 3]."""
    count, at = len(frames), slice(frames.start, frames.stop)
    system = torch.diag(PRIOR + DATA[at])
    pull = TEMPORAL * (torch.eye(count, dtype=torch.double)[1:] - torch.eye(count, dtype=torch.double)[:-1])
    system = system + pull.t() @ pull / TEMPORAL
    return torch.linalg.solve(system, (DATA[at, None, None] * AIM[at]).flatten(1)).view(count, 2, 3)


def run(window: Window, batch: int, last: torch.Tensor | None) -> Solved:
    at = np.arange(window.frames.start, window.frames.stop)
    return Solved(exact(window.frames), at % 3, {"total": at.astype(np.float32)})


@pytest.mark.parametrize("size", [60, 59, 17, 8, 3, 1])
def test_where_a_clip_is_cut_does_not_show(size):
    overlap = reach(TEMPORAL, PRIOR, 60)
    solved, whole = solve_windows(FRAMES, size, 8, overlap, run), exact(range(FRAMES))
    spread = float(whole.diff(dim=0).abs().max())
    assert (solved.codes - whole).abs().max() < 1e-4 * spread
    assert (solved.codes.diff(dim=0) - whole.diff(dim=0)).abs().max() < 1e-4 * spread  # no seam in the speed
    assert np.array_equal(solved.outcome, np.arange(FRAMES) % 3)
    assert np.array_equal(solved.losses["total"], np.arange(FRAMES))


def test_cut_without_overlap_it_would_show():
    """Control for the test above: windows without overlap jump at their borders."""
    parts = torch.cat([exact(range(k, min(k + 8, FRAMES))) for k in range(0, FRAMES, 8)])
    whole = exact(range(FRAMES))
    assert (parts - whole).abs().max() > 1e-2 * float(whole.diff(dim=0).abs().max())


@pytest.mark.parametrize("temporal, prior", [(0.5, 10.0), (5.0, 10.0), (50.0, 10.0), (1.0, 0.1)])
def test_reach_is_where_a_neighbours_pull_is_negligible(temporal, prior):
    frames = reach(temporal, prior, 200) // 2
    chain = torch.diag(torch.full((200,), prior + 2 * temporal, dtype=torch.double))
    chain -= temporal * (torch.diag(torch.ones(199), 1) + torch.diag(torch.ones(199), -1))
    answer = torch.linalg.inv(chain)[100]  # to a pull on frame 100
    share = answer / answer[100]
    assert share[100 + frames] <= 1.1 * NEGLIGIBLE and share[100 + frames - 1] > NEGLIGIBLE


def test_reach_is_bounded_and_nothing_without_the_temporal_term():
    assert reach(0.0, 10.0, 64) == 0
    assert reach(0.5, 0.0, 64) == 64


def test_shares_of_all_windows_are_one_and_none_at_the_cut():
    total, overlap = 50, 6
    shares = np.zeros(total)
    for start in range(0, total, 13):
        window = Window.at(start, 13, overlap, total)
        weights = window.weights(total)
        shares[window.frames.start : window.frames.stop] += weights
        inner = weights[overlap // 2 : -(overlap // 2) or None]
        assert weights[0] == (start == 0) and weights[-1] == (window.core.stop == total) and inner.min() > 0
    assert np.allclose(shares, 1)


def test_without_overlap_each_window_starts_at_the_last_ones_end():
    seen = []

    def follow(window: Window, batch: int, last: torch.Tensor | None) -> Solved:
        seen.append(last)
        codes = torch.full((len(window.frames), 2, 3), float(window.core.start))
        return Solved(codes, np.zeros(len(codes)), {})

    solve_windows(10, 4, 8, 0, follow)
    assert seen[0] is None and [float(code[0, 0]) for code in seen[1:]] == [0.0, 4.0]


def test_codes_that_are_not_numbers_stay_where_they_are():
    def broken(window: Window, batch: int, last: torch.Tensor | None) -> Solved:
        solved = run(window, batch, last)
        solved.codes[0] = torch.nan  # where another window answers, except for the clip's first frame
        return solved

    codes = solve_windows(FRAMES, 16, 8, reach(TEMPORAL, PRIOR, 60), broken).codes
    assert torch.nonzero(~codes.isfinite().all(2).all(1))[:, 0].tolist() == [0]


# Memory


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_the_window_and_the_batch_and_goes_on(caplog, error):
    sizes = []

    def hungry(window: Window, batch: int, last: torch.Tensor | None) -> Solved:
        sizes.append((len(window.core), batch))
        if batch > 2:
            if error is MemoryError:
                bytearray(1 << 60)
            elif error is RuntimeError:
                torch.empty(1 << 60)  # torch's message
            raise error("out of memory")
        return run(window, batch, last)

    with caplog.at_level(logging.WARNING):
        solved = solve_windows(FRAMES, 32, 8, reach(TEMPORAL, PRIOR, 60), hungry)
    assert sizes[:4] == [(32, 8), (16, 4), (8, 2), (8, 2)]
    assert (solved.codes - exact(range(FRAMES))).abs().max() < 1e-4
    assert [r.message for r in caplog.records][-1] == "out of memory: continuing with 8 frames a window, 2 a pass"


def test_memory_that_does_not_do_for_one_frame_is_told():
    def never(window: Window, batch: int, last: torch.Tensor | None) -> Solved:
        torch.empty(1 << 60)

    with pytest.raises(RuntimeError) as caught:
        solve_windows(5, 4, 2, 2, never)
    assert memory_ran_out(caught.value)


def test_other_errors_are_not_taken_for_memory():
    calls = []

    def wrong(window: Window, batch: int, last: torch.Tensor | None) -> Solved:
        calls.append(1)
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        solve_windows(20, 8, 8, 2, wrong)
    assert len(calls) == 1


def test_a_run_that_had_to_halve_goes_on_with_its_own_cuts(tmp_path):
    overlap, seen = reach(TEMPORAL, PRIOR, 60), []

    def dies(window: Window, batch: int, last: torch.Tensor | None) -> Solved:
        if batch > 2:
            raise MemoryError
        if window.core.start >= 24:
            raise KeyboardInterrupt
        return run(window, batch, last)

    with pytest.raises(KeyboardInterrupt):
        solve_windows(FRAMES, 32, 8, overlap, dies, DiskCheckpoints(tmp_path))
    assert len(list(tmp_path.glob("window*.npz"))) == 3  # of 8 frames

    def later(window: Window, batch: int, last: torch.Tensor | None) -> Solved:
        seen.append(window.core)
        return run(window, batch, last)

    solved = solve_windows(FRAMES, 32, 8, overlap, later, DiskCheckpoints(tmp_path))
    assert seen == [range(24, 56), range(56, 60)]
    assert (solved.codes - exact(range(FRAMES))).abs().max() < 1e-4
