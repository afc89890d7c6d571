"""The recipe tables of ``hyper``: of personalize and reenact, and of its training (recipes/hyper*.toml)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mystudio.motion.retarget import RetargetSettings


@dataclass(frozen=True)
class LookSettings:
    """How the person's look is read."""

    images: int = 16  # evenly chosen images of the scan whose looks are averaged; a photo is one


@dataclass(frozen=True)
class DriveSettings:
    """How the generator is changed."""

    start: Literal["trained", "driver", "source"] = "trained"  # w before the change: with the driver's motion (baseline
    #   0), or the photo's own, as in the paper; trained = as while the weights were trained


@dataclass(frozen=True)
class PersonalizeSettings:
    """Recipe tables of ``personalize``."""

    look: LookSettings = field(default_factory=LookSettings)


@dataclass(frozen=True)
class ReenactSettings:
    """Recipe tables of ``reenact`` and ``follow``."""

    retarget: RetargetSettings = field(default_factory=RetargetSettings)
    drive: DriveSettings = field(default_factory=DriveSettings)


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of the networks; the defaults have 17 million weights for a generator of 128 px."""

    width: int = 256  # channels of all maps of 7 x 7
    features: int = 128  # numbers of a layer's block feature; a take stores them
    rank: int = 48  # numbers for each input channel between a block feature and its offsets
    identity: int = 256  # numbers of the appearance network's embedding
    appearance: Literal["own", "arcface"] = "own"  # network that reads the photo; arcface = with weights of yours
    start: Literal["driver", "source"] = "driver"  # w before the changes: with the driver's motion
    #   (baseline 0), or the photo's own, as in the paper


@dataclass(frozen=True)
class FacesSettings:
    """First phases: appearance and pose networks, which are frozen afterwards."""

    arcface: str = ""  # file of ArcFace's weights (model_ir_se50.pth or .safetensors), if model.appearance is arcface
    appearance_kimg: float = 120.0  # thousand images of the own appearance network; 0 = skipped
    pose_kimg: float = 120.0  # thousand motions of the pose network; 0 = skipped
    batch: int = 32  # images a step
    rate: float = 1e-3  # learning rate of Adam, cosine decay
    scale: float = 24.0  # of the margin loss's logits (ArcFace: 64, for 512 numbers and more people)
    angle: float = 0.3  # margin, radians (ArcFace: 0.5)
    points: float = 1.0  # weight of the landmark network's keypoints, the only lesson from portraits


@dataclass(frozen=True)
class CurriculumSettings:
    """The paper's three phases, and the weights of its losses."""

    inversion_kimg: float = 60.0  # thousand images: source and driver are one picture
    self_kimg: float = 100.0  # thousand images: two pictures of one person
    cross_kimg: float = 100.0  # thousand images: two people, against the true frame of the groups
    batch: int = 8  # images a step
    rate: float = 1e-4  # learning rate of Adam (paper: 1e-4), cosine decay
    pixels: float = 10.0  # weight of the mean absolute difference (paper: 10)
    lpips: float = 5.0  # weight of the perceptual distance (paper: 5)
    identity: float = 10.0  # weight of 1 - cosine of the appearance network's embeddings (paper: 10)
    shape: float = 0.5  # weight of the distance of landmarks in sizes of their part (paper: 0.5, of a 3D shape)
    gaze: float = 2.0  # weight of the distance of irises in eye widths (paper: 2)


@dataclass(frozen=True)
class RunSettings:
    """What all phases share."""

    portraits: float = 0.25  # share of the sources that are portraits, where there are any
    seed: int = 0  # of weights and of the order of the data
    tick_kimg: float = 1.0  # thousand images between two rows of metrics.jsonl
    sheet_every: int = 5  # ticks between two sheets; 0 = none
    save_every: int = 5  # ticks between two checkpoints


@dataclass(frozen=True)
class TrainSettings:
    """Recipe tables of ``mystudio engines train hyper``."""

    model: ModelSettings = field(default_factory=ModelSettings)
    faces: FacesSettings = field(default_factory=FacesSettings)
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)
    run: RunSettings = field(default_factory=RunSettings)
