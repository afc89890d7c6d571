"""What the solver compares: keypoints, mouth and iris pixels of a generated frame, beside the driver's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.motion import losses
from mystudio.motion.retarget import RetargetSettings, normalise
from mystudio.types import Motion
from selfscan.face import patches
from selfscan.face.facemesh import crop_landmarks

POOL = 4  # pixels of a patch are averaged in squares of this side for the short residuals of Gauss-Newton


@dataclass(frozen=True)
class Weights:
    """Weights of PGR's data terms (``solve.SolveSettings`` has their defaults)."""

    keypoint: float
    mouth: float
    iris: float


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


def measure(mesh, images: Tensor, shape: RetargetSettings) -> Measured:
    """Look at generated images [B, 3, H, W]; differentiable. Where patches sit is taken as given (no gradient)."""
    landmarks, _ = crop_landmarks(mesh, images)
    mouth, irises = patches.mouth_and_irises(images, landmarks.detach())
    return Measured(landmarks, normalise(landmarks, shape.part_offsets, shape.depth), mouth, irises)


def data_terms(seen: Measured, motion: Motion, rows) -> dict[str, Tensor]:
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
    """The short vector y [B, M] from which all residuals follow: 66 keypoints and the pooled patches."""
    return torch.cat(
        [normalise(landmarks, 1.0, 1.0).flatten(1), pooled(mouth).flatten(1), pooled(irises).flatten(1)], 1
    )


@dataclass(frozen=True)
class Residual:
    """r(y) = G (P y - target): linear in the output vector, with |r|^2 = the weighted sum of the data terms.

    Patches enter as averages over 4 x 4 squares (what is finer than that is not motion).
    """

    points: Tensor  # [198, 198] P of the keypoints: share of part offsets and depth
    gain: Tensor  # [T, M]
    target: Tensor  # [T, M]

    @classmethod
    def of(cls, motion: Motion, shape: RetargetSettings, weights: Weights) -> Residual:
        count = motion.keypoints.shape[1]
        eye = torch.eye(count * 3).view(-1, count, 3)
        points = _reshape_keypoints(eye, shape).flatten(1).t()
        k = 100 * (weights.keypoint * motion.weights / motion.weights.sum()).sqrt()
        gain = [k[:, None].expand(-1, 3).flatten().expand(len(motion), -1)]
        target = [motion.keypoints.flatten(1)]
        for patch, mask, weight in (
            (motion.mouth, motion.mouth_mask, weights.mouth),
            (motion.irises, motion.iris_mask, weights.iris),
        ):
            patch, mask = patch.float(), mask.float()
            small = pooled(mask.expand_as(patch))
            gain.append(((weight * small).sqrt() / small[0].numel() ** 0.5).flatten(1))
            target.append((pooled(patch * mask) / small.clamp_min(1e-3)).flatten(1))
        return cls(points, torch.cat(gain, 1), torch.cat(target, 1))

    def __call__(self, y: Tensor, rows) -> Tensor:
        """y [B, M] -> residuals [B, M]."""
        n = len(self.points)
        y = torch.cat([y[:, :n] @ self.points.t(), y[:, n:]], 1)
        return self.gain[rows] * (y - self.target[rows])

    def jacobian(self, dy: Tensor, rows) -> Tensor:
        """dy/dcode [B, M, K] -> dr/dcode [B, M, K]."""
        n = len(self.points)
        dy = torch.cat([self.points @ dy[:, :n], dy[:, n:]], 1)
        return self.gain[rows][..., None] * dy


def _reshape_keypoints(points: Tensor, shape: RetargetSettings) -> Tensor:
    from mystudio.motion.retarget import part_means

    means = part_means(points)
    scale = torch.tensor([1.0, 1.0, shape.depth])
    return (points - means + shape.part_offsets * means) * scale
