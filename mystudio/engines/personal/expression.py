"""Start codes that carry the driver's expression.

A regressor that never saw this driver misses what is small in the picture: blinks, the corners of the mouth. The scan
knows which codes go with which expression; the shortest step in code space that brings the expression to the driver's,
and leaves the pose, follows in closed form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mystudio.latents import AnchorSpace
from mystudio.retarget import measures
from selfscan.headpose import euler, head_pose

RIDGE = 0.3  # of the step, against a squared miss of one standard deviation of the scan
POSE = 3.0  # weight of leaving the pose, in the same unit
BEYOND = 0.1  # standard deviations that an expression may leave the scan's range by


def match(codes: Tensor, wanted: Tensor, space: AnchorSpace, scan_landmarks: Tensor) -> Tensor:
    """Move codes so that they show the wanted expression, as far as the scan's own codes can tell.

    Args:
        codes: [T, K]. wanted: [T, M] (``Motion.measures``). space: the avatar's anchors.
        scan_landmarks: [N, 478, 3] of the scan images, in the anchors' order.
    Returns: [T, K].
    """
    shown, turned = measures(scan_landmarks), torch.as_tensor(euler(head_pose(scan_landmarks.numpy()))).to(codes)
    return towards(codes, wanted, space.codes, shown, turned)


def towards(codes: Tensor, wanted: Tensor, known: Tensor, shown: Tensor, held: Tensor) -> Tensor:
    """The shortest step to the wanted values of linear functions of the code, others held.

    Args:
        codes: [T, K]; wanted: [T, M]. known: [N, K] codes with their values: shown [N, M], which are to change,
            held [N, P], which are not.
    Returns: [T, K]; wanted values beyond the known range are cut to it.
    """
    slope, offset = _fit(known, shown)
    still, _ = _fit(known, held)
    unit, turn = shown.std(0).clamp_min(1e-6), held.std(0).clamp_min(1e-6)
    low, high = shown.amin(0) - BEYOND * unit, shown.amax(0) + BEYOND * unit
    gap = (torch.minimum(torch.maximum(wanted, low), high) - codes @ slope - offset) / unit
    gap = torch.cat([gap, gap.new_zeros(len(gap), held.shape[1])], 1)
    maps = torch.cat([slope / unit, POSE * still / turn], 1)  # [K, M + P]
    return codes + gap @ torch.linalg.solve(maps.t() @ maps + RIDGE * torch.eye(maps.shape[1]), maps.t())


def _fit(known: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression values = known @ slope + offset: [K, M], [M]."""
    middle, mean = known.mean(0), values.mean(0)
    x = known - middle
    slope = torch.linalg.solve(x.t() @ x + torch.eye(x.shape[1]), x.t() @ (values - mean))
    return slope, mean - middle @ slope
