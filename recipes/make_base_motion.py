"""Make a base follow lids and brows: learn directions in W from pairs of actors, then teach the mapping network.

    python recipes/make_base_motion.py BASE OUT.safetensors

Training on single images hardly finds these factors, because people differ more than their brows move. A pair shows the
same person with and without one movement, so that the difference shows the movement alone. For each factor one
direction in W is learned that changes landmarks and coarse colours of the base's image as the drawn image changes. Then
the mapping network learns w = (w without these factors) + (weight of each movement) x (its direction), on random codes
and without images. The synthesis network stays as it is.

The same command goes on with the missing directions (OUT.directions.npz).
"""

import copy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mystudio.actors.actor import Actor
from mystudio.actors.dataset import code_of
from mystudio.actors.factors import MOTION, NAMES, look_of
from mystudio.actors.motion import frame_from_factors
from mystudio.actors.render import render
from mystudio.base.objectives import multiscale
from mystudio.base.sheets import latents_of
from mystudio.bases import find_base
from mystudio.compute.device import feature_dtype
from mystudio.motion.losses import BROW_SPREAD, LID_SPREAD
from mystudio.storage import npz
from mystudio.stylegan2.checkpoint import save_generator
from mystudio.stylegan2.generator import Generator
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.landmarks import BROWS, EYE_CORNERS, LID_PAIRS, NOSE_BRIDGE
from selfscan.io.pixels import to_tensor

#: factors and their thresholds; the movement is complete 1.3 above (mystudio.actors.motion)
MOVES = {
    "browInnerUp": 0.5,
    "browDown": 0.5,
    "browOuterUp": 0.8,
    "eyeBlink": 0.7,
    "eyeWide": 0.8,
    "eyeSquint": 0.8,
}
FULL = 1.3
SEED, PEOPLE, HELD = 9100, 24, 8  # people to learn from, and others to measure on
STEPS, BATCH, RATE = 40, 8, 0.06
REST, COLOURS = 20.0, 2.0  # weights of all landmarks and of colours against lids and brows
MAPPING_STEPS, MAPPING_BATCH, MAPPING_RATE = 4000, 256, 0.1  # the mapping's weights are about 100 (lr_multiplier)


@dataclass
class Scene:
    """People with their lids and brows at rest, drawn and generated."""

    codes: np.ndarray  # [N, 64]
    w: Tensor  # [N, W]
    drawn: Tensor  # [N, 3, R, R] in [-1, 1], as ``made``
    made: Tensor
    drawn_points: Tensor  # [N, 478, 3]
    made_points: Tensor


class Bench:
    """The base, the landmark network and the people."""

    def __init__(self, generator: Generator):
        self.g = copy.deepcopy(generator).float().eval().requires_grad_(False)
        self.mesh, self.dtype = load_facemesh(), feature_dtype("auto", torch.device("cpu"))
        codes = np.stack([code_of(SEED, k, 1) for k in range(PEOPLE + HELD)]).astype(np.float32)
        codes[:, [NAMES.index(name) for name in MOVES]] = 0.0
        codes[:, NAMES.index("glasses")] = -1.5  # none: frames cover brows
        with torch.no_grad():
            w = self.g.mapping(latents_of(torch.from_numpy(codes), self.g.z_dim))
            drawn, made = self.drawn(codes), torch.cat([self.made(part) for part in w.split(BATCH)])
            self.rest = Scene(codes, w, drawn, made, self.points(drawn), self.points(made))

    def drawn(self, codes: np.ndarray) -> Tensor:
        """Actors as their codes say, [N, 3, R, R]."""
        frames = [
            render(Actor(look_of(c)), *frame_from_factors(c[MOTION].astype(np.float64)), self.g.resolution, "ffhq")
            for c in codes
        ]
        return to_tensor(np.stack([frame.image for frame in frames]))

    def made(self, w: Tensor) -> Tensor:
        """The base's images of w [N, W]."""
        return self.g(self.g.broadcast(w), "none", None, None, self.dtype).float()

    def points(self, images: Tensor) -> Tensor:
        """Landmarks [N, 478, 3]."""
        return torch.cat([crop_landmarks(self.mesh, part)[0] for part in images.split(BATCH)])


def lids_of(points: Tensor) -> Tensor:
    """Gaps of the lids [N, 6, 2] in widths of the eye."""
    eyes = torch.stack([points[:, list(corners)] for corners in EYE_CORNERS], 1)
    width = (eyes[:, :, 0] - eyes[:, :, 1]).norm(dim=-1).mean(1).detach()
    pairs = torch.tensor(LID_PAIRS).reshape(-1, 2)
    return (points[:, pairs[:, 0], :2] - points[:, pairs[:, 1], :2]) / width[:, None, None]


def brows_of(points: Tensor) -> Tensor:
    """Places of the brows [N, 10, 2] from the nose bridge, in distances of the eyes."""
    eyes = torch.stack([points[:, list(corners)] for corners in EYE_CORNERS], 1).mean(2)
    apart = (eyes[:, 0] - eyes[:, 1]).norm(dim=-1).detach()
    return (points[:, list(BROWS), :2] - points[:, [NOSE_BRIDGE], :2]) / apart[:, None, None]


