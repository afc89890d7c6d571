"""What the deformation code is read from: the driver's keypoints, and grey pictures of mouth and eyes.

A ``Performance`` holds no whole pictures, so the driver's pixels come from its mouth and eye patches. Their mean and
contrast are removed, because both tell the driver's skin and light, and not the motion.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

import torch
from torch import Tensor

from mystudio.base.encoder import MOTION_GAIN
from mystudio.motion.retarget import relative_motion
from selfscan.face import patches
from selfscan.face.landmarks import KEYPOINTS

POINTS = 3 * len(KEYPOINTS)  # numbers of a signal that are keypoints; they come first
MOUTH = patches.MOUTH_SIZE[0] * patches.MOUTH_SIZE[1]
EYE = patches.IRIS_SIZE[0] * patches.IRIS_SIZE[1]
SIZE = POINTS + MOUTH + 2 * EYE
_LEAST = 0.02  # contrast below which a patch counts as plain, in [-1, 1]


def signal(change: Tensor, mouth: Tensor | None = None, irises: Tensor | None = None) -> Tensor:
    """The signal [N, SIZE] of N frames.

    Args:
        change: [N, 66, 3] keypoints relative to the driver's neutral face (``relative_motion``).
        mouth: [N, 3, 24, 32], irises: [N, 2, 3, 16, 32] in [-1, 1]; None = no pixels, which are zeros.
    """
    points = MOTION_GAIN * change.flatten(1)
    if mouth is None or irises is None:
        return torch.cat([points, points.new_zeros(len(points), SIZE - POINTS)], 1)
    return torch.cat([points, _grey(mouth), _grey(irises[:, 0]), _grey(irises[:, 1])], 1)


def signal_of(images: Tensor, landmarks: Tensor, neutral: Tensor) -> Tensor:
    """The signal [N, SIZE] of pictures; differentiable in both, but for where the patches are cut.

    Args: images: [N, 3, H, W] in [-1, 1]. landmarks: [N, 478, 3], neutral: [478, 3] or [N, 478, 3], in crops.
    """
    whole = [neutral] * len(images) if neutral.ndim == 2 else list(neutral)
    change = torch.stack([relative_motion(m, n) for m, n in zip(landmarks, whole)])
    return signal(change, *patches.mouth_and_irises(images, landmarks.detach()))


def without_pixels(signals: Tensor, where: Tensor) -> Tensor:
    """Signals [N, SIZE] whose pixels are zeros in the rows [N] bool."""
    pixels = torch.arange(SIZE, device=signals.device) >= POINTS
    return signals.masked_fill(where[:, None] & pixels, 0.0)


def _grey(patch: Tensor) -> Tensor:
    """Patches [N, 3, h, w] -> grey [N, h w] of zero mean and unit contrast, scaled to the size of keypoints."""
    grey = patch.mean(1).flatten(1)
    grey = grey - grey.mean(1, keepdim=True)
    return 0.3 * grey / grey.square().mean(1, keepdim=True).sqrt().clamp_min(_LEAST)
