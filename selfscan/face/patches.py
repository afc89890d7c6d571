"""Mouth and eye patches: small images aligned to the mouth or eye, so that two people can be compared.

PGR (arXiv 2307.06307) compares mouth-cavity and iris pixels. A similarity, given by the corners of the mouth or eye,
aligns each patch. A mask selects the pixels inside the lips, or on the visible iris.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfscan.face.landmarks import EYE_CORNERS, INNER_LIPS, IRISES, LIDS, MOUTH_CORNERS
from selfscan.io.pixels import to_tensor
from selfscan.types import Array

MOUTH_SIZE = (24, 32)  # px (height, width) of a mouth patch
IRIS_SIZE = (16, 32)  # px (height, width) of an eye patch
CHUNK = 256  # frames processed at once
PLAIN = torch.tensor([[0.0] * 3, [1.0] * 3])  # mean and spread that leave colours as they are
MARGIN = 1.2  # patch width / distance between the corners


def frames(landmarks: Tensor) -> Tensor:
    """crop_from_patch of the mouth, right eye and left eye.

    Patch coordinates run -1..1 over the width, with the same unit over the height.

    Args:
        landmarks: [N, 478, 3] in crops (0..1).
    Returns: [N, 3, 2, 3].
    """
    xy = landmarks[..., :2]
    pairs = torch.tensor([MOUTH_CORNERS, *EYE_CORNERS], device=xy.device)
    a, b = xy[:, pairs[:, 0]], xy[:, pairs[:, 1]]
    middle = (a + b) / 2
    mouth = (xy[:, list(INNER_LIPS)].mean(1) + middle[:, 0]) / 2  # the jaw opens downwards: move the centre along
    middle = torch.cat([mouth[:, None], middle[:, 1:]], 1)
    x = (b - a) * (MARGIN / 2)
    y = torch.stack([-x[..., 1], x[..., 0]], -1)
    return torch.stack([x, y, middle], -1)


def cut(images: Tensor, crop_from_patch: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample patches; differentiable in the images.

    Args:
        images: [N, 3, H, W]. crop_from_patch: [N, 2, 3] in crops (0..1). size: (height, width) px.
    Returns: [N, 3, height, width].
    """
    height, width = size
    theta = crop_from_patch.clone() * 2
    theta[..., 2] -= 1  # crops 0..1 to grid_sample's -1..1
    ys = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=images.device) * (height / width)
    xs = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=images.device)
    ones = torch.ones(height, width, device=images.device)
    grid = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width), ones], -1)
    grid = torch.einsum("nij,hwj->nhwi", theta.to(images.dtype), grid.to(images))
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def mouth_and_irises(images: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Mouth [N, 3, 24, 32] and iris [N, 2, 3, 16, 32] patches of images [N, 3, H, W] with landmarks in crops."""
    f = frames(landmarks)
    eyes = [cut(images, f[:, k], IRIS_SIZE) for k in (1, 2)]
    return cut(images, f[:, 0], MOUTH_SIZE), torch.stack(eyes, 1)


def masks(landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Where the mouth cavity and the visible irises are.

    Args:
        landmarks: [N, 478, 3] in crops.
    Returns: mouth [N, 1, 24, 32] and irises [N, 2, 1, 16, 32], values 0..1.
    """
    return mouth_masks(landmarks), iris_masks(landmarks)


def mouth_masks(landmarks: Tensor) -> Tensor:
    """Mouth masks [N, 1, 24, 32] in 0..1 of landmarks [N, 478, 3] in crops: 1 inside the inner lips."""
    made = np.zeros((len(landmarks), 1, *MOUTH_SIZE), np.float32)
    for mask, points in zip(made[:, 0], _in_patches(landmarks)):
        mask[:] = _filled(points[0, list(INNER_LIPS)], MOUTH_SIZE)
    return torch.as_tensor(made).to(landmarks)


def iris_masks(landmarks: Tensor) -> Tensor:
    """Iris masks [N, 2, 1, 16, 32] in 0..1 of landmarks [N, 478, 3] in crops: 1 on the visible iris."""
    made = np.zeros((len(landmarks), 2, 1, *IRIS_SIZE), np.float32)
    for both, points in zip(made[:, :, 0], _in_patches(landmarks)):
        for mask, eye, lids, iris in zip(both, points[1:], LIDS, IRISES):
            mask[:] = _filled(eye[list(lids)], IRIS_SIZE) * _disc(eye[list(iris)], IRIS_SIZE)
    return torch.as_tensor(made).to(landmarks)


def _in_patches(landmarks: Tensor) -> Array:
    """Landmarks in the coordinates of the three patches, [N, 3, 478, 2]."""
    f, xy = frames(landmarks).double(), landmarks[..., :2].double()
    return (
        torch.linalg.solve(f[..., :2], (xy[:, None] - f[:, :, None, :, 2]).transpose(-1, -2))
        .transpose(-1, -2)
        .cpu()
        .numpy()
    )


def statistics(images: Tensor, landmarks: Tensor) -> dict[str, Tensor]:
    """Mean and spread of a person's mouth-cavity and iris colours over many images.

    Args:
        images: [N, 3, H, W] in [-1, 1]. landmarks: [N, 478, 3] in crops.
    Returns: mouth [2, 3], iris [2, 3] (mean, standard deviation per channel).
    """
    mouth, irises = mouth_and_irises(images, landmarks)
    mouth_mask, iris_mask = masks(landmarks)
    found = {
        "mouth": _moments([(mouth, mouth_mask)], PLAIN),
        "iris": _moments([(irises.flatten(0, 1), iris_mask.flatten(0, 1))], PLAIN),
    }
    return {name: values.to(images) for name, values in found.items()}


class Recoloured:
    """Patches of a clip in another person's colours, computed on access.

    Only the original uint8 patches are stored. Storing the float16 result as well would triple the memory.
    """

    def __init__(self, patches: Array, have: Tensor, want: Tensor):
        """``have``: [T, 2, 3] mean and spread of the colours of each frame's shot; ``want``: [2, 3]."""
        self._patches, self._have, self._want = torch.as_tensor(patches), have, want

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Patches of the frames ``rows``: [R, ..., 3, h, w] float16 in [-1, 1]."""
        return _match(to_tensor(self._patches[rows]), self._have[rows], self._want).half()


class Outlined:
    """Masks of a clip, drawn on access: stored, they would take a third of a clip's memory."""

    def __init__(self, landmarks: Tensor, draw: Callable[[Tensor], Tensor]):
        self._landmarks, self._draw = landmarks, draw

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Masks of the frames ``rows``, in the shape of ``mouth_masks`` or ``iris_masks``."""
        return self._draw(self._landmarks[rows])


def targets(
    mouth: Array,
    irises: Array,
    landmarks: Tensor,
    wanted: dict[str, Tensor],
    shots: Sequence[tuple[slice, Array]] = (),
) -> tuple[Recoloured, Outlined, Recoloured, Outlined]:
    """The driver's patches in the avatar's colours, and their masks.

    Light and skin differ between two recordings, and between two shots of a clip. Mean and spread of the colours over
    a shot are therefore matched before pixels are compared.

    Args:
        mouth: [T, 24, 32, 3] uint8. irises: [T, 2, 16, 32, 3] uint8. landmarks: [T, 478, 3] of the driver, in crops.
        wanted: ``statistics`` of the avatar.
        shots: frames of each shot, and [T] bool, the frames whose colours count for it; () = one shot, all count.
    Returns: by frame: mouth [3, 24, 32], mouth mask [1, 24, 32], irises [2, 3, 16, 32], iris mask [2, 1, 16, 32].
    """
    mouth_mask, iris_mask = Outlined(landmarks, mouth_masks), Outlined(landmarks, iris_masks)
    shots = shots or [(slice(0, len(landmarks)), np.ones(len(landmarks), bool))]
    return (
        Recoloured(mouth, _colours(torch.as_tensor(mouth), mouth_mask, shots), wanted["mouth"]),
        mouth_mask,
        Recoloured(irises, _colours(torch.as_tensor(irises), iris_mask, shots), wanted["iris"]),
        iris_mask,
    )


def _colours(patches: Tensor, mask: Outlined, shots: Sequence[tuple[slice, Array]]) -> Tensor:
    """Mean and spread of the colours that each frame is matched by, [T, 2, 3]."""
    found = torch.zeros(len(patches), 2, 3)
    whole = _moments(_parts(patches, mask, np.any([frames for _, frames in shots], 0)), PLAIN)
    known = dict[bytes, Tensor]()  # short shots share their frames
    for shot, frames in shots:
        key = frames.tobytes()
        if key not in known:
            known[key] = whole if len(shots) == 1 else _moments(_parts(patches, mask, frames), whole)
        found[shot] = known[key]
    return found


def _parts(patches: Tensor, mask: Outlined, frames: Array) -> Iterator[tuple[Tensor, Tensor]]:
    """Patches [N, 3, h, w] and masks [N, 1, h, w] of the chosen frames, some at a time."""
    use = torch.as_tensor(frames)
    for part in (slice(k, k + CHUNK) for k in range(0, len(patches), CHUNK)):
        if bool(use[part].any()) or part.start == 0:
            x, m = to_tensor(patches[part])[use[part]], mask[part][use[part]]
            yield (x, m) if x.dim() == 4 else (x.flatten(0, 1), m.flatten(0, 1))


def _moments(parts: Iterable[tuple[Tensor, Tensor]], otherwise: Tensor) -> Tensor:
    """Mean and spread [2, 3] of patches [N, 3, h, w] under masks [N, 1, h, w], part by part; of few pixels another."""
    weight, total, squares = 0.0, torch.zeros(3, dtype=torch.double), torch.zeros(3, dtype=torch.double)
    for x, mask in parts:
        x, mask = x.double(), mask.double()
        weight += float(mask.sum())
        total = total + (x * mask).sum((0, 2, 3)).cpu()
        squares = squares + (x.square() * mask).sum((0, 2, 3)).cpu()
    if weight < 50:  # the mouth never opens there
        return otherwise
    mean = total / weight
    return torch.stack([mean, (squares / weight - mean.square()).clamp_min(0).sqrt().clamp_min(0.02)]).float()


def _match(x: Tensor, have: Tensor, want: Tensor) -> Tensor:
    """Patches x [R, ..., 3, h, w] with the colours ``have`` [R, 2, 3] in the colours ``want`` [2, 3]."""
    have, want = have.to(x), want.to(x)
    mean, gain = have[:, 0], (want[1] / have[:, 1]).clamp(0.5, 2.0)
    mean, gain = (v.reshape(len(v), *[1] * (x.dim() - 4), 3, 1, 1) for v in (mean, gain))
    return ((x - mean) * gain + want[0][:, None, None]).clamp(-1, 1)


def _filled(polygon: Array, size: tuple[int, int], fine: int = 4) -> Array:
    height, width = size
    xy = (polygon * [1, width / height] + 1) / 2 * [width, height] * fine - 0.5
    canvas = np.zeros((height * fine, width * fine), np.uint8)
    cv2.fillPoly(canvas, [np.round(xy * 16).astype(np.int32)], (255,), shift=4)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _disc(points: Array, size: tuple[int, int]) -> Array:
    height, width = size
    radius = np.linalg.norm(points[1:] - points[0], axis=1).mean()
    x = (np.arange(width) + 0.5) / width * 2 - 1
    y = ((np.arange(height) + 0.5) / height * 2 - 1) * height / width
    away = np.hypot(x[None] - points[0, 0], y[:, None] - points[0, 1])
    return np.clip((radius - away) / 0.05 + 0.5, 0, 1).astype(np.float32)
