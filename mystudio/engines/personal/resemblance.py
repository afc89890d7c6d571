"""How much a generator's pictures look like the person of a scan, by the face recognition network."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch have gaps)

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mystudio.stylegan2.generator import Generator
from selfscan.face import recognition
from selfscan.io.pixels import to_uint8
from selfscan.types import Array

COMPARED = 16  # scan images that are compared, evenly chosen


class Resemblance:
    """The person's own pictures, measured once; then any generator that draws the same anchors.

    Args:
        images: [N, 3, H, W] of the scan in [-1, 1]. landmarks: [N, 478, 3] in crops. anchors: [N, D].
    Raises:
        ModelMissing: the face recognition network is not installed.
    """

    def __init__(self, images: Tensor, landmarks: Tensor, anchors: Tensor):
        rows = np.unique(np.linspace(0, len(images) - 1, COMPARED).round().astype(int))
        self._network, self._anchors = recognition.load_recognition(), anchors[rows]
        self._marks = landmarks[rows].cpu().numpy()
        self._faces = self._network.embed(to_uint8(images[rows]), self._marks)
        self.own = self._mean(self._faces)

    @torch.no_grad()
    def of(self, generator: Generator) -> float:
        """Mean likeness of drawn pictures to the scan's of other moments; ``own`` is that of the scan's pictures."""
        anchors = self._anchors.to(next(generator.parameters()).device)
        made = [to_uint8(generator(generator.broadcast(w)).clamp(-1, 1)) for w in anchors.split(1)]
        return self._mean(self._network.embed(np.concatenate(made), self._marks))

    def _mean(self, faces: Array) -> float:
        other = ~np.eye(len(faces), dtype=bool)
        return float(recognition.likeness(faces, self._faces)[other].mean())
