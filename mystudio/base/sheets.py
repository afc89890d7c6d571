"""Contact sheets of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mystudio.storage.journal import write_bytes
from mystudio.stylegan2.generator import Generator
from selfscan.io.pixels import to_uint8

COLUMNS = 8


@torch.no_grad()
def pictures(generator: Generator, w: Tensor, batch: int = 8) -> np.ndarray:
    """Images [N, H, W, 3] uint8 of w [N, D] or W+ [N, L, D], with the generator's fixed noise."""
    parts = []
    for part in w.split(batch):
        made = generator(part if part.ndim == 3 else generator.broadcast(part)).clamp(-1, 1)
        parts.append(to_uint8(made))
    return np.concatenate(parts)


def tile(rows: list[np.ndarray], size: int = 128) -> np.ndarray:
    """Arrange rows of images [N, H, H, 3] in one image; images larger than ``size`` px are reduced."""
    import cv2

    width = max(len(row) for row in rows)
    size = min(size, rows[0].shape[1])
    sheet = np.full((len(rows) * size, width * size, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            sheet[y * size : (y + 1) * size, x * size : (x + 1) * size] = small
    return sheet


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image [H, W, 3] uint8 RGB atomically."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes())


def fixed_latents(count: int, size: int, seed: int = 0) -> Tensor:
    """Latents z [count, size] that the seed alone determines."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def latents_of(codes: Tensor, size: int, seed: int = 0) -> Tensor:
    """z [N, size] for codes [N, C] on the CPU: the code, then fixed numbers; the last one marks images with codes."""
    z = fixed_latents(len(codes), size, seed)
    z[:, -1].abs_()  # a positive last number marks images with codes, if the base was trained on both kinds
    z[:, : codes.shape[1]] = codes
    return z


def sheet_of_base(generator: Generator, seed: int = 0, truncation: float = 0.7) -> np.ndarray:
    """Two rows of samples, the same samples truncated, and three rows of interpolations in W: [H, W, 3] uint8."""
    device = next(generator.parameters()).device
    z = fixed_latents(2 * COLUMNS, generator.z_dim, seed).to(device)
    with torch.no_grad():
        full, near = generator.mapping(z), generator.mapping(z, truncation)
    ways = [near[2 * k].lerp(near[2 * k + 1], t / (COLUMNS - 1)) for k in range(3) for t in range(COLUMNS)]
    made = np.concatenate([pictures(generator, w) for w in (full, near, torch.stack(ways))])
    return tile(list(made.reshape(-1, COLUMNS, *made.shape[1:])))


def sheet_of_training(
    generator: Generator, truth: np.ndarray | None, codes: Tensor | None, seed: int = 0
) -> np.ndarray:
    """Three rows of samples; for data with codes also training images and the images generated from their codes."""
    device = next(generator.parameters()).device
    with torch.no_grad():
        w = generator.mapping(fixed_latents(3 * COLUMNS, generator.z_dim, seed).to(device))
        rows = list(pictures(generator, w).reshape(3, COLUMNS, generator.resolution, generator.resolution, 3))
        if truth is not None and codes is not None:
            rows += [truth, pictures(generator, generator.mapping(codes.to(device)))]
    return tile(rows)
