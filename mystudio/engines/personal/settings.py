"""The recipe tables of the personal engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from mystudio.engines.personal.anchors import InvertSettings
from mystudio.engines.personal.problem import SolveSettings
from mystudio.engines.personal.regress import RegressSettings
from mystudio.engines.personal.tune import TuneSettings
from mystudio.motion.retarget import RetargetSettings


@dataclass(frozen=True)
class PersonalizeSettings:
    """Recipe tables of ``personalize``."""

    invert: InvertSettings = field(default_factory=InvertSettings)
    personalize: TuneSettings = field(default_factory=TuneSettings)
    regress: RegressSettings = field(default_factory=RegressSettings)


@dataclass(frozen=True)
class ReenactSettings:
    """Recipe tables of ``reenact`` and ``follow``."""

    retarget: RetargetSettings = field(default_factory=RetargetSettings)
    reenact: SolveSettings = field(default_factory=SolveSettings)
