"""ArcFace's network (arXiv 1801.07698) with weights of the user, in place of the appearance network, as in the paper.

The form is IR-SE-50 by the names of InsightFace_Pytorch, which e4e and HyperReenact use (``model_ir_se50.pth``). The
file is read as plain tensors; no code in it runs.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mystudio.engines.hyper.face_nets import seen
from mystudio.errors import BadCheckpoint, reason
from mystudio.stylegan2.arrays import TensorRef
from mystudio.stylegan2.torchfile import open_torch

STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels and units; each stage halves the size once
SQUEEZE = 16


class _Squeeze(nn.Module):
    """Squeeze and excitation: each channel is scaled by what its mean over pixels says."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(width // SQUEEZE, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class _Unit(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        if inputs == width:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, width, 3, 1, 1, bias=False),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            _Squeeze(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class ArcFace(nn.Module):
    """Photo -> map [N, 512, 7, 7] and embedding [N, 512] of the person."""

    channels = STAGES[-1][0]

    def __init__(self):
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        units, inputs = list[nn.Module](), 64
        for width, count in STAGES:
            units += [_Unit(width if k else inputs, width, 1 if k else 2) for k in range(count)]
            inputs = width
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )
        self.eval()

    def train(self, mode: bool = True) -> ArcFace:
        """Its statistics stay as they are: the network is never trained."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Crops [N, 3, H, H] in [-1, 1] -> maps [N, 512, 7, 7]."""
        return self.body(self.input_layer(seen(images)))

    def embed(self, images: Tensor) -> Tensor:
        """Crops [N, 3, H, H] -> unit vectors [N, 512]."""
        return F.normalize(self.output_layer(self(images)), dim=1)


def load_arcface(path: Path) -> ArcFace:
    """Read the weights of a user: ``.pth`` or ``.safetensors``, with or without a prefix before every name.

    Raises: UnsafeCheckpoint: the file asks for more than data. BadCheckpoint: it is missing, damaged or another one.
    """
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _tensors(open_torch(path))
        first = next(name for name in state if name.endswith("input_layer.0.weight"))
        prefix = first.removesuffix("input_layer.0.weight")
        with torch.device("meta"):
            net = ArcFace()
        found = {name.removeprefix(prefix): value.float() for name, value in state.items() if name.startswith(prefix)}
        counted = {name: torch.zeros((), dtype=torch.int64) for name in net.state_dict() if name.endswith("_tracked")}
        net.load_state_dict({**found, **counted}, assign=True)
    except (StopIteration, SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise BadCheckpoint(
            f"expected the weights of ArcFace's IR-SE-50 (model_ir_se50.pth), got a missing, damaged or other file: "
            f"{path} ({reason(error)}); leave faces.arcface empty for the engine's own network"
        ) from error
    if not all(bool(value.isfinite().all()) for value in net.state_dict().values()):
        raise BadCheckpoint(f"expected finite weights, got NaN or infinity: {path}; fetch the file again")
    return net.eval().requires_grad_(False)


def _tensors(content: Any) -> dict[str, Tensor]:
    """The named tensors of a torch file: a state dictionary, or one inside under ``state_dict``."""
    if not isinstance(content, dict):
        raise ValueError(f"no dictionary but {type(content).__name__}")
    content = content.get("state_dict", content)
    return {
        name: value.load()
        for name, value in content.items()
        if isinstance(value, TensorRef) and not name.endswith("_tracked")
    }
