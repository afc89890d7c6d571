"""What edits do to the picture: each edit at several strengths, measured, with what else moves beside it.

Channels and their units are those of ``motion.attributes``. Every number is a change from the unedited frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mystudio import engines
from mystudio.engines.protocol import Reach
from mystudio.motion.attributes import CHANNELS, EDITS, along, attributes, beside
from mystudio.types import Avatar, Codes, Progress, Take, silent
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.pixels import to_uint8
from selfscan.types import Array

STRENGTHS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
TILE = 192  # px of a picture on a sheet
SIZE = 256  # px of the pictures that are measured: landmarks are read from 192 px


@dataclass(frozen=True)
class Effects:
    """One edit on F frames at S strengths."""

    name: str
    reach: Reach
    strengths: tuple[float, ...]  # [S]
    change: Array  # [S, F, C] of the channels, in units
    presence: Array  # [S, F] of a face, 0..1
    pictures: Array  # [S, h, h, 3] uint8, of the first frame

    @property
    def amount(self) -> Array:
        """Measured strength [S], the mean over the frames."""
        return np.asarray(along(torch.as_tensor(self.change), self.name).mean(1))

    @property
    def side(self) -> Array:
        """Change [S, C] of the channels that should stay, the mean over the frames."""
        return np.asarray(beside(torch.as_tensor(self.change), self.name).mean(1))


@torch.no_grad()
def measure(
    avatar: Avatar,
    take: Take | None = None,
    count: int = 4,
    strengths: Sequence[float] = STRENGTHS,
    progress: Progress = silent,
) -> list[Effects]:
    """Measure every edit in its own unit that the avatar offers.

    Args:
        take: ``count`` frames of it are edited, evenly apart; None = the neutral face alone. strengths: with 0.
    Raises: NotOffered: the avatar's engine has no edits.
    """
    engine = engines.editing(avatar)
    source = take.codes if take else engine.neutral_codes(avatar)
    total = len(take) if take else 1
    rows = np.unique(np.linspace(0, total - 1, count + 2).round().astype(int)[1:-1]) if take else np.zeros(1, int)
    start = {name: values[torch.as_tensor(rows)] for name, values in source.items()}
    offered = {name: reach for name, reach in engine.edits(avatar).items() if name in EDITS}
    found, before = list[Effects](), _look(avatar, start, len(rows))[0]
    for number, (name, reach) in enumerate(offered.items()):
        seen = [
            _look(avatar, engine.move(avatar, start, name, np.full(len(rows), s), "project"), len(rows))
            for s in strengths
        ]
        channels, presence, pictures = zip(*seen)
        change = np.stack([np.asarray(one - before) for one in channels])
        found.append(Effects(name, reach, tuple(strengths), change, np.stack(presence), np.stack(pictures)))
        progress("effects", number + 1, len(offered))
    return found


def matrix(found: Sequence[Effects], strength: float = 2.0) -> dict[str, dict[str, float]]:
    """What else moves: edit -> channel -> greatest change at +-strength, as a share of the edit's own change."""
    made: dict[str, dict[str, float]] = {}
    for one in found:
        at = [k for k, s in enumerate(one.strengths) if abs(s) == strength and abs(one.amount[k]) > 0.1]
        share = np.abs(one.side[at] / one.amount[at, None]).max(0) if at else np.zeros(len(CHANNELS))
        made[one.name] = dict(zip(CHANNELS, share.tolist()))
    return made


def values(found: Sequence[Effects]) -> dict[str, object]:
    """The figures as JSON values."""
    return {
        "channels": CHANNELS,
        "edits": {
            one.name: {
                "reach": list(one.reach) if np.isfinite(one.reach.low) else None,
                "strengths": list(one.strengths),
                "measured": one.amount.round(3).tolist(),
                "beside": one.side.round(3).tolist(),
                "presence": one.presence.min(1).round(3).tolist(),
            }
            for one in found
        },
    }


def markdown(found: Sequence[Effects]) -> str:
    """Two tables: measured strengths, and the matrix of what else moves."""
    strengths = found[0].strengths if found else ()
    lines = ["| edit | goes from, to | " + " | ".join(f"{s:+g}" for s in strengths) + " | most that else moves |"]
    lines += ["|---" * (len(strengths) + 3) + "|"]
    shares = matrix(found)
    for one in found:
        most = max(shares[one.name], key=lambda channel: shares[one.name][channel])
        cells = " | ".join(f"{value:+.2f}" for value in one.amount)
        reach = f"{one.reach.low:+.1f}, {one.reach.high:+.1f}" if np.isfinite(one.reach.low) else "not known"
        lines.append(f"| {one.name} | {reach} | {cells} | {most} {shares[one.name][most]:.0%} |")
    lines += ["", "| edit | " + " | ".join(CHANNELS) + " |", "|---" * (len(CHANNELS) + 1) + "|"]
    for name, row in shares.items():
        cells = ["own" if channel in EDITS[name] else f"{row[channel]:.0%}" for channel in CHANNELS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def pictures(found: Sequence[Effects]) -> Mapping[str, Array]:
    """Pictures of each edit, [S, h, h, 3] uint8: rows of a sheet."""
    return {one.name: one.pictures for one in found}


def _look(avatar: Avatar, codes: Codes, count: int) -> tuple[Tensor, Array, Array]:
    """Channels [F, C], presence [F] and the first picture [h, h, 3]."""
    import cv2

    take = Take(codes, np.zeros(count, np.uint8), np.arange(count, dtype=float), {})
    mesh = load_facemesh(device=next(avatar.generator.parameters()).device)
    styles = engines.of(avatar).decode(avatar, take)
    net = avatar.generator
    images = net.synthesize(styles, resolution=min(SIZE, net.resolution)).clamp(-1, 1)
    points, presence = crop_landmarks(mesh, images)
    picture = cv2.resize(to_uint8(images[:1])[0], (TILE, TILE), interpolation=cv2.INTER_AREA)
    return attributes(points).cpu(), presence.cpu().numpy(), picture
