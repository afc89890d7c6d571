"""Loss terms of PGR and MyStyle. Each returns one value per sample [N]; the caller weights and reduces them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.motion.retarget import normalise, part_scale
from selfscan.face.landmarks import BROWS, EYE_CORNERS, IRISES, KEYPOINTS, LID_PAIRS, NOSE_BRIDGE

FACE = (0.2, 0.26, 0.6, 0.6)  # left, top, width, height in an FFHQ-aligned crop, in crops; from brows to chin
EYES = (0.25, 0.34375, 0.5, 0.25)  # both eyes and brows
MOUTH = (0.28125, 0.5625, 0.4375, 0.3125)  # nostrils to chin
TEXTURE_CELLS = 16  # cells of ``texture`` across the crop, and as many between them
TEXTURE_LEAST = 128  # px of the smallest image whose ``texture`` is taken
TEXTURE_FLOOR = 3e-5  # energy below which detail does not count: .005 of [-1, 1]
IRIS = 8.0  # weight of an iris centre in ``landmarks``: equals the rest of its eye
DEPTH = 0.1  # weight of z against x and y in ``landmarks``: the network's z is less exact
LID_SPREAD = 0.066  # standard deviation of ``eyes_open`` among actors (selfscan.face.measures)
BROW_SPREAD = 0.027  # standard deviation of ``brows`` among actors


def keypoint(points: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean squared distance of normalised keypoints (PGR's L_key), in units of (1 % of the crop)^2.

    Args:
        points, target: [N, K, 3] in crops (``retarget.normalise``). weights: [K].
    """
    square = (points - target).square().sum(-1)
    return 1e4 * (square * weights).sum(-1) / weights.sum()


def landmarks(points: Tensor, target: Tensor) -> Tensor:
    """Mean distance of keypoints in units of their part's size, so that an eye counts as much as the jaw.

    Pixel losses miss gaze, which moves an iris by half a pixel. Parts are compared by shape and, with half weight, by
    position.

    Args:
        points, target: [N, 478, 3] in crops.
    Returns: [N]; 0.1 = points deviate by a tenth of the root mean square radius of their part.
    """
    size = part_scale(normalise(target, 0.0, DEPTH))
    weight = points.new_ones(len(KEYPOINTS))
    weight[[KEYPOINTS.index(iris[0]) for iris in IRISES]] = IRIS
    apart = (normalise(points, 0.5, DEPTH) - normalise(target, 0.5, DEPTH)).abs().sum(-1)
    return (apart / size.clamp_min(1e-3) * weight).sum(-1) / weight.sum()


def lids_and_brows(points: Tensor, target: Tensor) -> Tensor:
    """Mean distance of lid gaps and of brow positions, both in units of their standard deviation among actors.

    ``landmarks`` hardly sees them: a raised brow moves by a tenth of its part's size, and an eye's iris outweighs its
    lids. Gaps and positions are compared in x and y, because the network's z is less exact. The units come from the
    target, so that the loss cannot be lowered by a change of the eyes' size.

    Args:
        points, target: [N, 478, 3] in crops.
    Returns: [N]; 1 = off by one standard deviation, a blink is about 3.
    """
    eyes = torch.stack([target[:, list(corners)] for corners in EYE_CORNERS], 1)  # [N, eye, corner, 3]
    width = (eyes[:, :, 0] - eyes[:, :, 1]).norm(dim=-1)
    apart = (eyes[:, 0].mean(1) - eyes[:, 1].mean(1)).norm(dim=-1)
    change = points[..., :2] - target[..., :2]
    pairs = torch.tensor(LID_PAIRS, device=points.device)  # [eye, pair, upper and lower]
    gaps = (change[:, pairs[..., 0]] - change[:, pairs[..., 1]]).abs().sum(-1).mean(-1) / width
    brows = (change[:, list(BROWS)] - change[:, [NOSE_BRIDGE]]).abs().sum(-1).mean(-1) / apart
    return 0.5 * (gaps.mean(1) / LID_SPREAD + brows / BROW_SPREAD)


