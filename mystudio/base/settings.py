"""Settings of the training of a base; recipes/base-*.toml hold values of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mystudio.base.augment import AugmentSettings
from mystudio.compute.compilation import Precision


@dataclass(frozen=True)
class ModelSettings:
    """Shape of the generator, and of the discriminator of equal widths."""

    resolution: int = 256  # px
    z_dim: int = 128  # numbers of a z: an actor's code and random ones behind it
    w_dim: int = 256  # numbers of a w (StyleGAN2: 512)
    mapping_layers: int = 4  # (StyleGAN2: 8)
    channel_base: int = 8192  # a block of r px has channel_base / r channels, ...
    channel_max: int = 384  # ... at most these: 4.1 GMAC a forward, 20.7 MB as fp16 (StyleGAN2: 512)


@dataclass(frozen=True)
class SupervisedSettings:
    """First phase: an actor's code regressed to its image."""

    kimg: float = 600.0  # thousand images; 0 = no such phase
    batch: int = 64  # images a step, over all processes
    rate: float = 2e-2  # Adam step, cosine decay to a twentieth (at 32 px 0.03 learnt faster than 0.01 and 0.003)
    mapping: float = 1.0  # times the rate, for the mapping network, whose own factor of 0.01 is for adversaries
    levels: int = 5  # sizes of the multi-scale mean absolute difference
    perceptual: float = 0.5  # weight of the perceptual distance beside it; 0 = none
    view: int = 128  # px at which it is taken: of the whole image reduced, and of the face cut out; 0 = of the image
    eyes: float = 0.0  # weight, times that of the perceptual distance, of the distance of the eyes alone, enlarged
    landmarks: float = 0.0  # weight of the distance of keypoints as the landmark network sees them
    read: float = 0.0  # weight of reading codes off images; > 0: images without a code take part, by what is read
    prior: float = 2e-3  # weight of the read codes' divergence from the standard normal
    read_rate: float = 1e-3  # Adam step of the reader


@dataclass(frozen=True)
class AdversarialSettings:
    """Second phase: against a discriminator, as StyleGAN2 with adaptive augmentation."""

    kimg: float = 2000.0  # thousand images; 0 = no such phase
    batch: int = 64  # images a step, over all processes
    rate: float = 2.5e-3  # Adam step of the generator (stylegan2-ada: 0.0025)
    critic_rate: float = 2.5e-3  # Adam step of the discriminator
    wait_kimg: float = 5.0  # thousand images in which the discriminator learns alone, so that a trained G is not lost
    r1: float = 0.2  # weight of the gradient penalty (stylegan2-ada: 0.0002 resolution^2 / batch)
    r1_every: int = 16  # steps between two penalties (StyleGAN2: 16); 0 = never
    path: float = 2.0  # weight of the path length regulariser (StyleGAN2: 2)
    path_every: int = 4  # steps between two (StyleGAN2: 4); 0 = never
    path_decay: float = 0.01  # share of the present mean length in its running mean (StyleGAN2: 0.01)
    mixing: float = 0.0  # share of samples whose layers take two w (StyleGAN2: 0.9)
    noise: Literal["random", "const", "none"] = "random"  # of the generator while it trains
    supervised: float = 1.0  # weight of the first phase's loss on images with codes, so that codes keep their meaning
    split: bool = True  # the sign of z's last number tells images with codes (> 0) from those without (< 0)
    augment: AugmentSettings = field(default_factory=AugmentSettings)


@dataclass(frozen=True)
class TrainSettings:
    """What both phases share."""

    ema_kimg: float = 20.0  # thousand images after which the averaged generator has forgotten half
    ema_rampup: float = 0.05  # at the start of a phase at most this share of its images (StyleGAN2: 0.05)
    tick_kimg: float = 4.0  # thousand images between two rows of metrics.jsonl and two checks for finite weights
    sheet_every: int = 10  # ticks between two sheets of samples; 0 = none
    save_every: int = 10  # ticks between two checkpoints
    precision: Precision = "auto"  # of feature maps; auto = bfloat16 where it is fast
    compile: bool = False  # torch.compile where nothing is differentiated twice; goes on without where it fails
    mirror: bool = True  # flip half of the images that have no code
    seed: int = 0  # of weights, samples and augmentations


@dataclass(frozen=True)
class BaseSettings:
    """A whole recipe of a base."""

    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    supervised: SupervisedSettings = field(default_factory=SupervisedSettings)
    adversarial: AdversarialSettings = field(default_factory=AdversarialSettings)
