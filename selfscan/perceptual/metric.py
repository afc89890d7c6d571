"""Perceptual distance of two images: the squared Euclidean distance of their embeddings.

LPIPS (Zhang et al. 2018, arXiv 1801.03924) sums ``w_c (f_c(x) - f_c(y))^2`` over channels, averages over pixels
and sums over layers, with features f of unit length at each pixel. It therefore equals
``|e(x) - e(y)|^2`` with ``e = sqrt(w_c / (H W)) f_c`` of all layers, concatenated. N images therefore need N network
passes; the distances of all pairs are one matrix product. Without backbone weights, the network of this package is
used: LPIPS-squeeze, distilled on faces (docs/perceptual.md). Reports name it. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from selfscan.errors import ModelMissing
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.lpips_layers import (
    BACKBONE_VARIABLE,
    HUB_FILES,
    TAPS,
    LpipsLayers,
    find_backbone,
    find_heads,
    hub_folder,
)

FACE, PACKAGED = "lpips-face", Path(__file__).parents[1] / "data" / "lpips_face.safetensors"
SMALLEST_SIDE = 32  # px; smaller images leave no pixels in the deepest layers


class Perceptual(nn.Module):
    """A perceptual distance that is also an embedding.

    Args:
        name: the metric's name in reports, such as "lpips-squeeze".
        layers: images [N, 3, H, W] in [-1, 1] -> parts of the embedding, each [N, h, w, c]; two images differ by
            the squared Euclidean distance summed over all parts.
    """

    def __init__(self, name: str, layers: nn.Module):
        super().__init__()
        self.name = name
        self.layers = layers
        self._sketches: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def parts(self, x: Tensor) -> list[Tensor]:
        """Embed images layer by layer.

        Args:
            x: [N, 3, H, W] in [-1, 1], sides of at least 32 px.

        Returns:
            One [N, h, w, c] tensor a layer, differentiable in x.

        Raises:
            ValueError: the images have another shape or are too small.
        """
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(f"images: expected [N, 3, H, W] with sides >= {SMALLEST_SIDE} px, got {tuple(x.shape)}")
        x = x if x.dtype in (torch.float32, torch.float64) else x.float()
        anchor = next(self.buffers())
        if anchor.device != x.device or anchor.dtype != x.dtype:
            self.to(device=x.device, dtype=x.dtype)
        return self.layers(x.contiguous(memory_format=torch.channels_last))

    def embed(self, x: Tensor, dims: int | None = None) -> Tensor:
        """Embed images so that the squared Euclidean distance of two rows is their perceptual distance.

        Args:
            x: [N, 3, H, W] in [-1, 1].
            dims: None for the exact embedding; else the length of a fixed random projection (count sketch, Charikar
                et al. 2002). Its distances are unbiased; their relative standard error is at most
                ``sqrt(2 / dims)`` (2.2 % at 4096).

        Returns:
            [N, E], or [N, dims].
        """
        flat = torch.cat([p.flatten(1) for p in self.parts(x)], 1)
        return flat if dims is None else self._sketch(flat, dims)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Perceptual distance of image pairs.

        Args:
            x: [N, 3, H, W] in [-1, 1].
            y: [N, 3, H, W] in [-1, 1].

        Returns:
            [N], differentiable in both.

        Raises:
            ValueError: the two sizes differ, or see ``parts``.
        """
        if x.shape[2:] != y.shape[2:]:
            raise ValueError(f"distance: expected images of one size, got {tuple(x.shape)} and {tuple(y.shape)}")
        return reduce(torch.add, (_gap(a, b) for a, b in zip(self.parts(x), self.parts(y))))

    def distance_to(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Perceptual distance to targets with known embeddings: half the work of ``distance``.

        Args:
            x: [N, 3, H, W] in [-1, 1].
            embedding: [N, E] (or [1, E]) from ``embed`` of images of the same size, any float type.

        Returns:
            [N], differentiable in x.

        Raises:
            ValueError: the embedding has another length, or see ``parts``.
        """
        parts = self.parts(x)
        sizes = [p[0].numel() for p in parts]
        if embedding.shape[-1] != sum(sizes):
            raise ValueError(
                f"embedding: expected [N, {sum(sizes)}] (exact, of {tuple(x.shape[2:])} px images), "
                f"got {tuple(embedding.shape)}; embed targets of the same size without dims"
            )
        targets = embedding.to(x.device).split(sizes, -1)
        return reduce(torch.add, (_gap(p, t.view(-1, *p.shape[1:]).to(p.dtype)) for p, t in zip(parts, targets)))

    @torch.no_grad()
    def embed_images(
        self, images: np.ndarray, batch: int = 8, dims: int | None = None, tick: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Embed many 8-bit images in batches, on the metric's device.

        Args:
            images: [N, H, W, 3] uint8 RGB.
            batch: images a network pass.
            dims: as in ``embed``.
            tick: called with the number of images done.

        Returns:
            [N, E] float32.
        """
        rows, device = None, next(self.buffers()).device
        for start in range(0, len(images), batch):
            part = self.embed(to_tensor(images[start : start + batch], device), dims).cpu().numpy()
            rows = np.empty((len(images), part.shape[1]), np.float32) if rows is None else rows
            rows[start : start + len(part)] = part
            if tick:
                tick(start + len(part))
        return rows if rows is not None else np.zeros((0, 0), np.float32)

    def distances(self, images: np.ndarray, memory: int = 2 << 30, batch: int = 8) -> np.ndarray:
        """Exact distances of all pairs of images within bounded memory.

        Images are embedded in blocks that fit into ``memory``. Later images are embedded again for each earlier block:
        B blocks cost (B + 1) / 2 network passes an image, on average.

        Args:
            images: [N, H, W, 3] uint8 RGB.
            memory: bytes for the embeddings of one block.
            batch: images a network pass.

        Returns:
            [N, N] float32, symmetric, zero diagonal.
        """
        n = len(images)
        out = np.zeros((n, n), np.float32)
        if n == 0:
            return out
        width = self.embed_images(images[:1]).shape[1]
        rows = max(batch, int(memory // (4 * width)))
        for i in range(0, n, rows):
            block = self.embed_images(images[i : i + rows], batch)
            out[i : i + rows, i : i + rows] = pairwise(block)
            centre = block.mean(0)
            block -= centre  # reduces rounding errors; distances stay the same
            norm = np.array([row @ row for row in block])
            for j in range(i + rows, n, batch):
                others = self.embed_images(images[j : j + batch], batch) - centre
                cross = np.maximum(norm[:, None] + np.square(others).sum(1) - 2 * (block @ others.T), 0)
                out[i : i + rows, j : j + batch], out[j : j + batch, i : i + rows] = cross, cross.T
            del block  # frees its memory before the next block is made
        return out

    def _sketch(self, flat: Tensor, dims: int) -> Tensor:
        key = (flat.shape[1], dims, flat.device)
        if key not in self._sketches:
            seeded = torch.Generator().manual_seed(0)
            bucket = torch.randint(dims, (flat.shape[1],), generator=seeded)
            sign = torch.randint(2, (flat.shape[1],), generator=seeded, dtype=torch.int8) * 2 - 1
            self._sketches[key] = bucket.to(flat.device), sign.to(flat.device)
        bucket, sign = self._sketches[key]
        return flat.new_zeros(len(flat), dims).index_add(1, bucket, flat * sign)


def pairwise(embeddings: np.ndarray, block: int = 1 << 16) -> np.ndarray:
    """Squared Euclidean distances of all pairs of rows: one blocked matrix product.

    Args:
        embeddings: [N, E], float32 or float16.
        block: columns processed at once; the working memory is 4 N block bytes.

    Returns:
        [N, N] float32, symmetric, zero diagonal, never negative.
    """
    n = len(embeddings)
    gram = np.zeros((n, n), np.float64)
    for start in range(0, embeddings.shape[1], block):
        part = embeddings[:, start : start + block].astype(np.float32)
        part -= part.mean(0)  # reduces rounding errors; distances stay the same
        gram += part @ part.T
    norm = np.diag(gram)
    out = np.maximum(norm[:, None] + norm[None] - 2 * gram, 0)
    np.fill_diagonal(out, 0)
    return ((out + out.T) / 2).astype(np.float32)


def perceptual_name(net: str = "auto", weights: str | Path | None = None) -> str:
    """Name of the metric that ``load_perceptual`` would load on this machine, without loading it."""
    if net != "auto":
        return f"lpips-{net}"
    return "lpips-squeeze" if find_backbone("squeeze", weights) else FACE


def load_perceptual(net: str = "auto", weights: str | Path | None = None) -> Perceptual:
    """Load a perceptual metric from files on this machine; nothing is downloaded.

    Args:
        net: "auto" (LPIPS squeeze, or "face" where its backbone is missing), "squeeze", "alex", "vgg" (LPIPS v0.1)
            or "face" (LPIPS squeeze distilled on faces, which this package carries).
        weights: backbone file with torchvision's state-dict names, .pth or .safetensors; None = the file named by the
            environment variable MYSTUDIO_LPIPS_BACKBONE (for squeeze), else the torch hub cache.

    Returns:
        The metric; its ``name`` identifies it.

    Raises:
        ModelMissing: a named file or net is missing or does not match.
    """
    if net not in ("auto", "face", *TAPS):
        raise ModelMissing(f"perceptual net: expected auto, face or one of {', '.join(TAPS)}, got {net!r}")
    name = perceptual_name(net, weights)
    kind = "squeeze" if name == FACE else name.removeprefix("lpips-")
    path, heads = PACKAGED if name == FACE else find_backbone(kind, weights), find_heads(kind)
    if path and heads:
        return Perceptual(name, LpipsLayers(kind, path, heads))
    missing = f"backbone {HUB_FILES[kind]} in {hub_folder()}" if heads else "package lpips, which carries the heads"
    raise ModelMissing(f"LPIPS {kind} needs the {missing}; pass weights=, set {BACKBONE_VARIABLE} or use net='face'")


def _gap(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum((1, 2, 3))
