"""Whether an edited picture still shows the person: an edit must change a face's motion, not whose face it is.

Two measures are compared with the unedited picture. The picture at a few pixels shows hair, light and shape, whatever
the eyes and the mouth do. Face recognition, where it is installed, shows the face itself.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch have gaps)

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from selfscan.face import recognition
from selfscan.io.pixels import to_uint8

COARSE = 24  # px of the small picture
FAR = 0.11  # mean difference of small pictures, of [-1, 1], beyond which it is another picture
ALIKE = 0.6  # least likeness of the faces; dlib takes 0.4 and more for one person on photographs of different days


class Identity:
    """The person on one picture.

    Args: image: [1, 3, H, W] in [-1, 1]. landmarks: [1, 478, 3] in it (0..1).
    """

    def __init__(self, image: Tensor, landmarks: Tensor):
        self._network = recognition.load_recognition() if recognition.find_weights() else None
        self._small, self._face = _small(image), self._embed(image, landmarks)

    def kept(self, image: Tensor, landmarks: Tensor, turned: bool = False) -> bool:
        """Whether another picture [1, 3, H, W] shows the same person in the same surroundings.

        Args: turned: the head turned, which moves all that the small picture shows; the face alone is compared.
        """
        if not turned and float((_small(image) - self._small).abs().mean()) > FAR:
            return False
        found = self._embed(image, landmarks)
        if found is None or self._face is None:
            return True
        return float(recognition.likeness(found, self._face)[0, 0]) >= ALIKE

    def _embed(self, image: Tensor, landmarks: Tensor) -> np.ndarray | None:
        return self._network.embed(to_uint8(image), landmarks.cpu().numpy()) if self._network else None


def _small(image: Tensor) -> Tensor:
    return functional.interpolate(image, size=(COARSE, COARSE), mode="area")