def masked_pixels(patch: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference inside a mask (PGR's mouth-cavity and iris terms).

    The mean is over the whole patch, so that the weight grows with the mask: a closed mouth has weight 0.

    Args:
        patch, target: [N, ..., 3, h, w] in [-1, 1]. mask: [N, ..., 1, h, w] in 0..1.
    """
    return ((patch - target).square() * mask).flatten(1).mean(1)


def pixel(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of images [N, 3, H, W] in [-1, 1]."""
    return (image - target).square().flatten(1).mean(1)


def texture(images: Tensor) -> Tensor:
    """Log energy of fine detail by place, of aligned images [N, 3, H, H] in [-1, 1].

    It is the mean square of the Laplacian of luma in overlapping cells, at full size and at halves of it down to 128
    px. Luma is smoothed first: a chequerboard of single pixels would else be the cheapest detail. Other distances are
    lowest where uncertain detail is blurred; this one asks for as much detail, wherever it is.

    Returns: [N, M].
    """
    luma, found = images.float().mean(1, keepdim=True), list[Tensor]()
    while not found or luma.shape[-1] >= TEXTURE_LEAST:
        soft = F.avg_pool2d(F.avg_pool2d(luma, 2, 1), 2, 1)  # 1 2 1 both ways
        middle = 4 * soft[..., 1:-1, 1:-1]
        fine = middle - soft[..., 2:, 1:-1] - soft[..., :-2, 1:-1] - soft[..., 1:-1, 2:] - soft[..., 1:-1, :-2]
        cell = max(2, luma.shape[-1] // TEXTURE_CELLS)
        energy = F.avg_pool2d(fine.square(), cell, cell // 2)
        found.append((energy + TEXTURE_FLOOR).log().flatten(1))
        luma = F.avg_pool2d(luma, 2)
    return torch.cat(found, 1)


def whole(images: Tensor, size: int = 0) -> Tensor:
    """Aligned images [N, 3, H, H], reduced to ``size`` px if they are larger; 0 = unchanged."""
    return _resized(images, min(size, images.shape[-1])) if size else images


def face(images: Tensor, size: int = 0) -> Tensor:
    """The face of aligned images [N, 3, H, H], resized to a width of ``size`` px; 0 = H px."""
    return _part(images, FACE, size)


def eyes(images: Tensor, size: int = 0) -> Tensor:
    """Both eyes and brows of aligned images [N, 3, H, H], resized to a width of ``size`` px; 0 = H px.

    The width is at least 96 px: perceptual networks need at least 32 rows.
    """
    return _part(images, EYES, size, least=96)


def mouth(images: Tensor, size: int = 0) -> Tensor:
    """The mouth of aligned images [N, 3, H, H], with the chin, resized to a width of ``size`` px, as ``eyes``."""
    return _part(images, MOUTH, size, least=96)


def _part(images: Tensor, part: tuple[float, float, float, float], size: int, least: int = 0) -> Tensor:
    height = images.shape[-1]
    left, top, wide, high = (round(p * height) for p in part)
    width = max(min(size, height) or height, least)
    rows = 8 * round(width * part[3] / part[2] / 8)  # perceptual networks halve the size three times
    return _resized(images[..., top : top + high, left : left + wide], width, rows)


def _resized(images: Tensor, width: int, rows: int = 0) -> Tensor:
    """Resize images [N, 3, h, w] to a width and a number of rows; 0 rows = keep the aspect ratio."""
    size = (rows or round(images.shape[-2] * width / images.shape[-1]), width)
    if images.shape[-2:] == size:
        return images
    smaller = images.shape[-1] > width
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smaller)


def delta(offsets: Tensor) -> Tensor:
    """Norm (not squared) of per-layer offsets: MyStyle's delta regularisation.

    Args:
        offsets: [N, L, K] codes relative to the first layer's or to their mean.
    """
    return (offsets.square().sum((1, 2)) + 1e-12).sqrt()


def weight_sum(alpha: Tensor) -> Tensor:
    """Squared deviation of sum(alpha) from 1 on every layer: MyStyle's sum regularisation.

    Args:
        alpha: [N, L, A].
    """
    return (alpha.sum(-1) - 1).square().mean(1)


def temporal(codes: Tensor, linked: Tensor) -> Tensor:
    """Squared change of the codes between neighbouring frames.

    Args:
        codes: [T, ...]. linked: [T - 1] 1 where frames t and t + 1 are consecutive, else 0.
    Returns: [T]; each frame gets half of the change to each neighbour.
    """
    change = (codes[1:] - codes[:-1]).square().flatten(1).mean(1) * linked
    zero = change.new_zeros(1)
    return 0.5 * (torch.cat([change, zero]) + torch.cat([zero, change]))
