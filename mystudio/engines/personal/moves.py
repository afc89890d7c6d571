"""Semantic edits of the personal engine: steps in an edit's own unit, and moves along directions in W.

An avatar's own edits are offsets that were measured on its pictures (``steps``). A take stores their strengths, and
``decode`` adds the offsets. Directions from files, and those of older avatars, move the codes themselves.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.state import AXES, EDIT, state_of
from mystudio.engines.personal.steps import FRAMES, frames_of, learn, motion_of
from mystudio.engines.protocol import UNKNOWN, Reach
from mystudio.types import Avatar, Codes, Progress, silent
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.face.facemesh import load_facemesh
from selfscan.types import Array

DILATION = 2.5  # of the hull at whose border the edge policies act


def edits(avatar: Avatar) -> dict[str, Reach]:
    """The edits that an avatar offers, and the strengths that it can show; not known of an older avatar's."""
    state = state_of(avatar)
    if state.steps:
        return {name: Reach(float(s.strengths[0]), float(s.strengths[-1])) for name, s in state.steps.items()}
    return dict.fromkeys(state.directions, UNKNOWN)


def with_steps(avatar: Avatar, progress: Progress = silent, frames: int = FRAMES) -> Avatar:
    """The avatar with edits in their own unit, measured on its pictures.

    Args: frames: faces of the person that are measured.
    """
    state, net = state_of(avatar), avatar.generator
    device = next(net.parameters()).device
    person = Regressor.load(state.regressor).person
    motion = motion_of(person, state.anchor_keypoints, avatar.neutral, net.w_dim)
    w = state.space.decode(frames_of(state.space, _neutral_anchor(avatar), frames))
    basis = torch.cat([state.space.axes, motion])
    steps = learn(net, load_facemesh(device=device), w.to(device), basis.to(device), progress=progress)
    return replace(avatar, state=replace(state, steps=steps))


def neutral_codes(avatar: Avatar) -> Codes:
    """Codes [1, L, K] of the anchor whose landmarks are nearest to the neutral face."""
    return {AXES: state_of(avatar).space.codes[_neutral_anchor(avatar)].expand(1, avatar.generator.num_ws, -1)}


def offsets(avatar: Avatar, codes: Codes, frames: slice = slice(None)) -> Tensor | None:
    """Sum of the offsets [T, D] in W of a take's edits; None without any."""
    steps = state_of(avatar).steps
    found = [steps[name[len(EDIT) :]].at(values[frames]) for name, values in codes.items() if name.startswith(EDIT)]
    return torch.stack(found).sum(0) if found else None


def move(
    avatar: Avatar,
    codes: Codes,
    edit: str | Tensor,
    strengths: Array,
    edge: str,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Codes:
    """Move codes [T, L, K] by an edit of the avatar, or along a W direction [D] or [L, D], by strengths [T].

    Args:
        edit: name of an edit in its own unit: its strengths are stored, and its end is the avatar's own, whatever
            ``edge`` says. Otherwise a direction, or the name of an older avatar's direction.
        edge: what happens at the border of the anchors' hull, dilated 2.5 times. "continue" ignores it. "project"
            returns to the nearest point of the hull. "stop" goes as far along the direction as the hull reaches.
        checkpoints: of finished chunks of frames; the hull costs up to a tenth of a second a frame.
    """
    state, start = state_of(avatar), codes[AXES]
    theta = torch.as_tensor(strengths, dtype=start.dtype)
    if isinstance(edit, str) and edit in state.steps:
        return {**codes, EDIT + edit: codes.get(EDIT + edit, torch.zeros_like(theta)) + theta}
    space, direction = state.space, state.directions[edit] if isinstance(edit, str) else edit
    step = space.direction(direction.to(start))
    if edge == "continue":
        return {**codes, AXES: _move(space, start, theta, step, edge)}

    def work(chunk: Array, rows: Iterator[Tensor]) -> Arrays:
        before, share = torch.stack(list(rows)), theta[chunk]
        return {"codes": np.asarray(_move(space, before, share, step, edge) if share.any() else before)}

    parts = in_chunks(checkpoints, "moved", range(len(start)), lambda first: enumerate(start[first:], first), work)
    return {**codes, AXES: torch.cat([torch.as_tensor(found["codes"]) for _, found in parts])}


def _neutral_anchor(avatar: Avatar) -> int:
    """Index of the anchor whose landmarks are nearest to the neutral face."""
    away = (state_of(avatar).anchor_keypoints - avatar.neutral).square().sum((1, 2))
    return int(away.argmin())


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
