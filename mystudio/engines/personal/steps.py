"""Edits in their own unit: offsets in W that change what is measured on the picture by a given amount.

The landmark network is differentiable. So the generator's Jacobian says how each direction of W moves each channel of
``motion.attributes`` at several frames of the person. The least offset, in units of how the person's face varies, that
moves one channel and no other is a regularised pseudo-inverse of it. Some steps of a Newton method correct the offset
by what the picture then shows. Each edit is a path of such offsets, labelled with the strength that was measured.

Symbols: J Jacobian, z coordinates of an offset on the basis of allowed directions, y channels. Sizes: R frames, C
channels, P directions, D numbers of W.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mystudio.base.encoder import MOTION_GAIN
from mystudio.engines.personal.anchors import PersonalEncoder
from mystudio.engines.personal.identity import Identity
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion.attributes import CHANNELS, EDITS, aim, along, attributes, beside
from mystudio.motion.retarget import relative_motion
from mystudio.stylegan2.generator import Generator
from mystudio.types import Progress, silent
from selfscan.face.facemesh import FaceMesh, crop_landmarks

SIZE = 128  # px of the pictures that are measured
STRONGEST, STRIDE = 3.0, 0.5  # strength up to which a path goes on, and its part that one step adds
RIDGE = 0.002  # of the squared length of an offset against the squared error of the channels
LONGEST = 14.0  # of an offset, on the basis: beyond it faces break, even where they stay the person
LEAST = 0.12  # a path ends where another step of strength adds less than this
ASIDE, SLACK = 0.35, 0.2  # or where another channel moves by more than this share of the amount, and this more
SHOWN = 0.95  # an edit is offered when an end of it is at least so far: a unit, less what the measure's noise may take
ONE_SIDED = ("wink_left", "wink_right", "frown")  # edits whose name means their positive side: that end counts
TURNS = ("yaw", "pitch")  # edits that move the whole head
TONE = 0.08  # change of the picture's mean colour, of [-1, 1], that counts as 1: edits keep the light
FRAMES = 3  # that are measured
MOTIONS = 40  # directions of the encoder's motion


@dataclass(frozen=True)
class Steps:
    """An edit of one avatar."""

    strengths: Tensor  # [S] increasing, 0 among them; its ends are as far as the avatar goes
    offsets: Tensor  # [S, D] in W

    def at(self, strengths: Tensor) -> Tensor:
        """Offsets [T, D] at strengths [T]; beyond the ends those of the ends."""
        wanted = strengths.clamp(float(self.strengths[0]), float(self.strengths[-1])).to(self.strengths)
        after = torch.searchsorted(self.strengths, wanted).clamp(1, len(self.strengths) - 1)
        low, high = self.strengths[after - 1], self.strengths[after]
        share = ((wanted - low) / (high - low))[:, None]
        return torch.lerp(self.offsets[after - 1], self.offsets[after], share)


class Look:
    """Draws and measures frames of one person at offsets: C channels, and behind them the mean colour.

    Args: w: [R, D] the frames.
    """

    def __init__(self, generator: Generator, mesh: FaceMesh, w: Tensor):
        self.generator, self.mesh, self.w = generator, mesh, w
        self.size = min(SIZE, generator.resolution)
        self.before = self.channels(torch.zeros_like(w[0]))

    @torch.no_grad()
    def channels(self, offset: Tensor) -> Tensor:
        """Channels [R, C + 3] at an offset [D]."""
        return torch.cat([self._measure(part) for part in (self.w + offset).split(4)])

    def jacobian(self) -> Tensor:
        """d channels / d w of the frames without an offset, [R, C + 3, D]."""
        found = list[Tensor]()
        for part in self.w.split(2):
            w = part.clone().requires_grad_(True)
            y = self._measure(w).sum(0)
            rows = [torch.autograd.grad(value, w, retain_graph=True)[0] for value in y]
            found.append(torch.stack(rows, 1))
        return torch.cat(found)

    @torch.no_grad()
    def picture(self, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The first frame [1, 3, H, W] at an offset [D], and its landmarks [1, 478, 3]."""
        return self._draw(self.w[:1] if offset is None else self.w[:1] + offset.to(self.w))

    def _draw(self, w: Tensor) -> tuple[Tensor, Tensor]:
        images = self.generator(self.generator.broadcast(w), resolution=self.size).clamp(-1, 1)
        return images, crop_landmarks(self.mesh, images)[0]

    def _measure(self, w: Tensor) -> Tensor:
        images, marks = self._draw(w)
        return torch.cat([attributes(marks), images.mean((2, 3)) / TONE], 1)


def learn(
    generator: Generator,
    mesh: FaceMesh,
    frames: Tensor,
    basis: Tensor,
    progress: Progress = silent,
) -> dict[str, Steps]:
    """Paths of all edits of which the avatar can show a unit, without becoming another person.

    Args:
        frames: [R, D] w of different faces of the person. basis: [P, D] allowed directions, each as long as it
            usually varies.
    """
    look = Look(generator, mesh, frames)
    jacobian, person = look.jacobian() @ basis.t(), Identity(*look.picture())
    found = dict[str, Steps]()
    for number, name in enumerate(EDITS):
        low, high = (_same(look, person, _side(look, jacobian, basis, name, sign), name in TURNS) for sign in (-1, 1))
        found[name] = _path([low, high])
        progress("edits", number + 1, len(EDITS))
    return {name: path for name, path in found.items() if offered(name, path)}


