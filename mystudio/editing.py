"""Semantic edits: move a take along named directions of the avatar's own space.

Directions need no labels: attributes are measured on the avatar's own samples and codes are regressed on all of them
at once, so that each direction changes one attribute while the others stay. Directions from elsewhere load from a
file of W vectors.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mystudio.engines.personal.regress import Samples
from mystudio.engines.personal.space import AnchorSpace, anchor_space
from mystudio.errors import BadEdit, reason
from mystudio.storage import npz
from mystudio.types import Avatar, Edit, Take
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, Prefixed, in_chunks
from selfscan.io.pixels import to_uint8

#: names of edits: what ``selfscan.face.measures`` calls the attribute
ATTRIBUTES = ("smile", "mouth_open", "eyes_open", "brows", "gaze_x", "gaze_y", "yaw", "pitch", "roll")
LEAST_EXPLAINED = 0.05  # a direction is offered when it explains at least this share of its attribute's variance
POLICIES = ("stop", "continue", "project")
MAX_FILE = 64 << 20  # bytes of a file of directions
DILATION = 2.5  # of the hull at whose border the edge policies act


def learn_directions(samples: Samples, space: AnchorSpace, ridge: float = 0.01) -> dict[str, Tensor]:
    """W directions of every attribute that varies in the avatar's samples.

    Strength 1 moves the attribute by one standard deviation over the samples.

    Args:
        samples: codes and landmarks of synthesized frames.
    Returns: name -> [D].
    """
    from selfscan.face.headpose import head_pose
    from selfscan.face.measures import measures

    marks = samples.landmarks.numpy()
    found = measures(marks, head_pose(marks))
    names = [name for name in ATTRIBUTES if np.std(found[name]) > 1e-6]
    values = torch.as_tensor(np.stack([found[name] for name in names], 1), dtype=torch.float64)
    values = ((values - values.mean(0)) / values.std(0)).clamp(-3, 3)
    codes = (samples.codes - samples.codes.mean(0)).double()
    gram = values.t() @ values / len(values) + ridge * torch.eye(len(names), dtype=torch.float64)
    slopes = torch.linalg.solve(gram, values.t() @ codes / len(values))
    return {n: (d.float() @ space.axes) for n, d, ok in zip(names, slopes, _explained(values, codes)) if ok}


def load_directions(path: Path, w_dim: int) -> dict[str, Tensor]:
    """Directions from a .safetensors or .npz file: name -> [D] in W.

    Raises: BadEdit for another format, a wrong length or values that are not finite.
    """
    try:
        if Path(path).stat().st_size > MAX_FILE:
            raise ValueError(f"more than {MAX_FILE} bytes")
        if Path(path).suffix == ".npz":
            found = {k: torch.as_tensor(v).float() for k, v in npz.load(path, most=MAX_FILE).items()}
        else:
            from safetensors.torch import load_file

            found = {k: v.float() for k, v in load_file(path).items()}
    except Exception as error:  # both readers raise many kinds; for the user all mean the same
        raise BadEdit(f"{path}: expected directions as .safetensors or .npz ({reason(error)})") from error
    for name, d in found.items():
        if d.shape != (w_dim,) or not bool(d.isfinite().all()):
            raise BadEdit(f"{path}: direction {name!r}: expected {w_dim} finite numbers, got shape {tuple(d.shape)}")
    return found


def strength_at(edit: Edit, times: np.ndarray) -> np.ndarray:
    """Strength of an edit at each time [T] s: constant, or linear between keyframes and held outside."""
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
    """Take -> Take with edits applied one after the other. A zero-strength edit changes nothing.

    Edge policies at the border of the hull dilated 2.5 times: "continue" ignores it; "project" returns to the
    nearest point of the hull; "stop" goes as far along the direction as the hull reaches. What ``checkpoints`` hold
    of the same edits of the same take is not computed again.

    Raises: BadEdit for an unknown direction, policy or a strength that is not finite.
    """
    space, offered = anchor_space(avatar), {**avatar.directions, **(directions or {})}
    codes = take.codes
    for number, edit in enumerate(edits):
        theta = _checked(edit, offered, take.times)
        if not theta.any():
            continue
        move = space.direction(offered[edit.name].to(codes))
        theta = torch.as_tensor(theta, dtype=codes.dtype)
        if edit.edge == "continue":
            codes = _move(space, codes, theta, move, edit.edge)
        else:  # the hull costs up to a tenth of a second a frame
            codes = _kept_move(space, codes, theta, move, edit.edge, Prefixed(checkpoints, f"edit{number}."))
    return replace(take, codes=codes, edits=(*take.edits, *edits))


@torch.no_grad()
def sheet(avatar: Avatar, take: Take | None = None, strengths: tuple[float, ...] = (-2, -1, 0, 1, 2)) -> np.ndarray:
    """A picture of each direction: one row a direction, one column a strength, [H, W, 3] uint8."""
    import cv2

    space, device = anchor_space(avatar), next(avatar.generator.parameters()).device
    if take is not None:
        start = take.codes[len(take) // 2].mean(0)
    else:
        away = (avatar.anchor_keypoints - avatar.neutral).square().sum((1, 2))
        start = space.codes[int(away.argmin())]
    rows = []
    for name, d in avatar.directions.items():
        codes = start + torch.tensor(strengths)[:, None] * space.direction(d)
        w = space.decode(codes).to(device)
        row = to_uint8(avatar.generator(avatar.generator.broadcast(w)).clamp(-1, 1))
        strip = np.concatenate(list(row), 1)
        label = np.full((strip.shape[0], 96, 3), 255, np.uint8)
        cv2.putText(label, name, (4, strip.shape[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(np.concatenate([label, strip], 1))
    side = avatar.generator.resolution
    head = np.full((24, 96 + len(strengths) * side, 3), 255, np.uint8)
    for k, s in enumerate(strengths):
        at = 96 + int((k + 0.4) * side)
        cv2.putText(head, f"{s:+g}", (at, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, *rows], 0)


def _checked(edit: Edit, offered: dict[str, Tensor], times: np.ndarray) -> np.ndarray:
    if edit.name not in offered:
        raise BadEdit(f"this avatar offers no direction {edit.name!r}; it has {', '.join(sorted(offered)) or 'none'}")
    if edit.edge not in POLICIES:
        raise BadEdit(f"edge policy {edit.edge!r}: expected one of {', '.join(POLICIES)}")
    theta = strength_at(edit, times)
    if not np.isfinite(theta).all():
        raise BadEdit(f"edit {edit.name}: expected finite strengths, got {edit.strength} {edit.keys}")
    return theta


def _kept_move(
    space: AnchorSpace, codes: Tensor, theta: Tensor, move: Tensor, edge: str, checkpoints: Checkpoints
) -> Tensor:
    def work(chunk: np.ndarray, rows) -> Arrays:
        before, share = torch.stack(list(rows)), theta[chunk]
        return {"codes": (_move(space, before, share, move, edge) if share.any() else before).numpy()}

    parts = in_chunks(checkpoints, "moved", range(len(codes)), lambda start: enumerate(codes[start:], start), work)
    return torch.cat([torch.as_tensor(found["codes"]) for _, found in parts])


def _move(space: AnchorSpace, codes: Tensor, theta: Tensor, move: Tensor, edge: str) -> Tensor:
    far = codes + theta[:, None, None] * move
    if edge == "continue":
        return far
    moved = theta != 0
    if edge == "project":
        out = codes.clone()
        out[moved] = space.project(far[moved], DILATION)
        return out
    share = torch.zeros_like(theta)  # bisection on the share of the way that stays inside
    step = 1.0
    limit = space.outside(codes, DILATION).amax(1) + 0.02  # a code that starts outside may stay where it is
    for _ in range(8):
        trial = share + step
        inside = space.outside(codes + (trial * theta)[:, None, None] * move, DILATION).amax(1) <= limit
        share = torch.where(inside & (trial <= 1), trial, share)
        step /= 2
    return codes + (share * theta)[:, None, None] * move


def _explained(values: Tensor, codes: Tensor) -> list[bool]:
    fit = codes @ torch.linalg.lstsq(codes, values).solution
    share = 1 - (values - fit).square().sum(0) / values.square().sum(0)
    return [bool(s > LEAST_EXPLAINED) for s in share]
