"""The StyleGAN2 generator (skip architecture) of any resolution and width, with the official parameter names.

Three steps can be called separately: ``mapping`` Z -> W, ``styles`` W+ -> S (StyleSpace, one vector a layer),
``synthesize`` S -> image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mystudio.stylegan2.layers import GAIN, FullyConnected, SynthesisLayer, ToRGB, drawn, fir_kernel, upsample_image
from mystudio.types import Styles


class Mapping(nn.Module):
    """Z -> W: second-moment normalisation and ``layers`` fully connected layers with learning-rate multiplier 0.01."""

    w_avg: Tensor  # [w_dim] mean of W, the target of truncation

    def __init__(self, z_dim: int, w_dim: int, layers: int = 8):
        super().__init__()
        for i in range(layers):
            fc = FullyConnected(z_dim if i == 0 else w_dim, w_dim, lr_multiplier=0.01, activation=True)
            self.add_module(f"fc{i}", fc)
        self.layers = layers
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """z [N, z_dim] -> w [N, w_dim]; ``truncation`` < 1 scales the distance of w from the mean."""
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for i in range(self.layers):
            x = getattr(self, f"fc{i}")(x)
        return x if truncation == 1.0 else self.w_avg.lerp(x, truncation)


class Block(nn.Module):
    """One resolution: conv0, conv1, and toRGB, which is added to the upsampled skip image.

    conv0 doubles the size; the block of 4 px has none.
    """

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int):
        super().__init__()
        self.first = in_channels == 0
        if self.first:
            self.const = nn.Parameter(drawn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=True)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution)
        self.torgb = ToRGB(out_channels, w_dim)
        self.register_buffer("resample_filter", fir_kernel())

    def layers(self) -> list[SynthesisLayer | ToRGB]:
        """The block's modulated layers in the order of their styles."""
        return [self.conv1, self.torgb] if self.first else [self.conv0, self.conv1, self.torgb]

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        styles: tuple[Tensor, ...],
        deltas: tuple[Tensor | None, ...],
        noise_mode: str,
        generator: torch.Generator | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            const = self.const.to(dtype).expand(len(styles[0]), -1, -1, -1)
            features: Tensor = const.contiguous(memory_format=torch.channels_last)
        else:
            features = self.conv0(x, styles[0], noise_mode, generator, delta=deltas[0])
        gain = 1.0 if self.first else GAIN
        features = self.conv1(features, styles[-2], noise_mode, generator, gain, deltas[-2])
        rgb: Tensor = self.torgb(features, styles[-1], deltas[-1]).to(styles[-1].dtype)
        return features, rgb if image is None else rgb + upsample_image(image, self.resample_filter)


class Synthesis(nn.Module):
    """All blocks from 4 px to ``resolution``."""

    def __init__(self, resolution: int, w_dim: int, channel_base: int, channel_max: int):
        super().__init__()
        self.resolutions = [2**i for i in range(2, int(math.log2(resolution)) + 1)]
        width = {r: min(channel_base // r, channel_max) for r in self.resolutions}
        for r in self.resolutions:
            self.add_module(f"b{r}", Block(width[r // 2] if r > 4 else 0, width[r], w_dim, r))

    def blocks(self) -> list[Block]:
        return [getattr(self, f"b{r}") for r in self.resolutions]


class Generator(nn.Module):
    """StyleGAN2 generator.

    Args:
        resolution: px, a power of two from 4 up.
        z_dim, w_dim: sizes of Z and W.
        mapping_layers: number of fully connected layers of the mapping network.
        channel_base, channel_max: a block of resolution r has min(channel_base // r, channel_max) channels.
    """

    def __init__(
        self,
        resolution: int,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
    ):
        super().__init__()
        if resolution < 4 or resolution & (resolution - 1):
            raise ValueError(f"expected a resolution that is a power of two from 4 up, got {resolution}")
        self.resolution, self.z_dim, self.w_dim = resolution, z_dim, w_dim
        self.config = dict(
            resolution=resolution,
            z_dim=z_dim,
            w_dim=w_dim,
            mapping_layers=mapping_layers,
            channel_base=channel_base,
            channel_max=channel_max,
        )
        self.mapping = Mapping(z_dim, w_dim, mapping_layers)
        self.synthesis = Synthesis(resolution, w_dim, channel_base, channel_max)
        self.num_ws = 2 * len(self.synthesis.resolutions)
        self.to(memory_format=torch.channels_last)

    def broadcast(self, w: Tensor) -> Tensor:
        """Repeat w for all L layers: [N, D] -> [N, L, D]."""
        return w[:, None].expand(-1, self.num_ws, -1)

    def layers(self) -> list[nn.Module]:
        """All modulated layers, in the order of ``Styles.vectors`` and ``Styles.weight_deltas``."""
        return [layer for block in self.synthesis.blocks() for layer in block.layers()]

    def styles(self, ws: Tensor) -> Styles:
        """W+ [N, L, D] -> StyleSpace (Wu et al., arXiv 2011.12799): one vector [N, C] for every modulated layer."""
        vectors, k = [], 0
        for block in self.synthesis.blocks():
            layers = block.layers()
            vectors += [layer.affine(ws[:, k + i]) for i, layer in enumerate(layers)]
            k += len(layers) - 1  # toRGB shares its w with the next block's first layer
        return Styles(tuple(vectors))

    def synthesize(
        self,
        styles: Styles,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
        resolution: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """StyleSpace and weight deltas -> image [N, 3, H, W] in about [-1, 1]; see ``pictures``."""
        return self.pictures(styles, noise_mode, generator, resolution, dtype)[-1]

    def pictures(
        self,
        styles: Styles,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
        resolution: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """The skip images of all blocks, [N, 3, H, W] of 4 px, 8 px and so on; the last one is the image.

        Args:
            noise_mode: "const", "random" (drawn from ``generator``) or "none".
            resolution: px at which synthesis stops; None = the full size.
            dtype: of the feature maps; styles, demodulation and the images keep their type.
        """
        x, images = None, list[Tensor]()
        dtype, deltas = dtype or styles.vectors[0].dtype, styles.weight_deltas or (None,) * len(styles.vectors)
        k = 0
        for block in self.synthesis.blocks():
            part = slice(k, k + len(block.layers()))
            before = images[-1] if images else None
            x, image = block(x, before, styles.vectors[part], deltas[part], noise_mode, generator, dtype)
            images.append(image)
            k = part.stop
            if image.shape[-1] == resolution:
                break
        return images

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
        resolution: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """W+ [N, L, D] -> image [N, 3, H, W]; see ``synthesize``."""
        return self.synthesize(self.styles(ws), noise_mode, generator, resolution, dtype)
