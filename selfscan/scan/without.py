"""A scan without images that a person has looked at and does not want."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from selfscan.errors import UnknownImage
from selfscan.types import Scan

#: fields of a scan with one entry for each image; an older version stored no ``frame_corners``
OF_IMAGES = ("images", "landmarks", "frame_index", "quality", "frame_corners")


def without(scan: Scan, left_out: Collection[int]) -> Scan:
    """Leave images out of a scan; what was measured in the whole clip stays: coverage and ``clip_landmarks``.

    Args: left_out: numbers of images, as in ``scan.frame_index``.
    Returns: the scan itself where nothing is left out.
    Raises: UnknownImage: the scan has no image of such a number, or none is left.
    """
    if not left_out:
        return scan
    if unknown := sorted({*left_out} - {*scan.frame_index.tolist()}):
        raise UnknownImage(
            f"image {unknown[0]}: expected the number of an image of the scan, such as {scan.frame_index[0]}, got one "
            "that it does not hold; the names of the files in its folder images are the numbers"
        )
    stays = ~np.isin(scan.frame_index, list(left_out))
    if not stays.any():
        raise UnknownImage(f"all {len(scan)} images of the scan would be left out; keep some")
    return replace(scan, **{name: getattr(scan, name)[stays] for name in OF_IMAGES if len(getattr(scan, name))})
