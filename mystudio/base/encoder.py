"""The inversion encoder of a base generator: (appearance, motion) -> w.

It has two inputs. Appearance comes from an image network and is averaged over all images, so that they share one
identity. Motion is the image's normalised keypoints relative to the person's neutral face. Landmarks mean the same on
generated and on real images, and pixels do not; so w is a smooth function of motion.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mystudio.bases import Base
from mystudio.errors import BadArtifact, BadCheckpoint, reason
from mystudio.motion.retarget import relative_motion
from selfscan.face.landmarks import KEYPOINTS

MOTION_GAIN = 20.0  # scales relative motion to about unit variance

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


def encoder_of(base: Base) -> tuple[Encoder, Path]:
    """The base's encoder and its file. Raises BadArtifact: it has none. BadCheckpoint."""
    path = base.companion("encoder")
    if path is None:
        raise BadArtifact(
            f"expected a base with an encoder, {base.name} has none; train one with `mystudio base train-encoder "
            f"{base.name}`"
        )
    return load_encoder(path), path


def encode(encoder: Encoder, images: Tensor, landmarks: Tensor, neutral: Tensor) -> Tensor:
    """Anchors from the encoder alone: all share one appearance, each has its image's motion.

    Args:
        images: [N, 3, H, W] in [-1, 1]. landmarks: [N, 478, 3]; neutral: [478, 3], in crops.
    Returns: w [N, D].
    """
    looks = torch.cat([encoder.appearance(part) for part in images.split(32)])
    return encoder(looks.mean(0, keepdim=True).expand(len(images), -1), relative_motion(landmarks, neutral))
