"""Adaptive discriminator augmentation (Karras et al., arXiv 2006.06676), the published set "bgc".

Pixel blitting and geometry combine into one 3x3 matrix for each image, colour into one 4x4 matrix. The image is then
resampled once, at double size between two low-pass filters (the sym6 wavelet, appendix B.2). Borders are mirrored. All
random numbers come from one small table, so that the seed determines a step's augmentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: the sym6 scaling filter (Daubechies, Ten Lectures on Wavelets); it is orthonormal to its own even shifts
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_LEAN = 0.4017  # px at double size: the filter's centre of mass lies so far before its middle
_MARGIN = 6  # px at double size: the second low-pass reads so far beyond each side of the image
_DECISIONS = (
    "flip",
    "turn",
    "shift",
    "scale",
    "rotate_before",
    "stretch",
    "rotate_after",
    "slide",
    "brightness",
    "contrast",
    "luma",
    "hue",
    "saturation",
)
_UNIFORM = ("flip", "turn", "shift_x", "shift_y", "rotate_before", "rotate_after", "luma", "hue")
_NORMAL = ("scale", "stretch", "slide_x", "slide_y", "brightness", "contrast", "saturation")


@dataclass(frozen=True)
class AugmentSettings:
    """The augmentations, and how their probability adapts to the discriminator."""

    start: float = 0.0  # probability at the beginning
    target: float = 0.6  # target of r_t = E[sign D(real)]; p adapts to reach it (ADA: 0.6); 0 = p is constant
    speed_kimg: float = 500.0  # thousand images that p needs at least to rise from 0 to 1 (ADA: 500)
    every: int = 4  # steps between two adjustments of p (ADA: 4)
    limit: float = 0.8  # upper limit of p; above it augmentations leak into the generated images (ADA, section 2.2)
    geometry: bool = True  # flips, quarter turns, shifts, scales, rotations ("bg")
    colour: bool = True  # brightness, contrast, luma flip, hue, saturation ("c")


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Random numbers for ``count`` images: [count, K] on the CPU; they do not depend on p."""
    decisions = torch.rand(count, len(_DECISIONS), generator=generator)
    uniform = torch.rand(count, len(_UNIFORM), generator=generator)
    normal = torch.randn(count, len(_NORMAL), generator=generator)
    return torch.cat([decisions, uniform, normal], 1)


def augment(images: Tensor, numbers: Tensor, p: float, settings: AugmentSettings = AugmentSettings()) -> Tensor:
    """Transform each image independently; differentiable any number of times.

    Args:
        images: [N, 3, H, H] in [-1, 1].
        numbers: [N, K] from ``draw``.
        p: probability of each transform, 0..1; at 0 the images are returned unchanged.
        settings: which transforms are used.
    Returns: [N, 3, H, H].
    """
    if p <= 0:
        return images
    if settings.geometry:
        images = warp(images, geometry(numbers, p, images.shape[-1]))
    return recolour(images, colour(numbers, p)) if settings.colour else images


def adjust(p: float, mean_sign: float, images: int, settings: AugmentSettings) -> float:
    """Adjust p by images / (1000 speed_kimg): up if r_t is above the target, else down (section 3)."""
    if settings.target <= 0:
        return p
    step = images / (settings.speed_kimg * 1000)
    return min(max(p + math.copysign(step, mean_sign - settings.target), 0.0), settings.limit)


def geometry(numbers: Tensor, p: float, size: int) -> Tensor:
    """Matrices [N, 3, 3] from output pixels to the image pixels that they show; both count from the image's centre."""
    chosen, u, z = _columns(numbers, p)
    n = len(numbers)
    flip = torch.where(chosen["flip"], (u["flip"] < 0.5).float(), 0.0)
    turn = torch.where(chosen["turn"], (u["turn"] * 4).floor(), 0.0)
    m = _scaling(1 - 2 * flip, torch.ones(n)) @ _rotation(math.pi / 2 * turn)
    shift = [torch.where(chosen["shift"], (u[k] * 2 - 1) * 0.125, 0.0) for k in ("shift_x", "shift_y")]
    m = m @ _translation(*((s * size).round() for s in shift))
    scale = torch.where(chosen["scale"], torch.exp2(0.2 * z["scale"]), 1.0)
    m = m @ _scaling(1 / scale, 1 / scale)
    p_rotation = 1 - math.sqrt(1 - p)  # p = probability of at least one of the two rotations
    m = m @ _turned(numbers, u, p_rotation, "rotate_before")
    stretch = torch.where(chosen["stretch"], torch.exp2(0.2 * z["stretch"]), 1.0)
    m = m @ _scaling(1 / stretch, stretch) @ _turned(numbers, u, p_rotation, "rotate_after")
    slide = [torch.where(chosen["slide"], 0.125 * z[k], 0.0) * size for k in ("slide_x", "slide_y")]
    return m @ _translation(*slide)


