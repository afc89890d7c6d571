"""The network: a source's picture -> identity code in W+; a driver's signal -> deformation code -> offsets in S.

The identity code comes from the source alone, so it is the same for every motion. The deformation is 64 numbers a
frame. Attention over the source's 8 x 8 map turns them into offsets of the styles of the first layers. Without bias or
other constants, deformation 0 is exactly no offset: then the identity code is drawn alone, which is the neutral face.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mystudio.engines.hybrid.pyramid import Pyramid, PyramidShape
from mystudio.engines.hybrid.signals import POINTS, SIZE
from mystudio.stylegan2.generator import Generator
from mystudio.types import Styles

MAP = 8  # cells a side of the source's map
BANK = 256  # deformation codes that are remembered from training


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of the network."""

    resolution: int = 128  # px of the source's picture that the encoder reads
    encoder: PyramidShape = field(default_factory=PyramidShape)  # [model.encoder]
    bottleneck: int = 64  # numbers of a deformation code (the paper's predecessor: 35)
    width: int = 192  # of the hidden layers that read a driver's signal
    attention: int = 128  # numbers of a query, key or value
    heads: int = 4  # of the attention
    until: int = 64  # px of the last layers whose styles a deformation may move, from 4 px on (32 px lose half of lids)
    pixels: bool = True  # read the driver's mouth and eye pixels too; false = keypoints alone, for ablation


@dataclass(frozen=True)
class Source:
    """What the network knows of N sources."""

    codes: Tensor  # [N, L, D] identity codes in W+
    cells: Tensor  # [N, 64, C] the 8 x 8 map

    def rows(self, rows: Tensor | slice) -> Source:
        """Some of them."""
        return Source(self.codes[rows], self.cells[rows])


def moved_layers(generator: Generator, until: int) -> list[int]:
    """Indices in ``Generator.layers`` of the layers from 4 px to ``until`` px; images and features alike."""
    found, k = list[int](), 0
    for resolution, block in zip(generator.synthesis.resolutions, generator.synthesis.blocks()):
        count = len(block.layers())
        found += range(k, k + count) if resolution <= until else ()
        k += count
    return found


def affine_names(generator: Generator, layers: list[int]) -> list[str]:
    """Names of the affine modules of some modulated layers."""
    names = {id(module): name for name, module in generator.named_modules()}
    return [f"{names[id(generator.layers()[k])]}.affine" for k in layers]


