"""Colour matrices of ITU-T H.273 that swscale does not know: luma and chroma become R'G'B' with numpy.

YCgCo, constant luminance (BT.2020 and derived from the primaries), ICtCp (BT.2100-2, table 7), IPT-PQ-C2 (SMPTE ST
2128, Dolby Vision), and matrices derived from the primaries. Such clips are rare; a frame in HD takes some tenths of a
second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

YCGCO, CONSTANT, DERIVED, DERIVED_CONSTANT, ICTCP, IPT = 8, 10, 12, 13, 14, 15
NAMES = {
    YCGCO: "YCgCo",
    CONSTANT: "BT.2020 with constant luminance",
    DERIVED: "derived from the primaries",
    DERIVED_CONSTANT: "constant luminance, derived from the primaries",
    ICTCP: "ICtCp",
    IPT: "IPT-PQ-C2",
}
PQ, HLG = 16, 18
CROSSTALK = 0.02  # of IPT-PQ-C2: share of each other cone in a cone's signal
STORED = "yuv444p16le"  # pixel format whose planes are converted
ALPHA, BETA = 1.09929682680944, 0.018053968510807  # of the transfer of BT.709 and BT.2020
Curve = Callable[[Any], Any]


def rgb(planes: Any, matrix: int, luma: Any, transfer: int) -> Any:
    """Convert planes to R'G'B'.

    Args:
        planes: [3, H, W] luma 0..1 and chroma -0.5..0.5, scaled as the range says (``unpacked``).
        matrix: one of ``NAMES``. luma: [3] share of linear red, green and blue in the luminance.
        transfer: number of ITU-T H.273.
    Returns: [H, W, 3] float32 in 0..1.
    """
    import numpy as np

    y, cb, cr = planes
    red, green, blue = (float(value) for value in luma)
    found: Any
    if matrix == YCGCO:  # Cg takes the place of Cb, Co that of Cr
        found = y - cb + cr, y + cb, y - cb - cr
    elif matrix == DERIVED:
        r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
        found = r, (y - red * r - blue * b) / green, b
    elif matrix == ICTCP:
        found = np.moveaxis(_ictcp(np.stack([y, cb, cr], -1), transfer), -1, 0)
    elif matrix == IPT:
        found = np.moveaxis(_ipt(np.stack([y, cb, cr], -1)), -1, 0)
    else:
        code, decode = _curves(transfer)
        b = y + 2 * cb * np.where(cb > 0, 1 - code(np.float32(blue)), code(np.float32(1 - blue)))
        r = y + 2 * cr * np.where(cr > 0, 1 - code(np.float32(red)), code(np.float32(1 - red)))
        found = r, code((decode(y) - red * decode(r) - blue * decode(b)) / green), b
    return np.stack(found, -1).clip(0, 1).astype(np.float32)


def unpacked(planes: Any, full: bool) -> Any:
    """Planes [3, H, W] uint16 as numbers: luma 0..1, chroma -0.5..0.5 (H.273, 16 bits a number)."""
    import numpy as np

    values = planes.astype(np.float32)
    if full:
        scaled = (values - np.array([0, 32768, 32768], np.float32)[:, None, None]) / 65535
    else:
        base = np.array([16, 128, 128], np.float32)[:, None, None] * 256
        scaled = (values - base) / (np.array([219, 224, 224], np.float32)[:, None, None] * 256)
    return scaled.clip(np.array([0, -0.5, -0.5])[:, None, None], np.array([1, 0.5, 0.5])[:, None, None])


def _ictcp(values: Any, transfer: int) -> Any:
    """ICtCp [H, W, 3] to R'G'B'; the curve is PQ, or HLG if the transfer says so."""
    import numpy as np

    lms_from_rgb = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
    rows = (
        [[3625, -7465, 3840], [9500, -9212, -288]] if transfer == HLG else [[6610, -13613, 7003], [17933, -17390, -543]]
    )
    ictcp_from_lms = np.array([[2048, 2048, 0], *rows]) / 4096
    code, decode = _curves(HLG if transfer == HLG else PQ)
    light = decode((values @ np.linalg.inv(ictcp_from_lms).T).clip(0, 1)) @ np.linalg.inv(lms_from_rgb).T
    return code(light)


def _ipt(values: Any) -> Any:
    """IPT-PQ-C2 [H, W, 3] to R'G'B' of PQ with BT.2020 primaries: the cones of Hunt, Pointer and Estevez for D65."""
    import numpy as np

    ipt_from_lms = np.array([[0.4, 0.4, 0.2], [4.455, -4.851, 0.396], [0.8056, 0.3572, -1.1628]])
    lms_from_xyz = np.array([[0.4002, 0.7076, -0.0808], [-0.2263, 1.1653, 0.0457], [0, 0, 0.9182]])
    xyz_from_rgb = np.array([[0.636958, 0.144617, 0.168881], [0.262700, 0.677998, 0.059302], [0, 0.028073, 1.060985]])
    mixed = CROSSTALK + (1 - 3 * CROSSTALK) * np.eye(3)
    signal = (values @ np.linalg.inv(ipt_from_lms).T).clip(0, 1)
    light = _pq_back(signal) @ np.linalg.inv(mixed @ lms_from_xyz @ xyz_from_rgb).T
    return _pq(light)


def _curves(transfer: int) -> tuple[Curve, Curve]:
    """A transfer from light 0..1 to a signal, and back."""
    if transfer in (PQ, HLG):
        return (_pq, _pq_back) if transfer == PQ else (_hlg, _hlg_back)
    return _camera, _camera_back


def _camera(light: Any) -> Any:
    import numpy as np

    light = np.maximum(light, 0)
    return np.where(light < BETA, 4.5 * light, ALPHA * light**0.45 - (ALPHA - 1))


def _camera_back(signal: Any) -> Any:
    import numpy as np

    signal = np.maximum(signal, 0)
    return np.where(signal < 4.5 * BETA, signal / 4.5, ((signal + ALPHA - 1) / ALPHA) ** (1 / 0.45))


def _pq(light: Any) -> Any:
    import numpy as np

    root = np.maximum(light, 0) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)


def _pq_back(signal: Any) -> Any:
    import numpy as np

    root = np.maximum(signal, 0) ** (32 / 2523)
    return (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)


def _hlg(light: Any) -> Any:
    import numpy as np

    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.maximum(light, 0)
    return np.where(light <= 1 / 12, np.sqrt(3 * light), a * np.log(np.maximum(12 * light - b, 1e-9)) + c)


def _hlg_back(signal: Any) -> Any:
    import numpy as np

    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
