"""Settings of the hybrid engine: of its training (recipes/hybrid*.toml), and of avatars."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

from dataclasses import dataclass, field

from mystudio.engines.hybrid.network import ModelSettings
from mystudio.motion.retarget import RetargetSettings
from mystudio.oneshot.adjust import AdjustSettings
from mystudio.oneshot.loop import LoopSettings


@dataclass(frozen=True)
class StagesSettings:
    """The three stages of training. The base's own samples give both codes exactly; then true frames; then photos."""

    latents: float = 60.0  # thousand rows of codes alone, from the base's own samples; 0 = the stage is skipped
    frames: float = 100.0  # thousand rows against true frames of actors
    portraits: float = 60.0  # thousand rows with portraits among the sources
    batch: int = 8  # rows a step (paper: 8)
    share: float = 0.33  # of the sources in the last stage that are portraits
    rate: float = 5e-4  # learning rate of Adam in the first stage, cosine decay in each stage
    later_rate: float = 2e-4  # in the other two stages (paper: 1e-4)
    grow: int = 200  # steps of the second stage between two layers whose code may leave w0 (e4e: 2000)
    blind: float = 0.1  # share of drivers whose pixels are hidden, so that keypoints alone suffice
    e4e: str = ""  # path of e4e's checkpoint, whose identity encoder (256 px) takes the place of our own; "" = our own
    seed: int = 0  # of weights and rows


@dataclass(frozen=True)
class LossSettings:
    """Weights of the losses."""

    pixel: float = 1.0  # mean squared error against the true frame (paper: 1)
    perceptual: float = 0.8  # perceptual distance of the whole picture and of the face (paper: .8)
    eyes: float = 0.4  # perceptual distance of the enlarged eyes, which are 1 % of the pixels (paper: 0)
    landmarks: float = 0.3  # distance of landmarks from the true frame's (paper: 0); 0 = ablated, not measured
    identity: float = 0.5  # 1 - cosine of face features (paper: .1, of ArcFace)
    cycle_w: float = 0.1  # codes of the drawn picture, encoded again, against the source's
    cycle_s: float = 0.1  # offsets that the same motion gives with the drawn picture as source, against the source's
    back: float = (
        0.5  # distance of the source from its picture, drawn in another motion and back; where no frame is true
    )
    norm: float = 1e-3  # mean square of the style offsets
    deltas: float = 1e-3  # mean square of the layers' offsets from w0 (e4e: 2e-4)
    critic: float = 0.05  # the critic of W (e4e: .1)
    critic_rate: float = 2e-4  # learning rate of Adam for the critic (e4e: 2e-5)
    r1: float = 10.0  # weight of the critic's slope penalty (e4e: 10)
    r1_every: int = 16  # steps between two penalties
    view: int = 128  # px at which perceptual distances are taken; 0 = full size


@dataclass(frozen=True)
class TrainSettings:
    """All tables of a training recipe."""

    model: ModelSettings = field(default_factory=ModelSettings)
    stages: StagesSettings = field(default_factory=StagesSettings)
    losses: LossSettings = field(default_factory=LossSettings)
    run: LoopSettings = field(default_factory=LoopSettings)


@dataclass(frozen=True)
class SourceSettings:
    """Which photos an avatar is made of."""

    photos: int = 8  # photos of a scan at most, the most neutral ones; their identity codes are averaged


@dataclass(frozen=True)
class PersonalizeSettings:
    """The recipe tables [hybrid.source] and [hybrid.adjust]."""

    source: SourceSettings = field(default_factory=SourceSettings)
    adjust: AdjustSettings = field(default_factory=AdjustSettings)


@dataclass(frozen=True)
class ReenactSettings:
    """The shared recipe table [retarget]."""

    retarget: RetargetSettings = field(default_factory=RetargetSettings)
