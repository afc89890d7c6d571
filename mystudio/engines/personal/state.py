"""What an avatar of the personal engine holds besides its generator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mystudio.engines.personal.space import AnchorSpace
from mystudio.errors import BadArtifact
from mystudio.types import Avatar
from selfscan.types import NUM_LANDMARKS, Array, check_shape

NAME = "personal"
AXES = "axes"  # name of a take's codes: [T, L, K] coordinates on the anchors' principal axes, one row a layer


@dataclass(frozen=True)
class State:
    """The personal engine's part of an avatar."""

    anchors: Tensor  # [N, D] float32 in W
    anchor_ids: Array  # [N] int64 frame indices of the scan
    anchor_keypoints: Tensor  # [N, 478, 3] landmarks of the scan images, in crops (0..1)
    directions: dict[str, Tensor]  # name -> [D] W direction; strength 1 = one visible unit
    regressor: dict[str, Tensor]  # state dict of keypoints -> code (regress.py)
    statistics: dict[str, Tensor]  # mean and spread of mouth and iris pixels over the scan (motion/retarget.py)

    def __post_init__(self):
        n = len(self.anchors)
        check_shape("anchor_ids", self.anchor_ids, (n,))
        check_shape("anchor_keypoints", self.anchor_keypoints, (n, NUM_LANDMARKS, 3))

    @cached_property
    def space(self) -> AnchorSpace:
        """The code space: as many principal axes of the anchors as the regressor has outputs."""
        return AnchorSpace.of(self.anchors, len(self.regressor["code_mean"]))


def state_of(avatar: Avatar) -> State:
    """An avatar's state as the personal engine's. Raises BadArtifact: another engine made it."""
    if not isinstance(avatar.state, State):
        raise BadArtifact(f"expected an avatar of the engine {NAME!r}, got one of {avatar.engine!r}; make it again")
    return avatar.state
