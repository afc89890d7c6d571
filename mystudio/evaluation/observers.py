"""The networks that measure crops for an evaluation: landmarks, identity, expression, sharpness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mystudio.evaluation import metrics
from mystudio.evaluation.face_nets import Blendshapes, IdentityNet
from mystudio.types import Progress
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.recognition import find_weights, load_recognition
from selfscan.io.pixels import to_tensor

SIZE = 256  # px: everything is compared at this size, so that avatars of any resolution compare
FACES = 32  # most images of the scan, and frames of a clip, whose faces are recognised: 0.1 s each
SCAN_IMAGES = 100  # images of a scan that suffice to estimate the person's own spread


class EvaluationNets:
    """The networks of an evaluation.

    Args:
        identity_net: ONNX file of a face network, or None.
        blendshapes: MediaPipe's ``face_landmarker.task``, or None.
        device: where the landmark network runs.
    """

    def __init__(
        self, identity_net: str | Path | None, blendshapes: str | Path | None, device: torch.device | str = "cpu"
    ):
        self._mesh = load_facemesh(device=device)
        self.device = device
        self.identity = IdentityNet(identity_net) if identity_net else None
        self.blendshapes = Blendshapes(blendshapes) if blendshapes else None

    @torch.inference_mode()
    def measure(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Measure crops.

        Args: images: [N, H, W, 3] uint8 RGB.
        Returns: landmarks [N, 478, 3], presence [N], sharpness [N]; with the optional networks also
            identity [N, E] and blendshapes [N, 52].
        """
        landmarks, presence = crop_landmarks(self._mesh, to_tensor(images, self.device))
        seen = {"landmarks": landmarks.cpu().numpy(), "presence": presence.cpu().numpy()}
        return seen | self.measure_at(images, seen["landmarks"])

    def measure_at(self, images: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
        """Measure crops whose landmarks [N, 478, 3] are known."""
        seen = {"sharpness": metrics.sharpness(images, landmarks), "detail": metrics.detail(images, landmarks)}
        if self.identity:
            seen["identity"] = self.identity.embed(images, landmarks)
        if self.blendshapes:
            seen["blendshapes"] = self.blendshapes.weights(images)
        return seen

    def likeness(self, images: np.ndarray, landmarks: np.ndarray, person: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Likeness [N] of crops to a person's embeddings [M, 128]; nan where ``wanted`` [N] is False."""
        found = np.full(len(images), np.nan)
        if wanted.any():
            found[wanted] = metrics.likeness(load_recognition().embed(images[wanted], landmarks[wanted]), person)
        return found

    def measure_scan(self, images: np.ndarray, landmarks: np.ndarray, progress: Progress) -> dict[str, np.ndarray]:
        """Measure up to SCAN_IMAGES of a scan, evenly chosen: identity and sharpness, and the faces of some of them."""
        chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), SCAN_IMAGES)).round().astype(int))
        rows = []
        for start in range(0, len(chosen), 16):
            part = chosen[start : start + 16]
            row = {"sharpness": metrics.sharpness(images[part], landmarks[part])}
            if self.identity:
                row["identity"] = self.identity.embed(images[part], landmarks[part])
            rows.append(row)
            progress("measure the scan", start + len(part), len(chosen))
        some = chosen[:: max(1, -(-len(chosen) // FACES))]
        faces = {"faces": load_recognition().embed(images[some], landmarks[some])} if find_weights() else {}
        return join(rows) | faces

    def close(self) -> None:
        """Free native memory that the networks hold."""
        if self.blendshapes:
            self.blendshapes.close()


def join(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate batches of measurements along the frame axis."""
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
