"""The problem that both solvers minimise: settings, the avatar's part, the clip's part, and the penalties on codes."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mystudio.compute.compilation import Compile, Precision, drawer
from mystudio.engines.personal import proxy
from mystudio.engines.personal.measure import Measured, Terms, Weights, measure
from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.start import StartCodes, pose_lid_map
from mystudio.engines.personal.state import state_of
from mystudio.motion.retarget import Motion, RetargetSettings
from mystudio.stylegan2.generator import Generator
from mystudio.types import Avatar
from selfscan.face.facemesh import FaceMesh, load_facemesh

CUT = 3.0  # usual frame intervals: a longer one is a cut or a gap, and the temporal term does not cross it


@dataclass(frozen=True)
class SolveSettings:
    """Settings of the solvers, which find codes for a driving clip."""

    method: Literal["gauss-newton", "adam"] = "gauss-newton"
    space: Literal["axes", "hull", "softplus"] = "axes"  # adam only: principal axes, exact hull, or MyStyle's alpha
    start: Literal["regressor", "previous"] = "regressor"  # adam only; previous = the last frame's solution (PGR)
    match: float = 0.7  # 0..1: share of the step that gives the regressor's codes the driver's expression
    steps: int = 2  # optimisation steps a frame (MyStyle: up to 1000, Adam)
    rate: float = 5e-3  # adam only: step (MyStyle: 5e-3)
    keypoint: float = 1.0  # weight of the keypoints, in (1 % of the crop)^2
    mouth: float = 20.0  # weight of the mouth-cavity pixels, images in [-1, 1]
    iris: float = 30.0  # weight of the iris pixels
    prior: float = 0.05  # weight of the squared distance to the regressor's code (in anchor deviations, mean of axes)
    pose_lid_weight: float = 30.0  # weight of the squared change of head pose and lids against the start code (in
    #   standard deviations of the scan, divided by the number of axes); keypoints of another face mislead most there
    hull: float = 0.3  # weight of the squared distance to the dilated hull
    dilation: float = 2.0  # of the convex hull of the anchors; 1 = the hull itself (MyStyle, N = 100: 4)
    delta: float = 10.0  # adam only: weight of per-layer offsets (MyStyle: 10)
    sum: float = 10.0  # softplus space only: weight of sum(alpha) = 1 (MyStyle: 10)
    temporal: float = 0.08  # weight of the squared change between frames (mean of axes)
    tolerance: float = 0.01  # converged when a step improves the objective by less than this share
    window: int = 384  # frames solved together; halved when memory runs out, as is the batch
    batch: int = 8  # frames synthesized at once
    precision: Precision = "float32"  # of the generator's feature maps; in bfloat16 a code changes by up to .05 anchor
    #   deviations with the place where a clip is cut
    start_precision: Precision = "auto"  # gauss-newton only: the same for start codes, which are alike at any place
    proxy: int = (
        proxy.SIZE
    )  # gauss-newton only: px of the pictures it draws, where such pictures measure alike; 0 = full
    compile: Compile = "no"  # torch.compile of the generator: for long clips; the plain generator is used if it fails

    @property
    def weights(self) -> Weights:
        """Weight of each term of the objective."""
        return {
            "keypoint": self.keypoint,
            "mouth": self.mouth,
            "iris": self.iris,
            "prior": self.prior,
            "pose_lid": self.pose_lid_weight,
            "hull": self.hull,
            "temporal": self.temporal,
            "delta": self.delta,
            "sum": self.sum,
        }


@dataclass(frozen=True)
class Problem:
    """Everything a solver needs about the avatar and the clip: T frames, K axes, L layers."""

    generator: Generator
    mesh: FaceMesh
    space: AnchorSpace
    regressor: Regressor
    motion: Motion
    shape: RetargetSettings
    settings: SolveSettings
    start: Tensor  # [T, K] start codes
    linked: Tensor  # [T] 1 where frame t + 1 follows frame t without a cut or a gap in time
    pose_lid_map: Tensor  # [K, 4] how a code turns the head and moves the lids (``start.pose_lid_map``)
    draw: Callable[[Tensor], Tensor]  # W+ [B, L, D] -> images [B, 3, H, W], at the size that ``proxy.size`` chooses
    draw_start: Callable[[Tensor], Tensor] | None = None  # like ``draw``, for the start codes; None = ``draw``
    pass_size: int = 0  # start codes are drawn at least so many at once, even if batches are smaller (``proxy.PASS``)

    @classmethod
    def of(cls, avatar: Avatar, motion: Motion, shape: RetargetSettings, settings: SolveSettings) -> Problem:
        """The problem of driving an avatar with a motion, on the device of the avatar's generator."""
        state = state_of(avatar)
        regressor, space = Regressor.load(state.regressor), state.space
        start = StartCodes(regressor, space, state.anchor_keypoints, settings.match)(motion.change, motion.measures)
        device = next(avatar.generator.parameters()).device
        mesh = load_facemesh(device=device)
        plain = partial(drawer, avatar.generator, device, settings.start_precision)  # few pictures: never compiled
        least = settings.proxy if settings.method == "gauss-newton" else 0
        size = proxy.size(plain, avatar.generator, mesh, space, least)
        small = (size or avatar.generator.resolution) <= settings.proxy
        return cls(
            generator=avatar.generator,
            mesh=mesh,
            space=space,
            regressor=regressor,
            motion=motion,
            shape=shape,
            settings=settings,
            start=fill_gaps(start, motion.valid, motion.shots),
            linked=_linked(motion),
            pose_lid_map=pose_lid_map(space, state.anchor_keypoints),
            draw=drawer(avatar.generator, device, settings.precision, settings.compile, size),
            draw_start=plain(resolution=size),
            pass_size=proxy.PASS if small else 0,
        )

    def priors(self, codes: Tensor, rows: Tensor) -> Terms:
        """Penalties [B] on the difference between the codes [B, K] of frames ``rows`` and their start codes."""
        away = codes - self.start[rows]
        turned = (away @ self.pose_lid_map).square().sum(1) / away.shape[1]
        return {"prior": away.square().mean(1), "pose_lid": turned}

    def images(self, codes: Tensor, draw: Callable[[Tensor], Tensor] | None = None, fill_to: int = 0) -> Tensor:
        """Codes [B, K] or [B, L, K] -> images [B, 3, H, W], by ``self.draw`` or another function like it.

        Args: fill_to: number of codes to which the last one is repeated; the images of these are dropped.
        """
        count, missing = len(codes), fill_to - len(codes)
        codes = torch.cat([codes, codes[-1:].expand(missing, *codes.shape[1:])]) if missing > 0 else codes
        w = self.space.decode(codes).to(next(self.generator.parameters()).device)
        return (draw or self.draw)(w if codes.ndim == 3 else self.generator.broadcast(w))[:count]

    def render_and_measure(self, codes: Tensor) -> Measured:
        """Synthesize on the generator's device and measure; the small results come back to the codes' device."""
        return measure(self.mesh, self.images(codes), self.shape).to(codes.device)

    def measure_start(self, codes: Tensor) -> Measured:
        """Like ``render_and_measure``, for codes [B, K] that are the same wherever the clip is cut: faster."""
        images = self.images(codes, self.draw_start, max(self.settings.batch, self.pass_size))
        return measure(self.mesh, images, self.shape).to(codes.device)


