"""Semantic edits of the personal engine: directions learned from the avatar's own samples, and moves along them.

Directions need no labels: attributes are measured on the avatar's samples, and codes are regressed on all attributes at
once. So each direction changes one attribute while the others stay (compare Shen et al., InterFaceGAN, arXiv
2005.09635).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mystudio.engines.personal.regress import Samples
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.state import AXES, state_of
from mystudio.types import Avatar, Codes
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.scan.coverage import measures
from selfscan.types import Array

#: names of edits: what ``measures`` calls the attribute
ATTRIBUTES = ("smile", "mouth_open", "eyes_open", "brows", "gaze_x", "gaze_y", "yaw", "pitch")
#: measured so that no direction tilts the head; not offered as an edit, because the alignment removes roll from crops
CONTROLS = ("roll",)
LEAST_EXPLAINED = 0.05  # a direction is offered when it explains at least this share of its attribute's variance
DILATION = 2.5  # of the hull at whose border the edge policies act


def learn_directions(samples: Samples, space: AnchorSpace, ridge: float = 0.01) -> dict[str, Tensor]:
    """W directions of every attribute that varies in the avatar's samples.

    Strength 1 moves the attribute by one standard deviation over the samples.

    Args:
        samples: codes and landmarks of synthesized frames.
    Returns: name -> [D].
    """
    marks = np.asarray(samples.landmarks)
    found = measures(marks)
    names = [name for name in (*ATTRIBUTES, *CONTROLS) if np.std(found[name]) > 1e-6]
    values = torch.as_tensor(np.stack([found[name] for name in names], 1), dtype=torch.float64)
    values = ((values - values.mean(0)) / values.std(0)).clamp(-3, 3)
    codes = (samples.codes - samples.codes.mean(0)).double()
    gram = values.t() @ values / len(values) + ridge * torch.eye(len(names), dtype=torch.float64)
    slopes: Tensor = torch.linalg.solve(gram, values.t() @ codes / len(values))
    offered = [ok and name in ATTRIBUTES for name, ok in zip(names, _explained(values, codes))]
    return {name: slope.float() @ space.axes for name, slope, ok in zip(names, slopes, offered) if ok}


def directions(avatar: Avatar) -> dict[str, Tensor]:
    """The directions that an avatar offers: name -> [D] in W."""
    return state_of(avatar).directions


def neutral_codes(avatar: Avatar) -> Codes:
    """Codes [1, L, K] of the anchor whose landmarks are nearest to the neutral face."""
    state = state_of(avatar)
    away = (state.anchor_keypoints - avatar.neutral).square().sum((1, 2))
    return {AXES: state.space.codes[away.argmin()].expand(1, avatar.generator.num_ws, -1)}


def move(
    avatar: Avatar,
    codes: Codes,
    direction: Tensor,
    strengths: Array,
    edge: str,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Codes:
    """Move codes [T, L, K] along a W direction [D], or one a layer [L, D], by strengths [T].

    Args:
        edge: what happens at the border of the anchors' hull, dilated 2.5 times. "continue" ignores it. "project"
            returns to the nearest point of the hull. "stop" goes as far along the direction as the hull reaches.
        checkpoints: of finished chunks of frames; the hull costs up to a tenth of a second a frame.
    """
    space, start = state_of(avatar).space, codes[AXES]
    step = space.direction(direction.to(start))
    theta = torch.as_tensor(strengths, dtype=start.dtype)
    if edge == "continue":
        return {AXES: _move(space, start, theta, step, edge)}

    def work(chunk: Array, rows: Iterator[Tensor]) -> Arrays:
        before, share = torch.stack(list(rows)), theta[chunk]
        return {"codes": np.asarray(_move(space, before, share, step, edge) if share.any() else before)}

    parts = in_chunks(checkpoints, "moved", range(len(start)), lambda first: enumerate(start[first:], first), work)
    return {AXES: torch.cat([torch.as_tensor(found["codes"]) for _, found in parts])}


def _move(space: AnchorSpace, codes: Tensor, theta: Tensor, move: Tensor, edge: str) -> Tensor:
    far = codes + theta[:, None, None] * move
    if edge == "continue":
        return far
    moved = theta != 0
    if edge == "project":
        out = codes.clone()
        out[moved] = space.project(far[moved], DILATION)
        return out
    share = torch.zeros_like(theta)  # bisection for the largest share of the move that stays inside
    step = 1.0
    limit = space.outside(codes, DILATION).amax(1) + 0.02  # a code that is already outside may stay there
    for _ in range(8):
        trial = share + step
        inside = space.outside(codes + (trial * theta)[:, None, None] * move, DILATION).amax(1) <= limit
        share = torch.where(inside & (trial <= 1), trial, share)
        step /= 2
    return codes + (share * theta)[:, None, None] * move


def _explained(values: Tensor, codes: Tensor) -> list[bool]:
    solution: Tensor = torch.linalg.lstsq(codes, values).solution
    fit = codes @ solution
    share = 1 - (values - fit).square().sum(0) / values.square().sum(0)
    return [bool(s > LEAST_EXPLAINED) for s in share]
