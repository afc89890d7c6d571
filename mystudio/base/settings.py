"""Settings of base training; the recipes recipes/base-*.toml set them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mystudio.base.augment import AugmentSettings
from mystudio.compute.compilation import Precision


@dataclass(frozen=True)
class ModelSettings:
    """Architecture of the generator; the discriminator has equal widths."""

    resolution: int = 256  # px
    z_dim: int = 128  # size of z: an actor's code, then random numbers
    w_dim: int = 256  # size of w (StyleGAN2: 512)
    mapping_layers: int = 4  # layers of the mapping network (StyleGAN2: 8)
    channel_base: int = 8192  # a block of r px has channel_base / r channels, ...
    channel_max: int = 384  # ... but at most so many: 4.1 GMAC a forward pass, 20.7 MB as fp16 (StyleGAN2: 512)


@dataclass(frozen=True)
class SupervisedSettings:
    """First phase: the generator regresses an actor's image from its code."""

    kimg: float = 600.0  # thousand images; 0 = the phase is skipped
    batch: int = 64  # images a step, over all processes
    rate: float = 2e-2  # learning rate of Adam, cosine decay to a twentieth (at 32 px 0.03 beat 0.01 and 0.003)
    mapping: float = 1.0  # factor on the mapping network's learning rate, on top of StyleGAN2's 0.01
    levels: int = 5  # image sizes at which the mean absolute difference is taken
    perceptual: float = 0.5  # weight of the perceptual distance; 0 = none
    view: int = 128  # px of its two views, the reduced whole image and the cropped face; 0 = the whole image alone
    eyes: float = 0.0  # weight of the perceptual distance of the enlarged eyes, as a multiple of ``perceptual``
    landmarks: float = 0.0  # weight of the distance of keypoints, measured by the landmark network
    lids: float = 0.0  # weight of the distance of lid gaps and brows, measured likewise
    pairs: float = 0.0  # weight of the change within pairs of images: 2k and 2k + 1 of data with codes, of one person
    read: float = 0.0  # weight of the loss of inferring codes; > 0: images without a code take part by inferred codes
    prior: float = 2e-3  # weight of the inferred codes' divergence from the standard normal
    read_rate: float = 1e-3  # learning rate of Adam for the reader (``base.reader``)


@dataclass(frozen=True)
class AdversarialSettings:
    """Second phase: adversarial training, as StyleGAN2 with adaptive augmentation."""

    kimg: float = 2000.0  # thousand images; 0 = the phase is skipped
    batch: int = 64  # images a step, over all processes
    rate: float = 2.5e-3  # learning rate of Adam for the generator (stylegan2-ada: 0.0025)
    critic_rate: float = 2.5e-3  # learning rate of Adam for the discriminator
    wait_kimg: float = 5.0  # thousand images that train the discriminator alone at first, to protect the generator
    r1: float = 0.2  # weight of the gradient penalty (stylegan2-ada: 0.0002 resolution^2 / batch)
    r1_every: int = 16  # steps between two penalties (StyleGAN2: 16); 0 = never
    path: float = 2.0  # weight of the path length regulariser (StyleGAN2: 2)
    path_every: int = 4  # steps between two uses of it (StyleGAN2: 4); 0 = never
    path_decay: float = 0.01  # share of a batch's mean length in the running mean (StyleGAN2: 0.01)
    mixing: float = 0.0  # share of samples with style mixing: two w for the layers of one image (StyleGAN2: 0.9)
    noise: Literal["random", "const", "none"] = "random"  # noise inputs of the generator during training
    supervised: float = 1.0  # weight of the supervised loss on images with codes, so that codes keep their meaning
    split: bool = True  # the sign of z's last number separates images with codes (> 0) from images without (< 0)
    augment: AugmentSettings = field(default_factory=AugmentSettings)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of both phases."""

    ema_kimg: float = 20.0  # half-life of the average of the generator's weights, thousand images
    ema_rampup: float = 0.05  # limit of the half-life as a share of the phase's images so far (StyleGAN2: 0.05)
    tick_kimg: float = 4.0  # thousand images between two rows of metrics.jsonl and two checks for finite weights
    sheet_every: int = 10  # ticks between two sheets of samples; 0 = none
    save_every: int = 10  # ticks between two checkpoints
    precision: Precision = "auto"  # of feature maps; auto = bfloat16 if the hardware is fast in it
    compile: bool = False  # torch.compile of passes without second derivatives; if it fails, training continues without
    mirror: bool = True  # flip half of the images that have no code
    seed: int = 0  # seed of weights, samples and augmentations


@dataclass(frozen=True)
class BaseSettings:
    """All settings of a base's recipe."""

    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    supervised: SupervisedSettings = field(default_factory=SupervisedSettings)
    adversarial: AdversarialSettings = field(default_factory=AdversarialSettings)

    @property
    def measures_faces(self) -> bool:
        """Whether a loss needs the landmark network."""
        return bool(self.supervised.landmarks or self.supervised.lids)