def select_frames(motion: Motion, rows: Tensor) -> Motion:
    """The motion of frames ``rows``; patches and masks that are made on demand are made here, once."""
    return replace(
        motion,
        keypoints=motion.keypoints[rows],
        change=motion.change[rows],
        mouth=motion.mouth[rows],
        mouth_mask=motion.mouth_mask[rows],
        irises=motion.irises[rows],
        iris_mask=motion.iris_mask[rows],
        valid=motion.valid[rows],
        times=motion.times[rows],
        measures=None if motion.measures is None else motion.measures[rows],
        shots=(),  # the problem's links know the cuts
    )


def fill_gaps(codes: Tensor, valid: Tensor, shots: tuple[slice, ...] = ()) -> Tensor:
    """Give frames without a face the codes between those of their neighbours; a shot's ends repeat the nearest code.

    Nothing is interpolated across a cut. A shot without a face repeats the last code before it, or the first after it.

    Args:
        codes: [T, ...]. valid: [T] bool. shots: frames between two cuts, in order; () = no cut.
    """
    if bool(valid.all()) or not bool(valid.any()):
        return codes
    every, flat = np.flatnonzero(np.asarray(valid)), np.asarray(codes.flatten(1))
    filled = np.empty_like(flat)
    for shot in shots or (slice(0, len(codes)),):
        at = np.arange(shot.start, shot.stop)
        known = every[(every >= shot.start) & (every < shot.stop)]
        if not len(known):
            known = every[every < shot.start][-1:] if every[0] < shot.start else every[:1]
        filled[shot] = np.stack([np.interp(at, known, column[known]) for column in flat.T], 1)
    return torch.as_tensor(filled, dtype=codes.dtype).view_as(codes)


def _linked(motion: Motion) -> Tensor:
    """[T] 1 where the next frame follows without a cut or a gap."""
    step = motion.times.diff()
    usual = step.median() if len(step) else 0.0
    linked = torch.cat([(step < CUT * usual).float(), torch.zeros(1)])
    for shot in motion.shots:
        linked[shot.stop - 1] = 0.0
    return linked
