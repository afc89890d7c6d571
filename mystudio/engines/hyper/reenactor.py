"""The reenactment module and the hypernetwork of HyperReenact (arXiv 2307.10797): maps -> changes of weights.

For each convolution of the generator the appearance map is modulated by the pose map, place by place (the paper's
equation 1: elementwise; its released code multiplies matrices). What comes out is reduced to a short block feature. A
head makes of it an offset for each pair of input and output channels: W becomes W (1 + delta), equally for all taps.
toRGB layers stay. The heads end at zero, so before training the generator is the base.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mystudio.engines.hyper.face_nets import GRID
from mystudio.stylegan2.generator import Generator
from mystudio.stylegan2.layers import SynthesisLayer

Shape = tuple[int, int]  # output and input channels of a convolution


def shapes_of(generator: Generator) -> list[Shape | None]:
    """Channels of each modulated layer in the order of ``Generator.layers``; None for toRGB, which stays."""
    found: list[Shape | None] = []
    for layer in generator.layers():
        shape = layer.weight.shape if isinstance(layer, SynthesisLayer) else None
        found.append((shape[0], shape[1]) if shape is not None else None)
    return found


class Block(nn.Module):
    """Appearance and pose maps -> block feature of one layer.

    Args: width: channels of the maps. numbers: of the feature.
    """

    def __init__(self, width: int, numbers: int):
        super().__init__()
        self.scale, self.shift = (nn.Conv2d(width, width, 1) for _ in range(2))
        self.first = nn.Conv2d(width, width // 2, 3, 2, 1)
        self.second = nn.Conv2d(width // 2, width // 2, 3, 2, 1)
        self.feature = nn.Linear(width // 2 * (-(-GRID // 4)) ** 2, numbers)

    def forward(self, look: Tensor, pose: Tensor) -> Tensor:
        """Maps [N, width, 7, 7] -> [N, numbers]."""
        x = modulated(look, self.scale(pose), self.shift(pose))
        x = F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2)
        return self.feature(F.leaky_relu(self.second(x), 0.2).flatten(1))


def modulated(look: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Spatially adaptive modulation: the look at unit variance, (1 + scale) look + shift at each place."""
    return F.instance_norm(look) * (1 + scale) + shift


class Head(nn.Module):
    """Block feature -> offsets for all pairs of channels; zero before training.

    Args: shape: output and input channels. numbers: of a feature. rank: numbers between, for each input channel.
    """

    def __init__(self, shape: Shape, numbers: int, rank: int):
        super().__init__()
        self.inputs = shape[1]
        self.spread = nn.Linear(numbers, shape[1] * rank)
        self.offsets = nn.Linear(rank, shape[0])
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """[N, numbers] -> delta [N, C', C]."""
        rows = self.spread(F.leaky_relu(feature, 0.2)).unflatten(1, (self.inputs, -1))
        return self.offsets(F.leaky_relu(rows, 0.2)).mT


class Reenactor(nn.Module):
    """Maps of appearance and pose -> block features -> weight deltas.

    Args:
        shapes: of the generator's layers (``shapes_of``). look, pose: channels of the two maps.
        width: channels after the projections. numbers: of a block feature. rank: see ``Head``.
    """

    def __init__(
        self, shapes: Sequence[Shape | None], look: int, pose: int, width: int = 256, numbers: int = 128, rank: int = 48
    ):
        super().__init__()
        self.layers = len(shapes)
        self.changed = [k for k, shape in enumerate(shapes) if shape is not None]
        self.look, self.pose = nn.Conv2d(look, width, 1), nn.Conv2d(pose, width, 1)
        self.blocks = nn.ModuleList(Block(width, numbers) for _ in self.changed)
        known = [shape for shape in shapes if shape is not None]
        widest = max(min(shape) for shape in known)
        #: the head of each changed layer: layers of the widest channels share the first
        self.head_of = [0 if shape == (widest, widest) else 1 + k for k, shape in enumerate(known)]
        heads = {0: Head((widest, widest), numbers, rank)}
        heads |= {n: Head(shape, numbers, rank) for n, shape in zip(self.head_of, known) if n}
        self.heads = nn.ModuleDict({str(n): head for n, head in heads.items()})

    def features(self, look: Tensor, pose: Tensor) -> Tensor:
        """Maps [N or 1, look, 7, 7] and [N, pose, 7, 7] -> block features [N, B, numbers], one row a convolution."""
        look, pose = self.look(look), self.pose(pose)
        look = look.expand(len(pose), -1, -1, -1)
        return torch.stack([block(look, pose) for block in self.blocks], 1)

    def deltas(self, features: Tensor) -> tuple[Tensor | None, ...]:
        """Block features [N, B, numbers] -> ``Styles.weight_deltas``."""
        found: list[Tensor | None] = [None] * self.layers
        for k, (layer, head) in enumerate(zip(self.changed, self.head_of)):
            found[layer] = self.heads[str(head)](features[:, k])
        return tuple(found)
