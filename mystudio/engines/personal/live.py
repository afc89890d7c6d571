"""Live codes of the personal engine: the regressor's start codes, without a solver."""

from __future__ import annotations

import torch
from torch import Tensor

from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.settings import ReenactSettings
from mystudio.engines.personal.start import StartCodes
from mystudio.engines.personal.state import AXES, state_of
from mystudio.engines.protocol import Follower
from mystudio.motion.retarget import change_and_measures
from mystudio.types import Avatar, Codes


def follow(avatar: Avatar, settings: ReenactSettings, device: torch.device | str = "cpu") -> Follower:
    """The function that drives an avatar live: landmarks of one frame -> codes [1, 1, K], one row for all layers.

    The networks are small, so they run on the CPU even if ``device`` is a GPU.
    """
    state = state_of(avatar)
    start = StartCodes(Regressor.load(state.regressor), state.space, state.anchor_keypoints, settings.reenact.match)

    def codes(landmarks: Tensor, driver_neutral: Tensor) -> Codes:
        found = start(*change_and_measures(landmarks, avatar.neutral, driver_neutral, settings.retarget))
        return {AXES: found[:, None]}

    return codes
