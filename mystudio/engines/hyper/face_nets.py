"""Two small networks that turn a photo's appearance and a driver's motion into maps of 7 x 7.

The appearance network sees the photo. The pose network sees no pixels of the driver: it sees the driver's keypoints,
drawn on one neutral face that is the same for everybody. So a driver's look cannot pass, and live driving needs no more
than landmarks (HyperReenact, arXiv 2307.10797, takes the maps of ArcFace and DECA, both of pixels).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mystudio.motion.retarget import keypoints_of, part_scale, reference_face
from selfscan.face.landmarks import KEYPOINT_PARTS, KEYPOINTS

SIDE = 112  # px of the appearance network's input
EXPRESSION, POSE = 53, 6  # numbers that actors play (``oneshot.data``)
GRID = 7  # cells of a map across
VIEW = (0.125, 0.125, 0.75)  # left, top and side of what the appearance network sees, in crops: the head with its hair
DRAWN = 56  # px of a drawing of keypoints
SPREAD = 1.2  # px: standard deviation of a drawn point
UNIT = 0.05  # of ``retarget.relative_motion``, in crops
DEPTH_GAIN = 10.0  # depth in a drawing: 0.1 crops count as 1


class Residual(nn.Module):
    """x + two 3x3 convolutions with group normalisation."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (_conv(width, width, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        return x + self.second(self.first(x))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(min(8, outputs // 4), outputs), nn.LeakyReLU(0.2)
    )


def _trunk(inputs: int, widths: list[int], blocks: int) -> nn.Sequential:
    """Convolutions that halve the size, each followed by a residual block; ``blocks`` more at the end."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [_conv(inputs, width, 2), Residual(width)]
        inputs = width
    layers += [Residual(inputs) for _ in range(blocks)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


class AppearanceNet(nn.Module):
    """Photo -> map and embedding of the person.

    Args:
        width: channels of the map; 256 gives 2 million weights. numbers: of the embedding.
    """

    def __init__(self, width: int = 256, numbers: int = 256):
        super().__init__()
        self.channels = width
        self.trunk = _trunk(3, [width // 8, width // 4, width // 2, width], 0)
        self.look = nn.Linear(width, numbers)

    def forward(self, images: Tensor) -> Tensor:
        """Crops [N, 3, H, H] in [-1, 1] -> maps [N, width, 7, 7]."""
        return self.trunk(seen(images).contiguous(memory_format=torch.channels_last))

    def embed(self, images: Tensor) -> Tensor:
        """Crops [N, 3, H, H] -> unit vectors [N, numbers], near for pictures of one person."""
        return F.normalize(self.look(self(images).mean((2, 3))), dim=1)


@dataclass(frozen=True)
class Pose:
    """What the pose network reads."""

    expression: Tensor  # [N, 53] as actors play it
    pose: Tensor  # [N, 6] as actors hold the head: radians and centimetres
    points: Tensor  # [N, 66, 3] the relative motion itself, times 20


class PoseNet(nn.Module):
    """Relative motion -> map, and what it means.

    Args: width: channels of the map; 256 gives 2 million weights.
    """

    def __init__(self, width: int = 256):
        super().__init__()
        self.channels = width
        self.trunk = _trunk(2 * len(KEYPOINT_PARTS), [width // 4, width // 2, width], 0)
        self.head = nn.Linear(width * GRID**2 // 16, EXPRESSION + POSE + 3 * len(KEYPOINTS))
        self.narrow = nn.Conv2d(width, width // 16, 1)

    def forward(self, motion: Tensor) -> Tensor:
        """Relative motion [N, 66, 3] -> maps [N, width, 7, 7]."""
        return self.trunk(drawing(motion).contiguous(memory_format=torch.channels_last))

    def read(self, motion: Tensor) -> Pose:
        """Expression, pose and points of motions [N, 66, 3]."""
        found = self.head(self.narrow(self(motion)).flatten(1))
        expression, pose, points = found.split([EXPRESSION, POSE, 3 * len(KEYPOINTS)], 1)
        return Pose(expression, pose, points.unflatten(1, (-1, 3)))


def seen(images: Tensor) -> Tensor:
    """What the appearance network sees of crops [N, 3, H, H]: VIEW at [N, 3, 112, 112]."""
    left, top, side = (round(share * images.shape[-1]) for share in VIEW)
    part = images[..., top : top + side, left : left + side]
    return F.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=side > SIDE, align_corners=False)


def drawing(motion: Tensor) -> Tensor:
    """Draw relative motion [N, 66, 3] on the neutral face: [N, 2 parts, 56, 56], for each part points and depth.

    A point is a Gaussian of height 1; where points overlap, they add up. Depth is the same with the change of z.
    """
    face = keypoints_of(reference_face()).to(motion)
    size = part_scale(face)[:, None]
    points = face + motion * (size / UNIT)
    cells = (torch.arange(DRAWN, device=motion.device, dtype=motion.dtype) + 0.5) / DRAWN
    across, down = (
        torch.exp(-0.5 * ((cells - points[..., axis, None]) * (DRAWN / SPREAD)).square()) for axis in (0, 1)
    )
    depth = DEPTH_GAIN * (points[..., 2] - face[:, 2])
    parts, first = list[Tensor](), 0
    for part in KEYPOINT_PARTS.values():
        rows = slice(first, first + len(part))
        weighted = torch.stack([torch.ones_like(depth[:, rows]), depth[:, rows]], 1)
        parts.append(torch.einsum("nck,nky,nkx->ncyx", weighted, down[:, rows], across[:, rows]))
        first = rows.stop
    return torch.cat(parts, 1)
