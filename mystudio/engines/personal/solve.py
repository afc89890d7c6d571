"""PGR's reenactment (arXiv 2307.06307): for every driving frame, find the code whose image matches the driver.

    min_c  w_k |K(G(c)) - k|^2 + w_m |mouth - m|^2 + w_i |iris - i|^2 + priors(c) + w_t |c_t - c_t-1|^2

Two solvers share the objective: ``gauss_newton`` (all frames of a window at once, few network passes) and ``adam``
(the paper's method: gradients through the pixels, one frame after the other, each from the last one's solution).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mystudio.engines.personal import adam, gauss_newton
from mystudio.engines.personal.problem import Problem, SolveSettings, fill_gaps
from mystudio.engines.personal.state import AXES
from mystudio.engines.personal.windows import Solved, Window, reach, solve_windows
from mystudio.motion.retarget import Motion, RetargetSettings
from mystudio.types import Avatar, Outcome, Progress, Take, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.types import Array

#: method of the settings -> function that solves one window
SOLVERS = {"gauss-newton": gauss_newton.solve_window, "adam": adam.solve_window}


def solve(
    avatar: Avatar,
    motion: Motion,
    shape: RetargetSettings = RetargetSettings(),
    settings: SolveSettings = SolveSettings(),
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Take:
    """Find the codes of a whole clip, window by window.

    Args:
        avatar: the avatar to drive. motion: from ``retarget.retarget``.
        checkpoints: of finished windows; after a crash the same call resumes from them.
    Returns: a take with as many frames as the clip. Frames without a face, or whose solution is not finite, carry
        codes interpolated between their neighbours; their outcome is marked.
    """
    problem = Problem.of(avatar, motion, shape, settings)

    def run(window: Window, batch: int, last: Tensor | None) -> Solved:
        def tick(done: int) -> None:
            progress("solve", window.core.start + done * len(window.core) // len(window.frames), len(motion))

        part = replace(problem, settings=replace(settings, batch=batch))
        return SOLVERS[settings.method](part, window.frames, last, tick)

    chained = settings.method == "adam" and settings.start == "previous"
    whole = solve_windows(
        total=len(motion),
        size=settings.window,
        batch=settings.batch,
        overlap=0 if chained else reach(settings.temporal, settings.prior, settings.window),
        run=run,
        checkpoints=checkpoints,
        tick=lambda end: progress("solve", end, len(motion)),
    )
    codes, outcome = fill_unsolved(whole.codes, whole.outcome, motion.valid, motion.shots)
    return Take({AXES: codes}, outcome, np.asarray(motion.times), whole.losses)


def fill_unsolved(codes: Tensor, outcome: Array, valid: Tensor, shots: tuple[slice, ...] = ()) -> tuple[Tensor, Array]:
    """Mark frames without a face or with codes that are not finite, and fill in codes from their neighbours.

    Args:
        codes: [T, L, K]. outcome: [T]. valid: [T] bool, False where no face was found.
        shots: frames between two cuts; () = no cut.
    """
    finite = codes.flatten(1).isfinite().all(1)
    outcome = np.where(np.asarray(~finite), Outcome.HELD, outcome)
    outcome = np.where(np.asarray(~valid), Outcome.NO_FACE, outcome).astype(np.uint8)
    return fill_gaps(torch.nan_to_num(codes), valid & finite, shots), outcome
