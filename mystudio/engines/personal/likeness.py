"""How far generated images are from the scan images: the perceptual distance of several views, and of landmarks."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mystudio.motion import losses
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.perceptual.metric import Perceptual

BATCH = 8  # scan images embedded at once


class Likeness:
    """A weighted distance to the scan images, whose embeddings and landmarks are computed once.

    Args:
        perceptual: the perceptual distance. images: [N, 3, H, W] of the scan in [-1, 1].
        views: weight, and function from images to the part and size that is compared.
        landmarks: weight of the distance of landmarks; 0 = they are not measured.
        detail: weight of the perceptual distance of a part at full size, in ``distance``; 0 = none.
        side: of that part, px.
        texture: weight of the difference of ``losses.texture``; 0 = none.
    """

    def __init__(
        self,
        perceptual: Perceptual,
        images: Tensor,
        views: Sequence[tuple[float, Callable[[Tensor], Tensor]]],
        landmarks: float,
        detail: float = 0.0,
        side: int = 0,
        texture: float = 0.0,
    ):
        self._images, self._detail, self._side = images, detail, min(side, images.shape[-1])
        self._perceptual, self._views, self._weight, self._texture = perceptual, views, landmarks, texture
        self._mesh = load_facemesh(device=images.device) if landmarks else None
        parts = images.split(BATCH)
        with torch.no_grad():
            self._aims = [torch.cat([perceptual.embed(view(part)) for part in parts]) for _, view in views]
            self._fine = torch.cat([losses.texture(part) for part in parts]) if texture else None
            if self._mesh:
                self._marks = torch.cat([crop_landmarks(self._mesh, part)[0] for part in parts])

    def distance(self, made: Tensor, rows: Tensor | list[int], draw: torch.Generator | None = None) -> Tensor:
        """Distance [B] of generated images [B, 3, H, W] from the scan images ``rows``.

        ``draw`` places the part at full size; without it, no part is compared.
        """
        made = made.float()
        total = made.new_zeros(len(made))
        for (weight, view), aims in zip(self._views, self._aims):
            total = total + weight * self._perceptual.distance_to(view(made), aims[rows])
        if self._detail and draw is not None and self._side < made.shape[-1]:
            top, left = torch.randint(made.shape[-1] - self._side + 1, (2,), generator=draw).tolist()
            part = (..., slice(top, top + self._side), slice(left, left + self._side))
            with torch.no_grad():
                aim = self._perceptual.embed(self._images[rows][part])
            total = total + self._detail * self._perceptual.distance_to(made[part], aim)
        if self._fine is not None:
            total = total + self._texture * (losses.texture(made) - self._fine[rows]).abs().mean(1)
        if self._mesh:
            total = total + self._weight * losses.landmarks(crop_landmarks(self._mesh, made)[0], self._marks[rows])
        return total


def where_seen(made: Tensor, images: Tensor, seen: Tensor | None) -> Tensor:
    """Generated images with the scan's own pixels where the camera saw nothing, so that no loss acts there.

    Args:
        made, images: [B, 3, H, W], generated and of the scan.
        seen: [B, 1, H, W] bool; None = everything was seen.
    """
    return made if seen is None else torch.where(seen, made, images.to(made.dtype))
