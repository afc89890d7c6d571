"""Compute the canonical head: the neutral, symmetric mean of faces measured by the landmark network.

    python recipes/make_canonical.py FOLDER_OF_FFHQ_ALIGNED_FACES selfscan/data/canonical.npz

Generalised Procrustes analysis (Gower, 1975) over faces with closed mouths. A similarity transform of rigid points
aligns every face with the mean. The faces are averaged, and the mean is averaged with its mirror image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.headpose import procrustes
from selfscan.face.landmarks import LIP_GAP, MOUTH_CORNERS, OUTER_EYE_CORNERS, RIGID
from selfscan.io.pixels import to_tensor

BATCH = 16
ROUNDS = 20  # the mean moves less than 1e-6 head units after 10
CLOSED_MOUTH = 0.04  # largest gap between the inner lips, in mouth widths; about half of the faces have a smaller one
SURE = 0.9  # least confidence of the landmark network


def measure(folder: Path) -> np.ndarray:
    """Landmarks [N, 478, 3], in crops, of all confidently detected faces of a folder."""
    mesh, found = load_facemesh(), []
    files = sorted([*folder.glob("*.jpg"), *folder.glob("*.png")])
    for start in range(0, len(files), BATCH):
        images = np.stack([cv2.imread(str(file))[..., ::-1] for file in files[start : start + BATCH]])
        batch = to_tensor(images)
        with torch.no_grad():
            landmarks, presence = crop_landmarks(mesh, batch.contiguous(memory_format=torch.channels_last))
        found.append(landmarks[presence > SURE].double().numpy())
    return np.concatenate(found)


def closed_mouth(faces: np.ndarray) -> np.ndarray:
    """Which faces [N, 478, 3] have a closed mouth: [N] bool."""
    gap, width = (np.linalg.norm(faces[:, a] - faces[:, b], axis=-1) for a, b in (LIP_GAP, MOUTH_CORNERS))
    return gap < CLOSED_MOUTH * width


def mirror_pairs(head: np.ndarray) -> np.ndarray:
    """Index [478] of each point's mirror image."""
    centred = head - head.mean(0)
    pairs = linear_sum_assignment(cdist(centred * [-1, 1, 1], centred, "sqeuclidean"))[1]
    if not (pairs[pairs] == np.arange(len(head))).all():
        raise ValueError("the mean face is not symmetric enough to pair its points; use more faces")
    return pairs


def mean_head(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric Procrustes mean of faces [N, 478, 3] and its mirror pairs [478], in head units."""
    rigid = list(RIGID)
    head = faces.mean(0)
    for _ in range(ROUNDS):
        scale, rotation, shift = procrustes(head[rigid], faces[:, rigid])
        laid = np.einsum("tji,tnj->tni", rotation, faces - shift[:, None]) / scale[:, None, None]
        head = laid.mean(0)
        head -= head[rigid].mean(0)
        pairs = mirror_pairs(head)
        head = (head + head[pairs] * [-1, 1, 1]) / 2
        head /= np.linalg.norm(np.subtract(*head[list(OUTER_EYE_CORNERS)]))
    return head, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, help="folder of FFHQ-aligned .jpg or .png images of one size")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    faces = measure(args.faces)
    calm = closed_mouth(faces)
    head, pairs = mean_head(faces[calm])
    np.savez(args.out, landmarks=head.astype(np.float32), mirror=pairs.astype(np.int16))
    print(f"{calm.sum()} of {len(faces)} faces with closed mouths -> {args.out}")


if __name__ == "__main__":
    main()