def offered(name: str, path: Steps) -> bool:
    """Whether an edit goes far enough to be of use: a unit, and on the side that its name means."""
    ends = [float(path.strengths[-1])] + ([] if name in ONE_SIDED else [-float(path.strengths[0])])
    return max(ends) >= SHOWN


def least_offset(jacobian: Tensor, change: Tensor, z: Tensor, ridge: float = RIDGE) -> Tensor:
    """Coordinates [P] near which the channels change as wanted, with the least length.

    Minimises the mean over frames of |J (z' - z) - change|^2, plus ridge |z'|^2, by P'(P P' + ridge)^-1 with the
    stacked Jacobian P.

    Args: jacobian: [R, C, P]. change: [R, C] still missing at z [P].
    """
    scale = len(jacobian) ** -0.5
    stacked = scale * jacobian.flatten(0, 1)
    wanted = scale * change.flatten() + stacked @ z
    gram = stacked @ stacked.t() + ridge * torch.eye(len(stacked)).to(stacked)
    return stacked.t() @ torch.linalg.solve(gram, wanted)


def motion_of(person: PersonalEncoder | None, landmarks: Tensor, neutral: Tensor, size: int) -> Tensor:
    """Directions [M, D] in W of all motion that the base's encoder knows, as long as the person's motion.

    Args:
        person: None = the base has no encoder, and there are none.
        landmarks: [N, 478, 3] of the scan. neutral: [478, 3]. size: D.
    """
    if person is None:
        return neutral.new_zeros(0, size)
    motion = relative_motion(landmarks, neutral).flatten(1)
    net = person

    def w_of(one: Tensor) -> Tensor:
        both = torch.cat([net.look, net.motion(MOTION_GAIN * one)])[None]
        return (net.mean + net.spread * net.head(both))[0]

    middle = motion.norm(dim=1).argsort()[: 1 + len(motion) // 2]
    places = [motion[row] for row in middle[torch.linspace(0, len(middle) - 1, 3).long()]]
    with torch.enable_grad():
        slopes = [torch.autograd.functional.jacobian(w_of, place) for place in places]
    spread = motion.std(0)
    spread = spread.clamp_min(float(spread.mean()))  # also what this person hardly moved, such as brows
    rows = torch.cat([slope * spread for slope in slopes], 1).t() / len(slopes) ** 0.5
    _, length, vectors = torch.linalg.svd(rows, full_matrices=False)
    return (vectors * length[:, None])[:MOTIONS].detach()


def frames_of(space: AnchorSpace, first: int, count: int) -> Tensor:
    """Codes [R, K] of anchor ``first`` and of others that differ from each other, all of the third that is near it."""
    codes, chosen = space.codes, [first]
    away = (codes - codes[first]).norm(dim=1)
    near = away <= away.sort().values[max(len(codes) // 3, min(count, len(codes)) - 1)]
    while len(chosen) < min(count, int(near.sum())):
        apart = torch.cdist(codes, codes[chosen]).amin(1)
        chosen.append(int(torch.where(near, apart, -1.0).argmax()))
    return codes[chosen]


def _side(look: Look, jacobian: Tensor, basis: Tensor, name: str, sign: int) -> list[tuple[float, Tensor]]:
    """Points of a path from 0 outwards: measured strength, offset [D]."""
    z, points, count = basis.new_zeros(len(basis)), list[tuple[float, Tensor]](), len(CHANNELS)
    change, moved = torch.zeros_like(look.before[0]), torch.zeros_like(look.before)
    change[:count] = sign * aim(name)
    for step in range(1, round(STRONGEST / STRIDE) + 1):
        z = least_offset(jacobian, step * STRIDE * change - moved, z)
        moved = look.channels(z @ basis) - look.before
        mean = moved.mean(0)[:count].cpu()
        amount, aside = sign * float(along(mean, name)), float(beside(mean, name).abs().max())
        before = points[-1][0] * sign if points else 0.0
        if amount < before + LEAST or aside > ASIDE * amount + SLACK or z.norm() > LONGEST:
            break
        points.append((sign * amount, (z @ basis).cpu()))
    return points


def _same(look: Look, person: Identity, points: list[tuple[float, Tensor]], turned: bool) -> list[tuple[float, Tensor]]:
    """The points of a side without those at its end that show another person."""
    while points and not person.kept(*look.picture(points[-1][1]), turned):
        points = points[:-1]
    return points


def _path(sides: list[list[tuple[float, Tensor]]]) -> Steps:
    """Points of both sides at strengths a stride apart, and at the ends of what was measured."""
    low, high = sides
    nothing = (low or high or [(0.0, torch.zeros(1))])[0][1] * 0
    measured = [*reversed(low), (0.0, nothing), *high]
    amounts = torch.tensor([amount for amount, _ in measured])
    count = round(STRONGEST / STRIDE)
    inner = [STRIDE * k for k in range(-count, count + 1) if amounts[0] < STRIDE * k < amounts[-1]]
    ends = [max(-STRONGEST, min(STRONGEST, float(end))) for end in (amounts[0], amounts[-1])]
    strengths = torch.tensor(sorted({0.0, *inner, *ends}), dtype=torch.float32)
    if len(measured) == 1:
        return Steps(strengths, nothing[None])
    return Steps(strengths, Steps(amounts, torch.stack([offset for _, offset in measured])).at(strengths))
