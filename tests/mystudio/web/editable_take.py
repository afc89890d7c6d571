"""An avatar that offers edits, and the pixels of a picture."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from mystudio.engines.personal.space import AnchorSpace
from mystudio.types import Avatar
from selfscan.types import Array


def with_edits(avatar: Avatar, *names: str) -> Avatar:
    """The avatar with directions of these names, in the span of its anchors."""
    draw = torch.Generator().manual_seed(3)
    axes = AnchorSpace.of(avatar.state.anchors, 8).axes
    directions = {name: 0.8 * torch.randn(8, generator=draw) @ axes for name in names}
    return replace(avatar, state=replace(avatar.state, directions=directions))


def picture(content: bytes) -> Array:
    """The pixels [H, W, 3] of a PNG."""
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
