"""The solvers' data terms: keypoints, mouth and iris pixels of generated frames against those of the driver.

``Term`` names the terms of the objective that both solvers minimise; ``weighted_sum`` adds them up.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.motion import losses
from mystudio.motion.retarget import Motion, RetargetSettings, normalise, part_means
from selfscan.face import patches
from selfscan.face.facemesh import FaceMesh, crop_landmarks
from selfscan.face.landmarks import KEYPOINTS

POOL = 4  # px: side of the squares over which patches are averaged for Gauss-Newton's residuals
KEYPOINT_NUMBERS = 3 * len(KEYPOINTS)  # the output vector begins with so many numbers: x, y, z of each keypoint

Term = Literal["keypoint", "mouth", "iris", "prior", "pose_lid", "hull", "temporal", "delta", "sum"]
Terms = dict[Term, Tensor]  # value of each term for every frame, [B] each
Weights = Mapping[Term, float]  # ``problem.SolveSettings`` explains each one


@dataclass(frozen=True)
class Measured:
    """Measurements of B generated frames."""

    landmarks: Tensor  # [B, 478, 3] in crops
    keypoints: Tensor  # [B, 66, 3] normalised
    mouth: Tensor  # [B, 3, h, w]
    irises: Tensor  # [B, 2, 3, h, w]

    def to(self, device: torch.device) -> Measured:
        """The same on another device."""
        return Measured(*(getattr(self, f).to(device) for f in ("landmarks", "keypoints", "mouth", "irises")))


def weighted_sum(terms: Terms, weights: Weights) -> Tensor:
    """The objective of every frame [B]: its terms times their weights, added in the order of ``terms``."""
    return sum((weights[name] * term for name, term in terms.items()), torch.zeros(()))


def measure(mesh: FaceMesh, images: Tensor, shape: RetargetSettings) -> Measured:
    """Measure generated images [B, 3, H, W]; differentiable, except for where the patches are cut out."""
    landmarks, _ = crop_landmarks(mesh, images)
    mouth, irises = patches.mouth_and_irises(images, landmarks.detach())
    return Measured(landmarks, normalise(landmarks, shape.part_offsets, shape.depth), mouth, irises)


def data_terms(seen: Measured, motion: Motion, rows: Tensor) -> Terms:
    """PGR's keypoint, mouth-cavity and iris terms of frames ``rows``; each [B]."""
    return {
        "keypoint": losses.keypoint(seen.keypoints, motion.keypoints[rows], motion.weights),
        "mouth": losses.masked_pixels(seen.mouth, motion.mouth[rows], motion.mouth_mask[rows]),
        "iris": losses.masked_pixels(seen.irises, motion.irises[rows], motion.iris_mask[rows]),
    }


def pooled(patch: Tensor) -> Tensor:
    """Averages over POOL x POOL squares: [B, ..., c, h, w] -> [B, ..., c, h / 4, w / 4]."""
    return F.avg_pool2d(patch.flatten(0, -4), POOL).unflatten(0, patch.shape[:-3])


def output_vector(landmarks: Tensor, mouth: Tensor, irises: Tensor) -> Tensor:
    """The output vector y [B, M] of a frame: 66 keypoints, then the pooled patches. Residuals are linear in it."""
    return torch.cat(
        [normalise(landmarks, 1.0, 1.0).flatten(1), pooled(mouth).flatten(1), pooled(irises).flatten(1)], 1
    )


@dataclass(frozen=True)
class Residual:
    """r(y) = G (P y - target): linear in the output vector, and |r|^2 is the weighted sum of the data terms.

    Patches enter as averages over squares of ``POOL`` px, because finer detail does not depend on how a face moves.
    """

    points: Tensor  # [198, 198] P for the keypoints: it applies the share of part offsets and the depth
    gain: Tensor  # [T, M] diagonal of G
    target: Tensor  # [T, M]

    @classmethod
    def of(cls, motion: Motion, shape: RetargetSettings, weights: Weights) -> Residual:
        count = motion.keypoints.shape[1]
        eye = torch.eye(count * 3).view(-1, count, 3)
        points = _reshape_keypoints(eye, shape).flatten(1).t()
        k = 100 * (weights["keypoint"] * motion.weights / motion.weights.sum()).sqrt()
        gain = [k[:, None].expand(-1, 3).flatten().expand(len(motion), -1)]
        target = [motion.keypoints.flatten(1)]
        for patch, mask, weight in (
            (motion.mouth, motion.mouth_mask, weights["mouth"]),
            (motion.irises, motion.iris_mask, weights["iris"]),
        ):
            patch, mask = patch[:].float(), mask[:].float()
            small = pooled(mask.expand_as(patch))
            gain.append(((weight * small).sqrt() / small[0].numel() ** 0.5).flatten(1))
            target.append((pooled(patch * mask) / small.clamp_min(1e-3)).flatten(1))
        return cls(points, torch.cat(gain, 1), torch.cat(target, 1))

    def __call__(self, y: Tensor, rows: Tensor) -> Tensor:
        """Output vectors [B, M] of frames ``rows`` -> residuals [B, M]."""
        n = len(self.points)
        y = torch.cat([y[:, :n] @ self.points.t(), y[:, n:]], 1)
        return self.gain[rows] * (y - self.target[rows])

    def jacobian(self, dy: Tensor, rows: Tensor) -> Tensor:
        """dy/dcode [B, M, K] -> dr/dcode [B, M, K]."""
        n = len(self.points)
        dy = torch.cat([self.points @ dy[:, :n], dy[:, n:]], 1)
        return self.gain[rows][..., None] * dy


def _reshape_keypoints(points: Tensor, shape: RetargetSettings) -> Tensor:
    means = part_means(points)
    scale = torch.tensor([1.0, 1.0, shape.depth])
    return (points - means + shape.part_offsets * means) * scale
