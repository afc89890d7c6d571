"""The inversion encoder of a base generator: (appearance, motion) -> w.

It has two inputs. Appearance comes from an image network and is averaged over all images, so that they share one
identity. Motion is the image's normalised keypoints relative to the person's neutral face. Landmarks mean the same on
generated and on real images, and pixels do not; so w is a smooth function of motion.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mystudio.bases import Base
from mystudio.errors import BadArtifact, BadCheckpoint, reason
from mystudio.motion.retarget import relative_motion
from selfscan.face.landmarks import KEYPOINTS, LID_PAIRS

MOTION_GAIN = 20.0  # scales relative motion to about unit variance

WHOLE_WINK = 0.045  # relative motion of a whole wink among actors (``wink_of``)
WINK_LENGTH = 0.5  # least length in W of a whole wink, in standard deviations of W; a blink's is about 0.8

INPUT = 64  # px: a small image is enough for the appearance branch, because tuning adds the detail


class Encoder(nn.Module):
    """(appearance, motion) -> w.

    Args:
        w_dim: D of the base. mean, spread: [D] statistics of the base's W.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, w_dim: int, width: int = 256):
        super().__init__()
        channels = [3, 32, 64, 128, 192, width]
        self.trunk = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(channels, channels[1:]))
        self.look = nn.Linear(width * (INPUT // 32) ** 2, width)
        self.motion = nn.Sequential(nn.Linear(3 * len(KEYPOINTS), width), nn.LeakyReLU(0.2), nn.Linear(width, width))
        self.head = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, w_dim),
        )
        self.register_buffer("mean", torch.zeros(w_dim))
        self.register_buffer("spread", torch.ones(w_dim))
        self.to(memory_format=torch.channels_last)

    def appearance(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] in [-1, 1] -> [N, width]; average it over a person's images."""
        x = F.interpolate(images, (INPUT, INPUT), mode="bilinear", antialias=True, align_corners=False)
        x = x.contiguous(memory_format=torch.channels_last)
        for conv in self.trunk:
            x = F.leaky_relu(conv(x), 0.2)
        return self.look(x.flatten(1))

    def forward(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """appearance [N, width], motion [N, 66, 3] (``relative_motion``) -> w [N, D]."""
        both = torch.cat([appearance, self.motion(MOTION_GAIN * motion.flatten(1))], 1)
        return self.mean + self.spread * self.head(both)


def load_encoder(path: Path) -> Encoder:
    """Read an encoder that ``base train-encoder`` wrote (safetensors).

    Raises: BadCheckpoint: the file is missing, damaged, of another shape, or holds numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = {name: value.float() for name, value in load_file(path).items()}
        with torch.device("meta"):  # on "meta" shapes are compared before memory is allocated
            encoder = Encoder(len(state["mean"]), len(state["look.bias"]))
        encoder.load_state_dict(state, assign=True)
        encoder = encoder.to(memory_format=torch.channels_last)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise BadCheckpoint(
            f"expected an encoder as safetensors, got a missing, damaged or other file: {path} "
            f"({reason(error)}); train it again with `mystudio base train-encoder`"
        ) from error
    if not all(value.isfinite().all() for value in encoder.state_dict().values()):
        raise BadCheckpoint(f"expected finite weights, got NaN or infinity: {path}; train the encoder again")
    return encoder.eval().requires_grad_(False)


def wink_of(motion: Tensor) -> Tensor:
    """How far one eye closes further than the other in relative motion [..., 66, 3]: [..., 1], linear.

    Returns: 1 = a whole wink of the person's left eye, -1 = of the right one.
    """
    return motion.flatten(-2) @ _lids().to(motion)


@lru_cache(maxsize=1)
def _lids() -> Tensor:
    """The linear map of ``wink_of``, [198, 1]."""
    found = torch.zeros(len(KEYPOINTS), 3)
    for sign, pairs in zip((-1, 1), LID_PAIRS):  # right, left; y points down, so an upper lid that closes moves by +y
        for points, way in zip(zip(*pairs), (sign, -sign)):
            rows = [KEYPOINTS.index(point) for point in points if point in KEYPOINTS]
            found[rows, 1] = way / 2 / WHOLE_WINK
    return found.view(-1, 1)


def wink_direction(encoder: Encoder, look: Tensor) -> Tensor:
    """What a whole wink adds to w: [1, D] for ``wink_of``, of a person with appearance [1, width].

    An encoder whose base shows no winks gives those of both eyes nearly the same w, and no tuning could tell them
    apart. So its own response is lengthened to ``WINK_LENGTH``; one that is as long stays.
    """
    push = torch.linalg.pinv(_lids()).to(look)
    w = encoder(look.expand(2, -1), torch.cat([push, -push]).view(2, len(KEYPOINTS), 3))
    response = (w[:1] - w[1:]) / 2
    length = (response / encoder.spread).square().mean().sqrt().clamp_min(1e-6)
    return response * (WINK_LENGTH / length - 1).clamp_min(0)


def encode(encoder: Encoder, images: Tensor, landmarks: Tensor, neutral: Tensor, winks: bool = False) -> Tensor:
    """Anchors from the encoder alone: all share one appearance, each has its image's motion.

    Args:
        images: [N, 3, H, W] in [-1, 1]. landmarks: [N, 478, 3]; neutral: [478, 3], in crops.
        winks: lengthen the response to winks (``wink_direction``).
    Returns: w [N, D].
    """
    look = torch.cat([encoder.appearance(part) for part in images.split(32)]).mean(0, keepdim=True)
    motion = relative_motion(landmarks, neutral)
    w = encoder(look.expand(len(images), -1), motion)
    return w + wink_of(motion) @ wink_direction(encoder, look) if winks else w