class Deformation(nn.Module):
    """A driver's signal -> deformation code; code and the source's map -> offsets of styles.

    Args: generator: the base, whose styles are moved. settings: sizes.
    """

    bank: Tensor  # [BANK, B] codes of drivers that training saw last, for random motions

    def __init__(self, generator: Generator, settings: ModelSettings):
        super().__init__()
        s = settings
        self.layers, self.heads = moved_layers(generator, s.until), s.heads
        self.points = nn.Linear(POINTS, s.width)
        self.patches = nn.Linear(SIZE - POINTS, s.width) if s.pixels else None
        self.hidden = nn.Linear(s.width, s.width)
        self.code = nn.Linear(s.width, s.bottleneck, bias=False)
        count = len(self.layers)
        self.query = nn.Parameter(torch.randn(count, s.attention))
        self.turn = nn.Linear(s.bottleneck, count * s.attention, bias=False)
        channels = s.encoder.channels[3]
        self.key, self.value = nn.Linear(channels, s.attention), nn.Linear(channels, s.attention)
        self.place = nn.Parameter(0.1 * torch.randn(MAP * MAP, s.attention))
        self.move = nn.Linear(s.bottleneck, count * s.attention, bias=False)
        self.gate = nn.Linear(s.attention, s.attention)
        widths = [generator.get_parameter(f"{name}.weight").shape[0] for name in affine_names(generator, self.layers)]
        self.out = nn.ModuleList(nn.Linear(s.attention, width, bias=False) for width in widths)
        for k, width in zip(self.layers, widths):
            self.register_buffer(f"unit{k}", torch.ones(width))
        self.register_buffer("bank", torch.zeros(BANK, s.bottleneck))

    def unit(self, layer: int) -> Tensor:
        """Standard deviation [C] of a layer's style among samples of the base."""
        return self.get_buffer(f"unit{layer}")

    def read(self, signals: Tensor) -> Tensor:
        """Signals [N, SIZE] -> deformation codes [N, B]; a signal of zeros has code 0."""
        both = torch.cat([signals, signals.new_zeros(1, SIZE)])
        x = self.points(both[:, :POINTS])
        if self.patches is not None:
            x = x + self.patches(both[:, POINTS:])
        x = self.hidden(F.leaky_relu(x, 0.2))
        code = self.code(F.leaky_relu(x, 0.2))
        return code[:-1] - code[-1:]

    def forward(self, codes: Tensor, cells: Tensor) -> tuple[Tensor, ...]:
        """Codes [N, B], cells [N, 64, C] of the sources -> offsets of the moved layers' styles, [N, C] each."""
        n, layers, size = len(codes), *self.query.shape
        query = self.query + self.turn(codes).view(n, layers, size)
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (query, self.key(cells) + self.place, self.value(cells))
        )
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # [N, layers, size]
        moved = self.move(codes).view(n, layers, size) * (1 + self.gate(found))
        return tuple(self.unit(k) * out(moved[:, i]) for i, (k, out) in enumerate(zip(self.layers, self.out)))

    def moved(self, styles: Styles, offsets: tuple[Tensor, ...]) -> Styles:
        """Styles with the offsets of the moved layers added."""
        vectors = list(styles.vectors)
        for k, offset in zip(self.layers, offsets):
            vectors[k] = vectors[k] + offset
        return replace(styles, vectors=tuple(vectors))

    @torch.no_grad()
    def remember(self, codes: Tensor, step: int) -> None:
        """Put the codes [N, B] of a training step into the bank, in place of the oldest ones."""
        self.bank[(step * len(codes) + torch.arange(len(codes))) % BANK] = codes.detach()


class Hybrid(nn.Module):
    """Identity encoder and deformation for one base generator.

    Args: generator: the base, whose sizes it takes. settings: sizes.
    """

    mean: Tensor  # [L, D] of W+
    spread: Tensor  # [L, D] standard deviation of W; codes are in this unit

    def __init__(self, generator: Generator, settings: ModelSettings = ModelSettings()):
        super().__init__()
        self.settings = settings
        self.encoder = Pyramid(settings.resolution, generator.num_ws, generator.w_dim, settings.encoder)
        self.deformation = Deformation(generator, settings)
        self.register_buffer("mean", torch.zeros(generator.num_ws, generator.w_dim))
        self.register_buffer("spread", torch.ones(generator.num_ws, generator.w_dim))

    @torch.no_grad()
    def measure(self, generator: Generator, count: int = 4096, seed: int = 0) -> None:
        """Set the statistics of W and of the styles from samples of the base."""
        z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(seed)).to(self.mean)
        w = generator.mapping(z)
        self.mean.copy_(w.mean(0).expand_as(self.mean))
        self.spread.copy_(w.std(0).clamp_min(1e-4).expand_as(self.spread))
        vectors = generator.styles(generator.broadcast(w)).vectors
        for k in self.deformation.layers:
            self.deformation.unit(k).copy_(vectors[k].std(0).clamp_min(1e-4))

    def identify(self, images: Tensor, active: int | None = None) -> Source:
        """Identity codes and maps of sources [N, 3, H, H] in [-1, 1]; ``active``: see ``Pyramid``."""
        size = self.settings.resolution
        if images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        codes, coarse = self.encoder(images, active)
        if coarse.shape[-1] != MAP:
            coarse = F.adaptive_avg_pool2d(coarse, MAP)
        return Source(self.mean + self.spread * codes, coarse.flatten(2).transpose(1, 2))

    def styles(self, generator: Generator, source: Source, codes: Tensor) -> Styles:
        """Styles of N sources with the deformation codes [N, B]."""
        return self.deformation.moved(generator.styles(source.codes), self.deformation(codes, source.cells))
