"""Causal face localisation, frame by frame: the live counterpart of ``track`` and ``align``."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from selfscan.face import align
from selfscan.face.causal_cuts import CausalCuts
from selfscan.face.choose import LARGEST, SECOND_SHARE, check_wanted, wanted_number
from selfscan.face.facemesh import FaceMesh
from selfscan.face.follow import Follower, Sighting, face_width

STAYS = 0.05  # widths of a face that it moves at most from frame to frame where no cut lies between them
PATIENCE = 1.0  # s without the face after which a face of another size is accepted instead


@dataclass(frozen=True)
class Place:
    """Where the face is in one frame."""

    found: bool
    crop_from_frame: np.ndarray  # [2, 3] px to px; without a face the last crop, or at first the middle of the frame
    is_new: bool  # True: this may be another person than before
    is_cut: bool = False  # True: a cut of the stream lies before this frame
    second_face: bool = False  # another face of at least half this one's width is visible


class Locator:
    """Follows one face of a live stream: at first the widest and most central, then the same one until it is lost.

    Args:
        size: side of the crop, px.
        sigma: smoothing of the crop, frames; 0 = off. A line is fitted to past frames, weighted by half a Gaussian;
            steady motion is therefore not delayed.
        mesh: the landmark network; None = the shared one on the CPU.
        wanted: which face to follow where there are several: see ``choose.check_wanted``.
    """

    def __init__(self, size: int, sigma: float, mesh: FaceMesh | None = None, wanted: str = LARGEST):
        self._size, self._sigma, self._follower = size, sigma, Follower(mesh)
        self._past: deque[np.ndarray] = deque(maxlen=1 + int(np.ceil(align.KERNEL_RADIUS * sigma)))
        self._number, self._width, self._seen = -1, 0.0, -np.inf
        self._last: np.ndarray | None = None
        self._wanted, self._cuts = check_wanted(wanted), CausalCuts()
        self.faces: dict[int, Sighting] = {}  # all faces of the last frame

    def __call__(self, frame: np.ndarray, time: float) -> Place:
        """Find the face in the next frame.

        Args:
            frame: [H, W, 3] uint8 RGB. time: s.
        Returns: where the face is; ``found`` is False without a face.
        """
        before, faces = self.faces, self._follower.step(frame)
        self.faces = faces
        is_cut = self._is_cut(before, faces)
        if is_cut:
            self._past.clear()
            self._number, self._seen = -1, -np.inf
        number = self._choose(faces, (frame.shape[1], frame.shape[0]), time)
        if number is None:
            self._past.clear()
            return Place(False, self._middle(frame) if self._last is None else self._last, False, is_cut)
        points = faces[number][0]
        width = face_width(points)
        is_new = number != self._number and not _alike(width, self._width)
        if number != self._number:
            self._past.clear()
        self._number, self._width, self._seen = number, width, time
        self._past.append(align.ffhq_transform(points, self._size))
        here = self._last = align.smooth(np.stack(self._past), self._size, self._sigma)[-1]
        second = any(n != number and face_width(other) >= SECOND_SHARE * width for n, (other, _) in faces.items())
        return Place(True, here, is_new, is_cut, second)

    def close(self) -> None:
        """Free the detector."""
        self._follower.close()

    def _choose(self, faces: dict[int, Sighting], size: tuple[int, int], time: float) -> int | None:
        if self._number in faces:
            return self._number
        if time - self._seen <= PATIENCE:
            faces = {number: face for number, face in faces.items() if _alike(face_width(face[0]), self._width)}
        return wanted_number(faces, size, self._wanted)

    def _is_cut(self, before: dict[int, Sighting], faces: dict[int, Sighting]) -> bool:
        stays = any(
            np.linalg.norm(faces[n][0][:, :2] - before[n][0][:, :2], axis=1).mean() < STAYS * face_width(before[n][0])
            for n in before.keys() & faces.keys()
        )
        picture = self._follower.picture
        return picture is not None and self._cuts.step(picture, stays)

    def _middle(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        scale = self._size / min(height, width)
        return align.similarity(np.array(scale), np.array(0.0), np.array([width / 2, height / 2]), self._size)


def _alike(width: float, other: float) -> bool:
    return 0.5 * other < width < 2 * other