def colour(numbers: Tensor, p: float) -> Tensor:
    """Colour matrices [N, 4, 4] on (R, G, B, 1) in [-1, 1]."""
    chosen, u, z = _columns(numbers, p)
    n = len(numbers)
    identity = torch.eye(4).expand(n, 4, 4)
    axis = F.pad(torch.full((3,), 1 / math.sqrt(3)), (0, 1))  # luma
    along = torch.outer(axis, axis)
    brightness = torch.where(chosen["brightness"], 0.2 * z["brightness"], 0.0)
    contrast = torch.where(chosen["contrast"], torch.exp2(0.5 * z["contrast"]), 1.0)
    m = identity.clone()
    m[:, :3] *= contrast[:, None, None]
    m[:, :3, 3] = (brightness * contrast)[:, None]
    luma = torch.where(chosen["luma"], (u["luma"] < 0.5).float(), 0.0)
    m = (identity - 2 * along * luma[:, None, None]) @ m
    hue = torch.where(chosen["hue"], (u["hue"] * 2 - 1) * math.pi, 0.0)
    m = _about_luma(hue) @ m
    saturation = torch.where(chosen["saturation"], torch.exp2(z["saturation"]), 1.0)[:, None, None]
    grey = torch.zeros(4, 4)
    grey[3, 3] = 1
    return (along + grey + (identity - along - grey) * saturation) @ m


def warp(images: Tensor, image_from_output: Tensor) -> Tensor:
    """Resample images [N, C, H, H]: double the size, low-pass, one bilinear look-up, low-pass, halve the size."""
    size = images.shape[-1]
    taps = torch.tensor(SYM6, device=images.device, dtype=images.dtype) / math.sqrt(2)
    double = _doubled(images, taps)
    steps = torch.arange(2 * size + 2 * _MARGIN, device=images.device, dtype=images.dtype) - _MARGIN
    steps = (steps + 0.5 + _LEAN) / 2 - size / 2  # px of the image, from its centre
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    matrix = image_from_output.to(images.device, images.dtype, non_blocking=True)
    grid = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3) @ matrix[:, :2].mT * (2 / size) - _LEAN / size
    looked = _Sample.apply(double, grid.view(len(images), len(steps), len(steps), 2))
    return _halved(looked, taps)


def recolour(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply colour matrices [N, 4, 4] to images [N, 3, H, W]."""
    matrix = matrix.to(images.device, images.dtype, non_blocking=True)
    flat = matrix[:, :3, :3] @ images.flatten(2) + matrix[:, :3, 3:]
    return flat.view_as(images)


def _columns(numbers: Tensor, p: float) -> tuple[dict, dict, dict]:
    decisions, uniform, normal = numbers.split((len(_DECISIONS), len(_UNIFORM), len(_NORMAL)), 1)
    return (
        dict(zip(_DECISIONS, (decisions < p).unbind(1))),
        dict(zip(_UNIFORM, uniform.unbind(1))),
        dict(zip(_NORMAL, normal.unbind(1))),
    )


def _turned(numbers: Tensor, uniform: dict, p: float, name: str) -> Tensor:
    chosen = numbers[:, _DECISIONS.index(name)] < p
    return _rotation(torch.where(chosen, (uniform[name] * 2 - 1) * math.pi, 0.0))


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def _translation(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[one, zero, -x], [zero, one, -y], [zero, zero, one]])


def _rotation(angle: Tensor) -> Tensor:
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return _matrix([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])


def _about_luma(angle: Tensor) -> Tensor:
    """Matrices [N, 4, 4] that rotate colours about the grey axis (Rodrigues' formula)."""
    v = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -v, v], [v, 0, -v], [-v, v, 0]])
    sin, versine = angle.sin()[:, None, None], (1 - angle.cos())[:, None, None]
    m = torch.eye(4).repeat(len(angle), 1, 1)
    m[:, :3, :3] += sin * cross + versine * (cross @ cross)
    return m


def _doubled(images: Tensor, taps: Tensor) -> Tensor:
    """Double the size, band-limited; sample n of the result lies at (n + 1/2) / 2 - 1/2 px of the image."""
    n, c, size, _ = images.shape
    reach = len(SYM6) // 4
    index = torch.arange(-reach, size + reach, device=images.device) % (2 * size)
    index = torch.where(index < size, index, 2 * size - 1 - index)  # mirrored border
    x = images[:, :, index][..., index].reshape(n * c, 1, size + 2 * reach, -1)
    cut = len(SYM6) // 2 - 1 + 2 * reach
    x = F.conv_transpose2d(x, 2 * taps.view(1, 1, -1, 1), stride=(2, 1))[:, :, cut : cut + 2 * size]
    x = F.conv_transpose2d(x, 2 * taps.view(1, 1, 1, -1), stride=(1, 2))[..., cut : cut + 2 * size]
    return x.reshape(n, c, 2 * size, 2 * size)


def _halved(images: Tensor, taps: Tensor) -> Tensor:
    n, c, size, _ = images.shape
    skip = _MARGIN - (len(SYM6) // 2 - 1)
    x = images.reshape(n * c, 1, size, size)[:, :, skip:, skip:]
    x = F.conv2d(F.conv2d(x, taps.view(1, 1, -1, 1), stride=(2, 1)), taps.view(1, 1, 1, -1), stride=(1, 2))
    half = size // 2 - _MARGIN
    return x[:, :, :half, :half].reshape(n, c, half, half)


class _Sample(torch.autograd.Function):
    """Bilinear look-up that mirrors at the border; linear in the image, so its gradient can be differentiated again.

    PyTorch's grid_sample can be differentiated only once; the gradient penalty needs the second derivative.
    """

    @staticmethod
    def forward(ctx, image: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = image.shape
        return F.grid_sample(image, grid, "bilinear", "reflection", align_corners=False)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradient, grid, ctx.shape), None


class _Spread(torch.autograd.Function):
    """The transpose of ``_Sample``; its own transpose is ``_Sample`` again."""

    @staticmethod
    def forward(ctx, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        bilinear, reflection = 0, 2
        return torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(), gradient.new_empty(shape), grid, bilinear, reflection, False, (True, False)
        )[0]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradient, grid), None, None
