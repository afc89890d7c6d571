"""Start codes that carry the driver's expression.

A regressor that never saw this driver misses what is small in the picture: blinks, the corners of the mouth. The scan
knows which codes go with which expression; the shortest step in code space that brings the expression to the driver's,
and leaves the pose, follows in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion.retarget import MEASURES, measures
from selfscan.face.headpose import euler, head_pose

RIDGE = 0.3  # of the step, against a squared miss of one standard deviation of the scan
POSE = 3.0  # weight of leaving the pose, in the same unit
BEYOND = 0.1  # standard deviations that an expression may leave the scan's range by


class StartCodes:
    """What the driver does -> codes, without any search: the regressor's, moved to the driver's expression.

    Args:
        regressor: the avatar's. space: its anchors. scan_landmarks: [N, 478, 3] of the scan images, in the anchors'
            order. match: 0..1, share of the step to the expression that is made.
    """

    def __init__(self, regressor: Regressor, space: AnchorSpace, scan_landmarks: Tensor, match: float):
        self._regressor, self._match = regressor, match
        self._ties = ExpressionMap.of_scan(space, scan_landmarks) if match else None

    def __call__(self, change: Tensor, wanted: Tensor | None) -> Tensor:
        """Codes [T, K] for relative motion [T, 66, 3] and expression [T, M] (``Motion.change``, ``.measures``)."""
        codes = self._regressor.code(change)
        if self._ties is None or wanted is None:
            return codes
        return codes.lerp(self._ties.move(codes, wanted), self._match)


@dataclass(frozen=True)
class ExpressionMap:
    """How linear functions of the code are tied to it: what is to change, with its range, and what is held."""

    slope: Tensor  # [K, M] of what is to change
    offset: Tensor  # [M]
    unit: Tensor  # [M] standard deviation over the known codes
    low: Tensor  # [M] the known range
    high: Tensor  # [M]
    step: Tensor  # [M + P, K] shortest step for a miss of one standard deviation

    @classmethod
    def of(cls, known: Tensor, shown: Tensor, held: Tensor) -> ExpressionMap:
        """Learn from known codes [N, K] with what is to change, shown [N, M], and what is not, held [N, P]."""
        slope, offset = _fit(known, shown)
        still, _ = _fit(known, held)
        unit, turn = shown.std(0).clamp_min(1e-6), held.std(0).clamp_min(1e-6)
        low, high = shown.amin(0) - BEYOND * unit, shown.amax(0) + BEYOND * unit
        maps = torch.cat([slope / unit, POSE * still / turn], 1)  # [K, M + P]
        step = torch.linalg.solve(maps.t() @ maps + RIDGE * torch.eye(maps.shape[1]), maps.t())
        return cls(slope, offset, unit, low, high, step)

    @classmethod
    def of_scan(cls, space: AnchorSpace, scan_landmarks: Tensor) -> ExpressionMap:
        """Expression is to change, the pose is held; known are the anchors with their images' landmarks [N, 478, 3]."""
        return cls.of(space.codes, measures(scan_landmarks), _angles(scan_landmarks).to(space.codes))

    def move(self, codes: Tensor, wanted: Tensor) -> Tensor:
        """Codes [T, K] by the shortest step to the wanted values [T, M], which are cut to the known range."""
        gap = (torch.minimum(torch.maximum(wanted, self.low), self.high) - codes @ self.slope - self.offset) / self.unit
        return codes + torch.cat([gap, gap.new_zeros(len(gap), len(self.step) - gap.shape[1])], 1) @ self.step


def held(space: AnchorSpace, scan_landmarks: Tensor) -> Tensor:
    """How a code turns the head (yaw, pitch, roll) and opens the eyes, [K, 4], in deviations of the scan [N, 478, 3].

    Keypoints of another's face are off by a constant, which a turn and narrower eyes explain best; start codes have
    both from what is measured against the driver's own neutral face.
    """
    eyes = measures(scan_landmarks)[:, MEASURES.index("eyes_open")]
    known = torch.cat([_angles(scan_landmarks), eyes[:, None]], 1).to(space.codes)
    return _fit(space.codes, known / known.std(0).clamp_min(1e-6))[0]


def _angles(landmarks: Tensor) -> Tensor:
    return torch.as_tensor(euler(head_pose(landmarks.numpy())))


def _fit(known: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression values = known @ slope + offset: [K, M], [M]."""
    middle, mean = known.mean(0), values.mean(0)
    x = known - middle
    slope = torch.linalg.solve(x.t() @ x + torch.eye(x.shape[1]), x.t() @ (values - mean))
    return slope, mean - middle @ slope
