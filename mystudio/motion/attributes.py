"""What a face does, as channels that are measured on a picture, each in a unit that can be seen.

Channels are differentiable in the landmarks. ``selfscan.face.measures`` explains d, the face's own axes and the signs.
Lids are measured one eye at a time.

===========  ====================================================================================  ==========
channel      measure; d is the distance of the eyes                                                unit
===========  ====================================================================================  ==========
smile        height of the mouth's corners over the base of the nose / d, beyond an open jaw's     0.05
mouth_width  distance of the mouth's corners / d, beyond a smile's                                 0.08
mouth_open   gap of the inner lips / d                                                             0.12
lid_right    gap of the right eye's lids / width of that eye; open 0.25-0.4, closed about 0.07     0.10
lid_left     the same of the left eye                                                              0.10
brows        height of the brows over the nose bridge / d                                          0.04
frown        how far the brows' inner parts are below their outer parts, and nearer together / d   0.04
gaze_x       of the irises towards the person's left / width of the eye; the full range is +-0.2   0.06
gaze_y       the same upwards; the full range is +-0.1                                             0.035
yaw          of the head towards the person's left                                                 10 degrees
pitch        of the head downwards                                                                 7 degrees
roll         of the head                                                                           7 degrees
jaw_side     of the chin towards the person's left / d                                             0.05
===========  ====================================================================================  ==========
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

import math

import torch
from torch import Tensor

from selfscan.face.headpose import canonical_head
from selfscan.face.landmarks import (
    BROWS,
    EYE_CORNERS,
    IRISES,
    LID_PAIRS,
    LIP_GAP,
    MOUTH_CORNERS,
    NOSE_BASE,
    NOSE_BRIDGE,
    OUTER_EYE_CORNERS,
    RIGID,
)

OUTER_BROWS, INNER_BROWS, INNER_ENDS = (70, 105, 300, 334), (55, 107, 285, 336), (55, 285)
CHIN = (152, 148, 377, 175, 199)
#: in actors' faces a jaw that opens by 1 takes the mouth's corners down by so much, and corners that rise widen it
LOWERED, BROADENED = 0.28, 1.6
UNITS = {
    "smile": 0.05,
    "mouth_width": 0.08,
    "mouth_open": 0.12,
    "lid_right": 0.1,
    "lid_left": 0.1,
    "brows": 0.04,
    "frown": 0.04,
    "gaze_x": 0.06,
    "gaze_y": 0.035,
    "yaw": math.radians(10),
    "pitch": math.radians(7),
    "roll": math.radians(7),
    "jaw_side": 0.05,
}
CHANNELS = tuple(UNITS)


def attributes(points: Tensor) -> Tensor:
    """Channels [B, C] of landmarks [B, 478, 3] (any unit, z in the scale of x), in the order of ``CHANNELS``."""

    def at(*indices: int) -> Tensor:
        return points[:, list(indices)].mean(1)

    eyes = [at(*corners) for corners in EYE_CORNERS]
    d = (eyes[1] - eyes[0]).norm(dim=-1)
    x = _unit(at(OUTER_EYE_CORNERS[1]) - at(OUTER_EYE_CORNERS[0]))
    down = at(NOSE_BASE) - at(NOSE_BRIDGE)
    down = _unit(down - (down * x).sum(-1, keepdim=True) * x)
    widths = [_distance(points, corners) for corners in EYE_CORNERS]
    lids = [torch.stack([_distance(points, p) for p in pairs]).mean(0) / w for pairs, w in zip(LID_PAIRS, widths)]
    gazes = [(at(iris[0]) - eye) / w[:, None] for iris, eye, w in zip(IRISES, eyes, widths)]

    def height(over: int, *indices: int) -> Tensor:
        return ((at(over) - at(*indices)) * down).sum(-1) / d

    brows = [height(NOSE_BRIDGE, *part) for part in (BROWS, OUTER_BROWS, INNER_BROWS)]
    yaw, pitch, roll = _angles(points).unbind(-1)
    gap = _distance(points, LIP_GAP) / d
    lift = height(NOSE_BASE, *MOUTH_CORNERS) + LOWERED * gap
    found = {
        "smile": lift,
        "mouth_width": _distance(points, MOUTH_CORNERS) / d - BROADENED * lift,
        "mouth_open": gap,
        "lid_right": lids[0],
        "lid_left": lids[1],
        "brows": brows[0],
        "frown": brows[1] - brows[2] - 0.5 * _distance(points, INNER_ENDS) / d,
        "gaze_x": ((gazes[0] + gazes[1]) * x).sum(-1) / 2,
        "gaze_y": -((gazes[0] + gazes[1]) * down).sum(-1) / 2,
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "jaw_side": ((at(*CHIN) - at(NOSE_BASE)) * x).sum(-1) / d,
    }
    return torch.stack([found[channel] / unit for channel, unit in UNITS.items()], 1)


def _angles(points: Tensor) -> Tensor:
    """Yaw, pitch and roll [B, 3] rad of landmarks: ``headpose.euler`` of ``headpose.head_pose``, differentiable."""
    index = list(RIGID)
    head, seen = torch.as_tensor(canonical_head()[index].copy()).to(points), points[:, index]
    a, b = head - head.mean(0), seen - seen.mean(1, keepdim=True)
    u, _, vt = torch.linalg.svd(torch.einsum("bni,nj->bij", b, a))
    u = torch.cat([u[..., :2], u[..., 2:] * torch.det(u @ vt).sign()[:, None, None]], -1)  # no reflection
    flip = points.new_tensor([1.0, -1.0, -1.0])
    r = flip[:, None] * (u @ vt) * flip
    yaw, roll = torch.atan2(-r[:, 2, 0], r[:, 2, 2]), torch.atan2(-r[:, 0, 1], r[:, 1, 1])
    return torch.stack([yaw, torch.asin(r[:, 2, 1].clamp(-0.999, 0.999)), roll], -1)


def _unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True)


def _distance(points: Tensor, pair: tuple[int, int]) -> Tensor:
    return (points[:, pair[0]] - points[:, pair[1]]).norm(dim=-1)
