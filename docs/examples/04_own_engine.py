"""An engine of your own in 60 lines: how an avatar is made and driven, with everything else as before.

    python docs/examples/04_own_engine.py me.scan driver.mp4 results

This engine trains nothing. It looks up which scan images show the driver's expression, and mixes their codes. It runs
in seconds, its likeness is poor, and it is a fair baseline for a better idea. An engine is a module with a name, three
dataclasses and three functions (``mystudio/engines/protocol.py``); here the module is this file.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import mystudio
from mystudio import Avatar, Outcome, Styles, Take, engines
from mystudio.base.encoder import load_encoder
from mystudio.motion.retarget import RetargetSettings, change_and_measures, neutral_face, neutral_of
from mystudio.types import silent
from selfscan.checkpoints import NO_CHECKPOINTS
from selfscan.io.pixels import to_tensor

NAME = "lookup"


@dataclass(frozen=True)
class MixSettings:
    """How codes are mixed: each setting says its meaning and unit, and `mystudio recipe show` prints that."""

    softness: float = 0.5  # distance to the nearest image at which another image counts 1/e of it; small = jumpy


@dataclass(frozen=True)
class PersonalizeSettings:
    """The tables of a recipe that ``personalize`` reads: none."""


@dataclass(frozen=True)
class ReenactSettings:
    """The tables of a recipe that ``reenact`` reads: [lookup.mix], and [retarget], which engines share."""

    mix: MixSettings = field(default_factory=MixSettings)
    retarget: RetargetSettings = field(default_factory=RetargetSettings)


@dataclass(frozen=True)
class State:
    """What an avatar of this engine holds besides its generator; it is stored by these names."""

    codes: Tensor  # [N, D] in W, of the scan's images
    changes: Tensor  # [N, 66, 3] what the face does in each, against the neutral face


@torch.no_grad()
def personalize(scan, base, settings, checkpoints=NO_CHECKPOINTS, device="cpu", progress=silent) -> Avatar:
    encoder = load_encoder(base.companion("encoder"))
    marks = torch.as_tensor(scan.landmarks)  # [N, 478, 3]
    neutral = neutral_of(scan)
    changes, _ = change_and_measures(marks, neutral, neutral, RetargetSettings())
    look = encoder.appearance(to_tensor(scan.images)).mean(0, keepdim=True)  # one look for all images
    codes = encoder(look.expand(len(scan), -1), changes)
    return Avatar(base.generator, neutral, State(codes, changes), NAME, base.digest, scan.consent)


def reenact(avatar, performance, settings, checkpoints=NO_CHECKPOINTS, device="cpu", progress=silent) -> Take:
    seen = performance.observation
    marks = torch.as_tensor(seen.landmarks)  # [T, 478, 3]
    changes, _ = change_and_measures(
        marks, avatar.neutral, neutral_face(seen.landmarks, seen.track.valid), settings.retarget
    )
    away = torch.cdist(changes.flatten(1), avatar.state.changes.flatten(1))  # [T, N]
    share = torch.softmax(-(away - away.amin(1, keepdim=True)) / settings.mix.softness, 1)
    outcome = np.where(seen.track.valid, Outcome.CONVERGED, Outcome.NO_FACE).astype(np.uint8)
    return Take({"w": share @ avatar.state.codes}, outcome, seen.track.times, {"distance": away.amin(1).numpy()})


@torch.no_grad()
def decode(avatar, take, frames=slice(None)) -> Styles:
    w = take.codes["w"][frames].to(next(avatar.generator.parameters()).device)
    return avatar.generator.styles(avatar.generator.broadcast(w))


def main(scan, driver, out) -> Path:
    engines.ENGINES[NAME] = __name__  # an engine inside mystudio is a folder, and this line in mystudio/engines
    out = Path(out)
    avatar = mystudio.personalize(scan, out / "lookup.avatar", engine=NAME)
    take = mystudio.reenact(avatar, driver, out / "lookup.take", options={"lookup.mix.softness": 0.3})
    mystudio.evaluate(take, out / "lookup.report")
    return mystudio.render(take, out / "lookup.mp4", view="side-by-side")


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
