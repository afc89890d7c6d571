"""What engines take from a scan in the same way."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch have gaps)

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mystudio.errors import ConsentRequired
from selfscan.face.align import inside_frame
from selfscan.io.pixels import to_tensor
from selfscan.types import Array, Scan


def check_consent(scan: Scan) -> None:
    """Raise ConsentRequired if a scan has no consent record."""
    if not scan.consent.name:
        raise ConsentRequired(
            "an avatar needs a scan with a consent record; scan again with --i-am-the-person-or-have-consent NAME"
        )


def sized(images: Array, resolution: int) -> Tensor:
    """Images [N, S, S, 3] uint8 at a generator's resolution, [N, 3, H, H] in [-1, 1]."""
    found = to_tensor(images)
    if found.shape[-1] != resolution:
        found = torch.cat(
            [
                F.interpolate(part, (resolution, resolution), mode="bicubic", antialias=True, align_corners=False)
                for part in found.split(16)
            ]
        )
    return found.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def seen_of(scan: Scan, resolution: int, device: torch.device | str = "cpu") -> Tensor | None:
    """Which pixels of the scan images the camera saw, [N, 1, H, W] bool; None if it saw all, or if nobody stored it."""
    inside = inside_frame(scan.frame_corners, resolution)
    return None if inside.all() else torch.as_tensor(inside[:, None]).to(device)
