"""Speed of a machine by the clock: reenactment, personalizing, and the generator's share of the machine's peak."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from mystudio import engines
from mystudio.bench.base_training import wall
from mystudio.compute.device import feature_dtype
from mystudio.recipe import Recipe
from mystudio.rendering.render import synthesize
from mystudio.stylegan2.generator import Generator
from mystudio.stylegan2.growth import start_from
from mystudio.types import Avatar, Performance, Progress, silent
from selfscan.types import Scan

OFFICIAL = {"resolution": 1024, "channel_base": 32768, "channel_max": 512}  # StyleGAN2's largest (arXiv 1912.04958)


def reenactment(
    avatar: Avatar, performance: Performance, recipe: Recipe, device: torch.device, shape: dict[str, int] | None = None
) -> dict[str, float]:
    """Frames a second of solving a tracked clip and drawing it, the second time it is done.

    Args:
        shape: of a larger generator that takes the avatar's place and shows the same picture, such as ``OFFICIAL``.
    """
    if shape:
        larger = Generator(**(avatar.generator.config | shape))
        start_from(larger, avatar.generator.cpu())
        avatar = replace(avatar, generator=larger.eval().requires_grad_(False))
    draw, engine = recipe.render, engines.of(avatar)

    def once() -> None:
        take = engine.reenact(avatar, performance, recipe.of(avatar.engine, "reenact"), device=str(device))
        for _ in synthesize(avatar, take, draw.batch, 0, draw.precision, draw.compile):
            pass

    once()  # whatever is set up at the first pictures
    seconds, frames = wall(once, device), len(performance.observation.track.valid)
    return {"resolution": avatar.generator.resolution, "frames": frames, "wall": seconds, "fps": frames / seconds}


def personalizing(
    scan: Scan, base, recipe: Recipe, device: torch.device, progress: Progress = silent
) -> dict[str, float]:
    """Seconds from a scan to an avatar, with everything that belongs to it."""
    settings = recipe.of(engines.DEFAULT, "personalize")
    engine = engines.named(engines.DEFAULT)
    seconds = wall(lambda: engine.personalize(scan, base, settings, device=str(device), progress=progress), device)
    return {
        "resolution": max(settings.personalize.resolution, base.generator.resolution),
        "frames": len(scan),
        "steps": settings.personalize.steps,
        "wall": seconds,
    }


def share_of_peak(
    generator: Generator, batch: int, device: torch.device, side: int = 2048, rounds: int = 5
) -> dict[str, float]:
    """Arithmetic of the generator, forward and backward, beside that of a product of two matrices.

    Args:
        side: of the matrices. rounds: timed, after one to warm up.
    Returns: TFLOP a second of both and ``share``, what the generator reaches of the other; ``gflop``, its work a pass.
    """
    dtype = feature_dtype("auto", device)
    generator = generator.to(device).train().requires_grad_(False)
    generator.synthesis.requires_grad_(True)
    ws = torch.randn(batch, generator.num_ws, generator.w_dim, device=device)

    def passes() -> None:
        generator.zero_grad()
        generator(ws, "const", None, None, dtype).float().square().mean().backward()

    with FlopCounterMode(display=False) as counter:
        passes()
    work = counter.get_total_flops()
    ours = work / (wall(passes, device, rounds) * 1e12)
    a = torch.randn(side, side, device=device, dtype=dtype)
    torch.mm(a, a)
    peak = 2 * side**3 / (wall(lambda: a @ a, device, rounds) * 1e12)
    return {
        "resolution": generator.resolution,
        "frames": batch,
        "gflop": work / 1e9,
        "tflops": ours,
        "peak": peak,
        "share": ours / peak,
    }
