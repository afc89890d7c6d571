"""A stage in shares: each share stores its part of a pass, and the joined result is that of one run."""

import numpy as np
import pytest
import torch
from memory_checkpoints import MemoryCheckpoints

from mystudio.cluster.afar import PASSES, WHOLE
from mystudio.demo import FOLDER
from mystudio.engines.personal.windows import Solved, Window, solve_windows
from mystudio.motion.performance import perform
from mystudio.rendering.render import RenderSettings, render
from selfscan import checkpoints
from selfscan.checkpoints import Share, ShareDone, only
from selfscan.io import video
from selfscan.types import Span
from tests.mystudio.cluster.test_afar import pictures


def in_shares(of: int, names, stage) -> None:
    """Run every share of some passes, the last one first within each pass."""
    for name in names:
        count = 1 if name in WHOLE else of
        for part in reversed(range(count)):
            with only(Share(name, part, count)), pytest.raises(ShareDone):
                stage()


def test_a_driving_clip_is_measured_in_shares():
    keep, clip, span = MemoryCheckpoints(), FOLDER / "driver.mp4", Span(0, 4.4)
    in_shares(3, PASSES["reenact"][:3], lambda: perform(clip, checkpoints=keep, span=span))
    stored = set(keep)
    assert any(name.startswith("patches") for name in stored)
    joined = perform(clip, checkpoints=keep, span=span)
    assert set(keep) == stored  # all was there
    whole = perform(clip, span=span)
    one, other = whole.observation, joined.observation
    assert len(whole) == len(joined) > 3 * checkpoints.CHUNK
    for name in ("times", "valid", "second_face", "cuts", "landmarks"):
        assert np.array_equal(getattr(one.track, name), getattr(other.track, name)), name
    assert np.array_equal(one.landmarks, other.landmarks) and np.array_equal(one.presence, other.presence)
    assert np.array_equal(whole.mouth, joined.mouth) and np.array_equal(whole.irises, joined.irises)


def test_windows_in_shares_give_equal_codes():
    def run(window: Window, batch: int, last):
        at = torch.arange(window.frames.start, window.frames.stop)
        return Solved(torch.sin(at / 7).view(-1, 1, 1), np.asarray(at) % 3, {"total": np.asarray(at, np.float32)})

    keep = MemoryCheckpoints()
    in_shares(3, ["window"], lambda: solve_windows(60, 8, 8, 4, run, keep))
    assert len(keep) == 8

    def never(*_):
        raise AssertionError("every window was there")

    joined, whole = solve_windows(60, 8, 8, 4, never, keep), solve_windows(60, 8, 8, 4, run)
    assert torch.equal(joined.codes, whole.codes) and np.array_equal(joined.outcome, whole.outcome)
    chained = MemoryCheckpoints()
    in_shares(2, ["window"], lambda: solve_windows(60, 8, 8, 0, never, chained))  # each needs the one before
    in_shares(2, ["segment"], lambda: solve_windows(60, 8, 8, 4, never, chained))  # of another pass: nothing
    assert not chained


@pytest.mark.parametrize("view", ["aligned", "side-by-side", "paste"])
def test_a_render_in_shares_is_equal(tiny_avatar, take, performance, tmp_path, view):
    settings, keep = RenderSettings(view=view, size=64, keep_seconds=0.1, batch=2), MemoryCheckpoints()

    def draw(name: str, keep=keep) -> bytes:
        return pictures(render(tiny_avatar, take, performance, tmp_path / name, settings, checkpoints=keep))

    in_shares(3, PASSES["render"], lambda: draw("joined.mp4"))
    assert len(keep) == (0 if view == "paste" else 6)  # a pasted frame needs the one before
    assert not (tmp_path / "joined.mp4").exists()
    assert draw("joined.mp4") == draw("whole.mp4", MemoryCheckpoints())
    times = [[time for time, _ in video.read(tmp_path / name)] for name in ("joined.mp4", "whole.mp4")]
    assert times[0] == times[1]
