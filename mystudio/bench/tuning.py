"""How near tuning comes to scan images that it does not see, step by step: the curves of docs/experiments."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch have gaps)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mystudio import bases, engines
from mystudio.bench import comparison
from mystudio.bench.ledger import Ledger
from mystudio.bench.personal import curve
from mystudio.bench.sheet import contact_sheet
from mystudio.bench.studio import Studio
from mystudio.compute.device import choose
from mystudio.evaluation import metrics, observers
from mystudio.motion import losses
from mystudio.recipe import resolve
from mystudio.storage.artifacts import load
from mystudio.storage.manifest import digest, digest_of
from mystudio.storage.workspace import plain
from selfscan.face.recognition import find_weights, load_recognition
from selfscan.io.pixels import to_uint8
from selfscan.perceptual.metric import load_perceptual
from selfscan.types import Array, Scan

SIZE = 256  # px at which perceptual distances are measured, whatever the avatar's size
WIDTH = 160  # px of the face, the eyes and the mouth there
PARTS = {"face": losses.FACE, "eyes": losses.EYES, "mouth": losses.MOUTH}
VIEWS = {"whole": losses.whole, "face": losses.face, "eyes": losses.eyes, "mouth": losses.mouth}
SHOWN = 6  # held-out images of the sheet


@dataclass(frozen=True)
class TuningCase:
    """What is tuned, and when it is looked at."""

    scans: Sequence[Path]
    at: Sequence[int] = (100, 200, 300)  # steps
    every: int = 8  # one of so many scan images is held out
    from_base: bool = False  # start from the base itself, and not from its companion
    backbone: Path | None = None  # of the perceptual distance that is measured; None = the one that tuning lowers


def run(studio: Studio, ledger: Ledger, case: TuningCase) -> list[str]:
    """Measure every scan; returns the keys of all rows. A stopped run goes on from its last checkpoint."""
    return [key for scan in case.scans for key in _Trial(studio, ledger, case, scan).run()]


class _Trial:
    """One scan, tuned with one set of settings."""

    def __init__(self, studio: Studio, ledger: Ledger, case: TuningCase, path: Path):
        self.studio, self.ledger, self.case, self.path = studio, ledger, case, path
        self.base = bases.find_base(studio.base)
        self.given = resolve(studio.recipe, studio.options).of(engines.DEFAULT, "personalize")
        self.settings = {
            "every": case.every,
            "from_base": case.from_base,
            "settings": plain(self.given),
            "base": self.base.digest,
            "networks": [path.name for path in (studio.identity_net, case.backbone) if path],
            "scan": digest(path / "manifest.json"),
        }
        self.name = f"{path.stem}-{digest_of(self.settings)[:8]}"

    def run(self) -> list[str]:
        """Tune until the last wanted step; returns the keys of the rows."""
        wanted = {step: f"tuning/{self.name}/{step:05d}" for step in sorted(self.case.at)}
        if self.studio.again or not all(self.ledger.find(key, self.settings) for key in wanted.values()):
            self._tune(wanted)
        return list(wanted.values())

    def _tune(self, wanted: Mapping[int, str]) -> None:
        scan, device = load(self.path, Scan), choose(self.studio.device)
        rows = np.arange(len(scan)) % self.case.every == self.case.every // 2
        held = _HeldOut(scan, rows, self.studio.identity_net, self.case.backbone)

        def look(step: int, spent: float, made: Tensor, images: Tensor) -> None:
            row = {"cpu_seconds": spent, "resolution": made.shape[-1]} | held.compare(made, images)
            labels = {"table": "curve", "scan": self.path.stem, "settings": self._words(), "steps": f"{step}"}
            self.ledger.measure(wanted[step], self.settings, labels, lambda steps: row)
            self._sheet(self.studio.out / f"{self.name}-{step:05d}.png", made, images)

        folder, progress = self.studio.out / f"{self.name}.tuning", self.studio.progress
        curve.watched(scan, rows, self.base, self.given, self.case.from_base, wanted, look, folder, device, progress)

    def _words(self) -> str:
        words = [*self.studio.options, *(["from the base itself"] if self.case.from_base else [])]
        return ", ".join(word.removeprefix("personalize.") for word in words) or self.studio.recipe

    def _sheet(self, path: Path, made: Tensor, images: Tensor) -> None:
        some = np.unique(np.linspace(0, len(made) - 1, SHOWN).round().astype(int))
        rows = {"held-out image": to_uint8(images[some]), "avatar": to_uint8(made[some])}
        contact_sheet(path, rows, [f"image {k + 1}" for k in some])


class _HeldOut:
    """Compares the avatar's pictures with the scan images that tuning does not see."""

    def __init__(self, scan: Scan, rows: Array, identity_net: Path | None, backbone: Path | None):
        self._marks = scan.landmarks[rows]
        self._metric = load_perceptual("squeeze", backbone) if backbone else load_perceptual()
        self._nets = observers.EvaluationNets(identity_net, None)
        person = scan.images[~rows], scan.landmarks[~rows]
        self._identity = self._nets.identity.embed(*person) if self._nets.identity else None
        self._faces = load_recognition().embed(*person) if find_weights() else None

    @torch.no_grad()
    def compare(self, made: Tensor, images: Tensor) -> dict[str, float | str]:
        """Distances of pictures from images [N, 3, H, H], by name."""
        made, images = made.cpu(), images.cpu()
        one, two = (losses.whole(all_of, SIZE) for all_of in (made, images))
        found: dict[str, Any] = {"metric": self._metric.name}
        for name, view in VIEWS.items():
            size = WIDTH if name in PARTS else SIZE
            apart = [self._metric.distance(view(a, size), view(b, size)) for a, b in zip(one.split(4), two.split(4))]
            found[name] = float(torch.cat(apart).mean())
        found["psnr"] = float(metrics.psnr(one, two).mean())
        for name, part in PARTS.items():
            found[f"sharp_{name}"] = fine_energy(made, part) / fine_energy(images, part)
        return found | self._persons(comparison.at_evaluation_size(to_uint8(made)))

    def _persons(self, images: Array) -> dict[str, float]:
        found: dict[str, float] = {}
        if self._identity is not None and self._nets.identity:
            seen = self._nets.identity.embed(images, self._marks)
            found["identity"] = float(np.mean(metrics.csim(seen, self._identity)))
        if self._faces is not None:
            seen = load_recognition().embed(images, self._marks)
            found["likeness"] = float(np.mean(metrics.likeness(seen, self._faces)))
        return found


def fine_energy(images: Tensor, part: tuple[float, float, float, float]) -> float:
    """Mean square of the Laplacian of luma inside a part (``losses.FACE``) of images [N, 3, H, H] at their own size."""
    side = images.shape[-1]
    left, top, wide, high = (round(share * side) for share in part)
    luma = images[..., top : top + high, left : left + wide].float().mean(1, keepdim=True)
    fine = 4 * luma[..., 1:-1, 1:-1] - luma[..., 2:, 1:-1] - luma[..., :-2, 1:-1]
    return float((fine - luma[..., 1:-1, 2:] - luma[..., 1:-1, :-2]).square().mean())
