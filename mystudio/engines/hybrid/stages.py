"""The terms of a training step in each stage: what is drawn, and what it is compared with."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and safetensors have gaps)

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mystudio.base.features import load_features
from mystudio.base.objectives import generator_loss
from mystudio.engines.hybrid import losses
from mystudio.engines.hybrid.losses import Critic
from mystudio.engines.hybrid.network import Hybrid, Source
from mystudio.engines.hybrid.samples import Samples
from mystudio.engines.hybrid.settings import LossSettings
from mystudio.motion import losses as pictures
from mystudio.stylegan2.generator import Generator
from selfscan.face.facemesh import FaceMesh, crop_landmarks
from selfscan.perceptual.metric import load_perceptual

Terms = dict[str, Tensor]  # name of a loss, as in ``LossSettings`` -> [N]


@dataclass(frozen=True)
class Rows:
    """Sources, drivers and true pictures."""

    source: Tensor  # [N, 3, R, R] in [-1, 1]
    own: Tensor  # [N, SIZE] signals of the sources' pictures
    drive: Tensor  # [N, SIZE] signals of the drivers
    truth: Tensor  # [N, 3, R, R] the source's person in the driver's motion; anything where ``exact`` is false
    marks: Tensor  # [N, 478, 3] landmarks of ``truth``
    exact: Tensor  # [N] bool


class Judges:
    """Networks that compare pictures; they are frozen.

    Args: settings: a network whose weight is 0 is not loaded.
    """

    def __init__(self, settings: LossSettings, mesh: FaceMesh, device: torch.device):
        self._settings, self.mesh = settings, mesh
        self._perceptual = load_perceptual().to(device) if settings.perceptual or settings.eyes else None
        self._features = load_features(device) if settings.identity else None

    def terms(self, made: Tensor, aim: Tensor) -> Terms:
        """Distances of pictures from true pictures: pixel, perceptual, eyes."""
        s, found = self._settings, {"pixel": pictures.pixel(made, aim)}
        if self._perceptual is None:
            return found
        apart = [self._perceptual.distance(view(made, s.view), view(aim, s.view)) for view in self._views()]
        found["perceptual"] = (apart[0] + apart[1]) / 2
        return found | ({"eyes": apart[2]} if s.eyes else {})

    def _views(self):
        return (pictures.whole, pictures.face, *((pictures.eyes,) if self._settings.eyes else ()))

    def identity(self, made: Tensor, aim: Tensor) -> Tensor:
        """1 - cosine [N] of the features of two faces."""
        if self._features is None:
            return made.new_zeros(len(made))
        face = partial(pictures.face, size=self._settings.view)
        with torch.no_grad():
            wanted = self._features.embed(face(aim))
        return losses.features_apart(self._features.embed(face(made)), wanted)

    def landmarks(self, made: Tensor, marks: Tensor) -> Tensor:
        """Distance [N] of a picture's landmarks from marks [N, 478, 3]."""
        if not self._settings.landmarks:
            return made.new_zeros(len(made))
        return pictures.landmarks(crop_landmarks(self.mesh, made)[0], marks)


def latent_terms(net: Hybrid, generator: Generator, rows: Samples, drive: Tensor) -> Terms:
    """First stage: both codes against the base's own. Nothing is drawn."""
    source = net.identify(rows.images)
    still, driven = (generator.styles(generator.broadcast(w)).vectors for w in (rows.w, rows.driven))
    aims, units = [driven[k] - still[k] for k in net.deformation.layers], units_of(net)
    found = net.deformation(net.deformation.read(drive), source.cells)
    return {
        "code": losses.codes_apart(source.codes, generator.broadcast(rows.w), net.spread),
        "deformation": losses.offsets_apart(found, aims, units),
        "deltas": losses.deltas(source.codes, net.spread),
    }


def frame_terms(
    net: Hybrid, generator: Generator, critic: Critic, judges: Judges, rows: Rows, active: int | None
) -> tuple[Terms, Source]:
    """Second and third stage: the drawn picture against the true frame; without one, cycles and identity remain."""
    source = net.identify(rows.source, active)
    units, code = units_of(net), net.deformation.read(rows.drive)
    offsets = net.deformation(code, source.cells)
    made = generator.synthesize(net.deformation.moved(generator.styles(source.codes), offsets))
    known = rows.exact.to(made.dtype)
    terms = {name: value * known for name, value in judges.terms(made, rows.truth).items()}
    terms["landmarks"] = judges.landmarks(made, rows.marks) * known
    person = torch.where(rows.exact[:, None, None, None], rows.truth, rows.source)
    terms["identity"] = judges.identity(made, person)
    again = net.identify(made, active)
    terms["cycle_w"] = losses.codes_apart(again.codes, source.codes.detach(), net.spread)
    same = net.deformation(code, again.cells)
    terms["cycle_s"] = losses.offsets_apart(same, [x.detach() for x in offsets], units)
    terms["norm"] = losses.style_norm(offsets, units)
    terms["deltas"] = losses.deltas(source.codes, net.spread)
    terms["critic"] = generator_loss(critic(source.codes.flatten(0, 1))).unflatten(0, source.codes.shape[:2]).mean(1)
    if not bool(rows.exact.all()):
        terms["back"] = back(net, generator, judges, rows, again) * (1 - known)
    return terms, source


def back(net: Hybrid, generator: Generator, judges: Judges, rows: Rows, again: Source) -> Tensor:
    """Distance [N] of the sources from their driven pictures, drawn in the sources' own motions."""
    home = generator.synthesize(net.styles(generator, again, net.deformation.read(rows.own)))
    return sum(judges.terms(home, rows.source).values(), home.new_zeros(len(home)))


def units_of(net: Hybrid) -> list[Tensor]:
    """Standard deviations [C] of the styles of each moved layer."""
    return [net.deformation.unit(k) for k in net.deformation.layers]


def weighted(terms: Terms, settings: LossSettings) -> Tensor:
    """The loss []: the mean over rows of the terms times their weights; terms of the first stage have weight 1."""
    total = sum((getattr(settings, name, 1.0) * value.mean() for name, value in terms.items()), torch.zeros(()))
    assert isinstance(total, Tensor)
    return total
