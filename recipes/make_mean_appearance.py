"""Compute the mean appearance of many people's faces, which ``selfscan.scan.identity`` subtracts.

python recipes/make_mean_appearance.py FOLDER_OF_FFHQ_ALIGNED_FACES selfscan/data/mean_appearance.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from selfscan.face.facemesh import load_facemesh
from selfscan.face.observe import measure
from selfscan.scan import identity

BATCH = 16
SURE = 0.9  # least confidence of the landmark network


def appearances(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights [N, G] of all confidently detected faces of a folder."""
    mesh, found = load_facemesh(), []
    files = sorted([*folder.glob("*.jpg"), *folder.glob("*.png")])
    for start in range(0, len(files), BATCH):
        images = np.stack([cv2.imread(str(file))[..., ::-1] for file in files[start : start + BATCH]])
        landmarks, presence = measure(mesh, images)
        small = np.stack([cv2.resize(x, (identity.SIDE,) * 2, interpolation=cv2.INTER_AREA) for x in images])
        sure = presence > SURE
        found.append(identity.texture(small[sure], landmarks[sure]))
    return tuple(np.concatenate(part) for part in zip(*found))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    values, weights = appearances(given.faces)
    np.savez(given.out, mean=((values * weights).sum(0) / weights.sum(0)).astype(np.float32))


if __name__ == "__main__":
    main()
