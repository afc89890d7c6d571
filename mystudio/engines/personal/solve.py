"""PGR's reenactment (arXiv 2307.06307): for every driving frame, the code whose image does what the driver does.

    min_c  w_k |K(G(c)) - k|^2 + w_m |mouth - m|^2 + w_i |iris - i|^2 + priors(c) + w_t |c_t - c_t-1|^2

Two solvers share the objective: ``gauss_newton`` (all frames of a window at once, few network passes) and ``adam``
(the paper's way: through the pixels, frame after frame, each starting at the last one's solution).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mystudio.compute.compilation import Compile, Precision, drawer
from mystudio.engines.personal.measure import Measured, Weights, measure
from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.start import StartCodes, held
from mystudio.engines.personal.windows import Solved, Window, reach, solve_windows
from mystudio.motion.retarget import RetargetSettings
from mystudio.types import Avatar, Motion, Outcome, Progress, Take, silent
from selfscan.face.facemesh import load_facemesh


@dataclass(frozen=True)
class SolveSettings:
    """How codes are found for a driving clip."""

    method: Literal["gauss-newton", "adam"] = "gauss-newton"
    space: Literal["axes", "hull", "softplus"] = "axes"  # adam only: principal axes, exact hull, or MyStyle's alpha
    start: Literal["regressor", "previous"] = "regressor"  # adam only; previous = the last frame's solution (PGR)
    match: float = 0.7  # 0..1: share of the step that gives the regressor's codes the driver's expression
    steps: int = 4  # optimisation steps a frame (MyStyle: up to 1000, Adam)
    rate: float = 5e-3  # adam only: step (MyStyle: 5e-3)
    keypoint: float = 1.0  # weight of the keypoints, in (1 % of the crop)^2
    mouth: float = 20.0  # weight of the mouth-cavity pixels, images in [-1, 1]
    iris: float = 30.0  # weight of the iris pixels
    prior: float = 0.05  # weight of the squared distance to the regressor's code (in anchor deviations, mean of axes)
    hold: float = 30.0  # weight of the squared turn of the head, and change of the lids, away from the regressor's (in
    #   standard deviations of the scan, over the number of axes): where keypoints of another's face mislead most
    hull: float = 0.3  # weight of the squared distance to the dilated hull
    dilation: float = 2.0  # of the convex hull of the anchors; 1 = the hull itself (MyStyle, N = 100: 4)
    delta: float = 10.0  # adam only: weight of per-layer offsets (MyStyle: 10)
    sum: float = 10.0  # softplus space only: weight of sum(alpha) = 1 (MyStyle: 10)
    temporal: float = 0.05  # weight of the squared change between frames (mean of axes)
    tolerance: float = 0.01  # converged when a step improves the objective by less than this share
    window: int = 256  # frames solved together; halved when memory runs out, as is the batch
    batch: int = 8  # frames synthesized at once
    precision: Precision = "float32"  # of the generator's feature maps; in bfloat16 a code moves by a fortieth of an
    #   anchor deviation with the place where a clip is cut
    compile: Compile = "no"  # torch.compile of the generator: for long clips; goes on without where it fails

    @property
    def weights(self) -> Weights:
        return Weights(self.keypoint, self.mouth, self.iris)


@dataclass(frozen=True)
class Problem:
    """Everything a solver needs about the avatar and the clip."""

    generator: torch.nn.Module
    mesh: torch.nn.Module
    space: AnchorSpace
    regressor: Regressor
    motion: Motion
    shape: RetargetSettings
    settings: SolveSettings
    start: Tensor  # [T, K] the regressor's codes
    linked: Tensor  # [T] 1 where frame t + 1 follows frame t without a cut or a gap in time
    held: Tensor  # [K, 4] how a code turns the head and moves the lids (``expression.held``)
    draw: Callable[[Tensor], Tensor]  # W+ [B, L, D] -> images [B, 3, H, W]

    @classmethod
    def of(cls, avatar: Avatar, motion: Motion, shape: RetargetSettings, settings: SolveSettings) -> Problem:
        """Drive an avatar with a motion."""
        regressor, space = Regressor.load(avatar.regressor), anchor_space(avatar)
        start = StartCodes(regressor, space, avatar.anchor_keypoints, settings.match)(motion.change, motion.measures)
        device = next(avatar.generator.parameters()).device
        draw = drawer(avatar.generator, device, settings.precision, settings.compile)
        return cls(
            avatar.generator,
            load_facemesh(device=device),
            space,
            regressor,
            motion,
            shape,
            settings,
            _fill(start, motion.valid),
            _linked(motion.times),
            held(space, avatar.anchor_keypoints),
            draw,
        )

    def priors(self, codes: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Terms [B] that hold the codes [B, K] of frames ``rows`` at their start."""
        away = codes - self.start[rows]
        return {"prior": away.square().mean(1), "hold": (away @ self.held).square().sum(1) / away.shape[1]}

    def images(self, codes: Tensor) -> Tensor:
        """Codes [B, K] or [B, L, K] -> images [B, 3, H, W]."""
        w = self.space.decode(codes).to(next(self.generator.parameters()).device)
        return self.draw(w if codes.ndim == 3 else self.generator.broadcast(w))

    def render_and_measure(self, codes: Tensor) -> Measured:
        """Synthesize on the generator's device and measure; the small results come back to the codes' device."""
        return measure(self.mesh, self.images(codes), self.shape).to(codes.device)


