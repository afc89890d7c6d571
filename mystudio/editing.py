"""Semantic edits: move a take along named directions of its avatar.

The engine defines directions and how codes move along them (``engines.protocol.Edits``). This module evaluates
strengths over time and draws the sheet of all edits; ``storage.directions`` reads further directions from files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mystudio import engines
from mystudio.errors import BadEdit
from mystudio.storage.directions import direction_name
from mystudio.storage.directions import load_directions as load_directions
from mystudio.types import Avatar, Codes, Edit, Take
from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints, Prefixed
from selfscan.io.pixels import to_uint8
from selfscan.types import Array

POLICIES = ("stop", "continue", "project")  # policies for codes outside the person's own range
LABEL, HEAD = 96, 24  # px: width of the names and height of the strengths on a sheet


def strength_at(edit: Edit, times: Array) -> Array:
    """Strength of an edit at each time [T] s: constant, or linear between keyframes and constant outside them."""
    if not edit.keys:
        return np.full(len(times), float(edit.strength))
    at, value = np.array(sorted(edit.keys), float).T
    return np.interp(times, at, value)


def apply(
    avatar: Avatar,
    take: Take,
    edits: list[Edit],
    directions: dict[str, Tensor] | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Take:
    """Apply edits to a take one after the other; an edit of strength 0 changes nothing.

    Args:
        directions: directions beyond the avatar's own, name -> [D], or [L, D] for each layer its own.
        checkpoints: of the same edits of the same take; stored parts are not computed again.
    Returns: a new take; ``edits`` lists the applied edits.
    Raises:
        BadEdit: an unknown direction or policy, or a strength that is not finite.
        NotOffered: the avatar's engine has no edits.
    """
    engine = engines.editing(avatar)
    offered, codes = {**engine.directions(avatar), **(directions or {})}, take.codes
    edits = [replace(edit, name=direction_name(edit.name)) for edit in edits]
    for number, edit in enumerate(edits):
        strengths = _checked(edit, offered, take.times)
        if strengths.any():
            own = Prefixed(checkpoints, f"edit{number}.")
            codes = engine.move(avatar, codes, offered[edit.name], strengths, edit.edge, own)
    return replace(take, codes=codes, edits=(*take.edits, *edits))


@torch.no_grad()
def sheet(avatar: Avatar, take: Take | None = None, strengths: tuple[float, ...] = (-2, -1, 0, 1, 2)) -> Array:
    """Draw each direction: one row a direction, one column a strength, [H, W, 3] uint8.

    Args: take: its middle frame is edited; None = the neutral face is edited.
    Raises: NotOffered: the avatar's engine has no edits.
    """
    import cv2

    engine, decode, count = engines.editing(avatar), engines.of(avatar).decode, len(strengths)
    middle = slice(len(take) // 2, len(take) // 2 + 1) if take else slice(0, 1)
    source = take.codes if take else engine.neutral_codes(avatar)
    start = {name: values[middle].expand(count, *values.shape[1:]) for name, values in source.items()}
    rows = []
    for name, direction in engine.directions(avatar).items():
        codes = engine.move(avatar, start, direction, np.array(strengths, float), "continue")
        images = avatar.generator.synthesize(decode(avatar, _still(codes, count)))
        strip = np.concatenate(list(to_uint8(images.float())), 1)
        label = np.full((strip.shape[0], LABEL, 3), 255, np.uint8)
        cv2.putText(label, name, (4, strip.shape[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(np.concatenate([label, strip], 1))
    side = avatar.generator.resolution
    head = np.full((HEAD, LABEL + count * side, 3), 255, np.uint8)
    for k, s in enumerate(strengths):
        at = LABEL + int((k + 0.4) * side)
        cv2.putText(head, f"{s:+g}", (at, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, *rows], 0)


@torch.no_grad()
def neutral(avatar: Avatar) -> Array:
    """Draw the neutral face, [H, W, 3] uint8. Raises NotOffered: the avatar's engine has no edits."""
    codes = {name: values[:1] for name, values in engines.editing(avatar).neutral_codes(avatar).items()}
    return to_uint8(avatar.generator.synthesize(engines.of(avatar).decode(avatar, _still(codes, 1))).float())[0]


def sheet_png(avatar: Avatar, take: Take | None = None, stamp: Callable[[Array], Array] | None = None) -> bytes:
    """Draw the ``sheet`` as PNG; ``stamp`` changes the picture first, such as by a watermark."""
    import cv2

    picture = sheet(avatar, take)
    return cv2.imencode(".png", (stamp(picture) if stamp else picture)[..., ::-1])[1].tobytes()


def _still(codes: Codes, count: int) -> Take:
    return Take(codes, np.zeros(count, np.uint8), np.arange(count, dtype=float), {})


def _checked(edit: Edit, offered: dict[str, Tensor], times: Array) -> Array:
    if edit.name not in offered:
        raise BadEdit(f"this avatar offers no direction {edit.name!r}; it has {', '.join(sorted(offered)) or 'none'}")
    if edit.edge not in POLICIES:
        raise BadEdit(f"edge policy {edit.edge!r}: expected one of {', '.join(POLICIES)}")
    theta = strength_at(edit, times)
    if not np.isfinite(theta).all():
        raise BadEdit(f"edit {edit.name}: expected finite strengths, got {edit.strength} {edit.keys}")
    return theta
