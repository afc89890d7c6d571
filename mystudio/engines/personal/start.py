"""Start codes that show the driver's expression.

The regressor was not trained on the driver and misses small details: blinks and the corners of the mouth.
The scan gives codes together with expressions. A linear map learned from them yields, in closed form, the shortest
step in code space that reaches the driver's expression and keeps the pose.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion.retarget import MEASURES, measures
from selfscan.face.headpose import euler, head_pose

RIDGE = 0.3  # weight of the step's squared length; a miss of one standard deviation of the scan has weight 1
POSE = 3.0  # weight of a change of pose, in the same unit
BEYOND = 0.1  # standard deviations by which an expression may exceed the range of the scan


class StartCodes:
    """Codes for the driver's motion without optimisation: the regressor's codes, moved to the driver's expression.

    Args:
        regressor: of the avatar. space: its anchor space. scan_landmarks: [N, 478, 3] of the scan images, in the order
            of the anchors. match: 0..1, share of the step to the driver's expression.
    """

    def __init__(self, regressor: Regressor, space: AnchorSpace, scan_landmarks: Tensor, match: float):
        self._regressor, self._match = regressor, match
        self._expressions = ExpressionMap.of_scan(space, scan_landmarks) if match else None

    def __call__(self, change: Tensor, wanted: Tensor | None) -> Tensor:
        """Codes [T, K] for relative motion [T, 66, 3] and expression [T, M] (``Motion.change``, ``.measures``)."""
        codes = self._regressor.code(change)
        if self._expressions is None or wanted is None:
            return codes
        return codes.lerp(self._expressions.move(codes, wanted), self._match)


@dataclass(frozen=True)
class ExpressionMap:
    """Linear map from code to expression (to be changed) and pose (to be kept), and the step that follows from it."""

    slope: Tensor  # [K, M] expression = code @ slope + offset
    offset: Tensor  # [M]
    unit: Tensor  # [M] standard deviation of each expression over the scan
    low: Tensor  # [M] least value of a wanted expression
    high: Tensor  # [M] greatest value of a wanted expression
    step: Tensor  # [M + P, K] shortest steps for a miss of one standard deviation

    @classmethod
    def of(cls, codes: Tensor, expression: Tensor, pose: Tensor) -> ExpressionMap:
        """Learn from codes [N, K] whose expression [N, M] and pose [N, P] are known."""
        slope, offset = _fit(codes, expression)
        turn, _ = _fit(codes, pose)
        unit, angle = expression.std(0).clamp_min(1e-6), pose.std(0).clamp_min(1e-6)
        low, high = expression.amin(0) - BEYOND * unit, expression.amax(0) + BEYOND * unit
        maps = torch.cat([slope / unit, POSE * turn / angle], 1)  # [K, M + P]
        step: Tensor = torch.linalg.solve(maps.t() @ maps + RIDGE * torch.eye(maps.shape[1]), maps.t())
        return cls(slope, offset, unit, low, high, step)

    @classmethod
    def of_scan(cls, space: AnchorSpace, scan_landmarks: Tensor) -> ExpressionMap:
        """Learn from the anchors and the landmarks [N, 478, 3] of their scan images."""
        return cls.of(space.codes, measures(scan_landmarks), _angles(scan_landmarks).to(space.codes))

    def move(self, codes: Tensor, wanted: Tensor) -> Tensor:
        """Codes [T, K] after the shortest step to the wanted expression [T, M], which is clamped to the range."""
        gap = (torch.minimum(torch.maximum(wanted, self.low), self.high) - codes @ self.slope - self.offset) / self.unit
        return codes + torch.cat([gap, gap.new_zeros(len(gap), len(self.step) - gap.shape[1])], 1) @ self.step


def pose_lid_map(space: AnchorSpace, scan_landmarks: Tensor) -> Tensor:
    """Linear map [K, 4] from code to yaw, pitch, roll and eye opening, in standard deviations over the scan.

    The solvers use it to keep head and lids near the start codes. Keypoints of another person's face differ from the
    avatar's by a constant, and without this term a turned head and narrowed eyes would explain that constant best.

    Args: scan_landmarks: [N, 478, 3] of the scan images, in the order of the anchors.
    """
    eyes = measures(scan_landmarks)[:, MEASURES.index("eyes_open")]
    values = torch.cat([_angles(scan_landmarks), eyes[:, None]], 1).to(space.codes)
    return _fit(space.codes, values / values.std(0).clamp_min(1e-6))[0]


def _angles(landmarks: Tensor) -> Tensor:
    """Yaw, pitch and roll [N, 3] of faces [N, 478, 3], in radians."""
    return torch.as_tensor(euler(head_pose(np.asarray(landmarks))))


def _fit(codes: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression values = codes @ slope + offset: slope [K, M], offset [M]."""
    middle, mean = codes.mean(0), values.mean(0)
    x = codes - middle
    slope: Tensor = torch.linalg.solve(x.t() @ x + torch.eye(x.shape[1]), x.t() @ (values - mean))
    return slope, mean - middle @ slope