def solve(
    avatar: Avatar,
    motion: Motion,
    shape: RetargetSettings = RetargetSettings(),
    settings: SolveSettings = SolveSettings(),
    progress: Progress = silent,
    journal: Path | None = None,
) -> Take:
    """Find the codes of a whole clip, window by window; finished windows survive a crash in ``journal``.

    Args:
        avatar: whose generator is driven. motion: from ``retarget.retarget``.
    Returns: a take with as many frames as the clip; frames without a face carry interpolated codes and say so.
    """
    from mystudio.engines.personal import adam, gauss_newton

    solver = {"adam": adam, "gauss-newton": gauss_newton}[settings.method]
    problem = Problem.of(avatar, motion, shape, settings)

    def run(window: Window, batch: int, last: Tensor | None) -> Solved:
        def tick(done: int) -> None:
            progress("solve", window.core.start + done * len(window.core) // len(window.frames), len(motion))

        part = replace(problem, settings=replace(settings, batch=batch))
        return solver.solve_window(part, window.frames, last, tick)

    chained = settings.method == "adam" and settings.start == "previous"
    overlap = 0 if chained else reach(settings.temporal, settings.prior, settings.window)
    whole = solve_windows(
        len(motion),
        settings.window,
        settings.batch,
        overlap,
        run,
        journal,
        lambda end: progress("solve", end, len(motion)),
    )
    codes, outcome = _hold(whole.codes, whole.outcome, motion.valid)
    return Take(codes, outcome, motion.times.numpy(), whole.losses)


def anchor_space(avatar: Avatar) -> AnchorSpace:
    """The avatar's code space: as many principal axes as its regressor has outputs."""
    return AnchorSpace.of(avatar.anchors, len(avatar.regressor["code_mean"]))


def _linked(times: Tensor) -> Tensor:
    step = times.diff()
    usual = step.median() if len(step) else 0.0
    return torch.cat([(step < 3 * usual).float(), torch.zeros(1)])


def _fill(codes: Tensor, valid: Tensor) -> Tensor:
    """Codes of frames without a face: linear between neighbours, held at the ends."""
    if bool(valid.all()) or not bool(valid.any()):
        return codes
    at, known = np.arange(len(codes)), np.flatnonzero(valid.numpy())
    flat = codes.flatten(1).numpy()
    filled = np.stack([np.interp(at, known, column[known]) for column in flat.T], 1)
    return torch.as_tensor(filled, dtype=codes.dtype).view_as(codes)


def _hold(codes: Tensor, outcome: np.ndarray, valid: Tensor) -> tuple[Tensor, np.ndarray]:
    """Mark frames without a face or with non-finite codes, and give them their neighbours' codes."""
    finite = codes.flatten(1).isfinite().all(1)
    outcome = np.where(~finite.numpy(), Outcome.HELD, outcome)
    outcome = np.where(~valid.numpy(), Outcome.NO_FACE, outcome).astype(np.uint8)
    return _fill(torch.nan_to_num(codes), valid & finite), outcome
