"""The networks of LPIPS (v0.1), built here; their weights come from files on this machine.

torchvision is not needed and nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfscan.errors import ModelMissing

BACKBONE_VARIABLE = "MYSTUDIO_LPIPS_BACKBONE"
TAPS = {"squeeze": (1, 4, 7, 9, 10, 11, 12), "alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
HUB_FILES = {
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
}


class Fire(nn.Module):
    """SqueezeNet's module: a convolution to few channels, then two side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def convolutions(kind: str) -> nn.Sequential:
    """The convolutions in torchvision's order: module i has the weights ``features.i``."""

    def conv(inputs, outputs, kernel, stride=1, padding=0):
        return [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU()]

    if kind == "squeeze":  # SqueezeNet 1.1
        pool = [nn.MaxPool2d(3, 2, ceil_mode=True)]
        return nn.Sequential(
            *conv(3, 64, 3, 2), *pool, Fire(64, 16, 64), Fire(128, 16, 64), *pool, Fire(128, 32, 128),
            Fire(256, 32, 128), *pool, Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256),
            Fire(512, 64, 256),
        )  # fmt: skip
    if kind == "alex":
        pool = [nn.MaxPool2d(3, 2)]
        return nn.Sequential(
            *conv(3, 64, 11, 4, 2), *pool, *conv(64, 192, 5, 1, 2), *pool, *conv(192, 384, 3, 1, 1),
            *conv(384, 256, 3, 1, 1), *conv(256, 256, 3, 1, 1),
        )  # fmt: skip
    modules, width = [], 3
    for outputs in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):  # VGG16, 0 = pool
        modules += conv(width, outputs, 3, 1, 1) if outputs else [nn.MaxPool2d(2, 2)]
        width = outputs or width
    return nn.Sequential(*modules)


class LpipsLayers(nn.Module):
    """Backbone features, unit length at each pixel, times sqrt(w_c / (H W)).

    Args:
        kind: "squeeze", "alex" or "vgg".
        backbone: file of torchvision's weights.
        heads: file of the LPIPS v0.1 channel weights w.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, kind: str, backbone: Path, heads: Path):
        super().__init__()
        self.taps = set(TAPS[kind])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))  # LPIPS's input scaling
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.features = convolutions(kind)
        self.features.load_state_dict(_read_backbone(backbone, self.features, kind))
        for k, weights in enumerate(_read_heads(heads, len(self.taps))):
            self.register_buffer(f"root{k}", weights.clamp(min=0).sqrt())

    def forward(self, x: Tensor) -> list[Tensor]:
        x = (x - self.shift) / self.scale
        parts = []
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self.taps:
                parts.append(weighted_unit(x.permute(0, 2, 3, 1), getattr(self, f"root{len(parts)}")))
        return parts


class _WeightedUnit(torch.autograd.Function):
    """f [N, h, w, c] normalised to unit length at each pixel, times root [c]; autograd would take twice as long."""

    @staticmethod
    def forward(ctx, f: Tensor, root: Tensor) -> Tensor:
        inverse = torch.linalg.vector_norm(f, dim=-1, keepdim=True).add_(1e-10).reciprocal_()
        unit = f * inverse
        ctx.save_for_backward(unit, inverse, root)
        return unit * root

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        unit, inverse, root = ctx.saved_tensors
        grad = grad * root
        along = (grad * unit).sum(-1, keepdim=True)
        return grad.sub_(unit * along).mul_(inverse), None


def weighted_unit(f: Tensor, root: Tensor) -> Tensor:
    """Features of unit length at each pixel, weighted, so that squared differences sum to a spatial mean.

    Args:
        f: [N, h, w, c].
        root: [c] square roots of the channel weights.

    Returns:
        [N, h, w, c], ``root_c f_c / (|f| sqrt(h w))``, differentiable (once) in f.
    """
    return _WeightedUnit.apply(f.to(root.dtype), root * (f.shape[1] * f.shape[2]) ** -0.5)


def hub_folder() -> Path:
    """Folder in which torch hub stores downloaded weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_backbone(kind: str, weights: str | Path | None) -> Path | None:
    """File of backbone weights: the named one, else MYSTUDIO_LPIPS_BACKBONE (squeeze), else torch hub's cache.

    Args:
        kind: "squeeze", "alex" or "vgg".
        weights: a path, or None.

    Returns:
        The file, or None if the cache has none.

    Raises:
        ModelMissing: the named file does not exist.
    """
    named = weights or (os.environ.get(BACKBONE_VARIABLE) if kind == "squeeze" else None)
    if named:
        if not Path(named).is_file():
            raise ModelMissing(f"LPIPS {kind} backbone: expected a file at {named}, found none; correct the path")
        return Path(named)
    cached = hub_folder() / HUB_FILES[kind]
    return cached if cached.is_file() else None


def find_heads(kind: str) -> Path | None:
    """File of the LPIPS v0.1 channel weights in the lpips package, found without importing it.

    Args:
        kind: "squeeze", "alex" or "vgg".

    Returns:
        The file, or None if the package is not installed.
    """
    package = importlib.util.find_spec("lpips")  # importing it would import torchvision
    path = Path(package.origin).parent / "weights" / "v0.1" / f"{kind}.pth" if package and package.origin else None
    return path if path and path.is_file() else None


@lru_cache
def _read_heads(path: Path, count: int) -> tuple[Tensor, ...]:
    """The channel weights [C] of each layer."""
    linear = torch.load(path, map_location="cpu", weights_only=True)
    return tuple(linear[f"lin{k}.model.1.weight"].flatten() for k in range(count))


def _read_backbone(path: Path, features: nn.Sequential, kind: str) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = {k.removeprefix("features."): v.float() for k, v in state.items() if k.startswith("features.")}
    except Exception as error:  # readers raise different types; the user needs one message
        raise ModelMissing(f"LPIPS {kind} backbone {path} cannot be read ({error}); copy it again") from error
    expected = {k: v.shape for k, v in features.state_dict().items()}
    if {k: v.shape for k, v in state.items()} != expected:
        raise ModelMissing(f"{path}: expected torchvision's {kind} weights ({len(expected)} tensors 'features.*')")
    if not all(v.isfinite().all() for v in state.values()):
        raise ModelMissing(f"{path} holds NaN or infinite weights: the file is damaged; copy it again")
    return state