def change(points: Tensor, before: Tensor) -> Tensor:
    """Change of lids and brows [N, 16, 2] in units of their deviations among actors."""
    lids = (lids_of(points) - lids_of(before)) / LID_SPREAD
    return torch.cat([lids, (brows_of(points) - brows_of(before)) / BROW_SPREAD], 1)


def learn(bench: Bench, name: str) -> Tensor:
    """The direction [W] of a factor's whole movement."""
    rest, codes = bench.rest, bench.rest.codes.copy()
    codes[:, NAMES.index(name)] = MOVES[name] + FULL
    with torch.no_grad():
        drawn = bench.drawn(codes)
        points = bench.points(drawn)
        aim = change(points, rest.drawn_points)
        start = (bench.g.mapping(latents_of(torch.from_numpy(codes), bench.g.z_dim)) - rest.w).mean(0)
    direction, rng = start.clone().requires_grad_(True), np.random.default_rng(SEED)
    adam = torch.optim.Adam([direction], lr=RATE, betas=(0.8, 0.95))
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = RATE * (1.05 - step / STEPS)
        rows = torch.from_numpy(rng.permutation(PEOPLE)[:BATCH])
        made = bench.made(rest.w[rows] + direction)
        here = bench.points(made)
        moved = (here - rest.made_points[rows]) - (points - rest.drawn_points)[rows]
        loss = (change(here, rest.made_points[rows]) - aim[rows]).square().mean()
        loss = loss + REST * moved[..., :2].norm(dim=-1).mean()
        loss = loss + COLOURS * multiscale(made - rest.made[rows], (drawn - rest.drawn)[rows], 4).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = direction.detach()
    before, after = (share(bench, aim, way) for way in (start, found))
    print(f"{name}: {before:.0%} of the drawn movement before, {after:.0%} now", flush=True)
    return found


@torch.no_grad()
def share(bench: Bench, aim: Tensor, direction: Tensor) -> float:
    """Share of the movement ``aim`` [N, 16, 2] that a direction makes, on the people that it was not learned from."""
    rows = slice(PEOPLE, None)
    moved = change(bench.points(bench.made(bench.rest.w[rows] + direction)), bench.rest.made_points[rows])
    return float((moved * aim[rows]).sum() / aim[rows].square().sum())


def directions(bench: Bench, file: Path) -> dict[str, Tensor]:
    """All directions; finished ones are read from a file."""
    found = {k: torch.from_numpy(v) for k, v in npz.load(file, None).items()} if file.exists() else {}
    for name in MOVES:
        if name not in found:
            found[name] = learn(bench, name)
            np.savez(file, **{k: v.numpy() for k, v in found.items()})
    return found


def aims(old: Generator, z: Tensor, moves: dict[str, Tensor]) -> Tensor:
    """w [N, W] that the new mapping network shall give for z [N, Z]."""
    bare = z.clone()
    bare[:, [NAMES.index(name) for name in MOVES]] = 0.0
    w = old.mapping(bare)
    for name, direction in moves.items():
        w = w + ((z[:, [NAMES.index(name)]] - MOVES[name]) / FULL).clamp(0, 1) * direction
    return w


def latents(count: int, size: int, rng: torch.Generator) -> Tensor:
    """z [N, size], standard normal; in half of the rows the factors of ``MOVES`` are spread evenly over their range."""
    z = torch.randn(count, size, generator=rng)
    even = -2.5 + 5.5 * torch.rand(count // 2, len(MOVES), generator=rng)
    z[: count // 2, [NAMES.index(name) for name in MOVES]] = even
    return z


def teach(old: Generator, moves: dict[str, Tensor]) -> Generator:
    """The base with a mapping network that gives ``aims``."""
    new, rng = copy.deepcopy(old).float(), torch.Generator().manual_seed(0)
    new.mapping.requires_grad_(True)
    adam = torch.optim.Adam(new.mapping.parameters(), lr=MAPPING_RATE, betas=(0.9, 0.99))
    for step in range(MAPPING_STEPS):
        adam.param_groups[0]["lr"] = MAPPING_RATE * (0.5 + 0.5 * np.cos(np.pi * step / MAPPING_STEPS)) + 1e-3
        z = latents(MAPPING_BATCH, old.z_dim, rng)
        with torch.no_grad():
            aim = aims(old, z, moves)
        loss = (new.mapping(z) - aim).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        z = torch.randn(10000, old.z_dim, generator=rng)
        aim, w = aims(old, z, moves), new.mapping(z)
        left = float((w - aim).square().sum() / (aim - aim.mean(0)).square().sum())
        new.mapping.w_avg.copy_(w.mean(0))
    print(f"mapping network: {1 - left:.1%} of W explained", flush=True)
    return new.eval().requires_grad_(False)


def main(base: str, out: Path) -> None:
    """Write the new base."""
    source = find_base(base)
    moves = directions(Bench(source.generator), out.with_suffix(".directions.npz"))
    made = teach(copy.deepcopy(source.generator).float().eval().requires_grad_(False), moves)
    training = source.info.get("training", "") + "; then directions of lids and brows (recipes/make_base_motion.py)"
    save_generator(made, out, source.info | {"training": training}, half=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
