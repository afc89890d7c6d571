"""Wall-clock speed: reenactment, personalizing, and the generator's share of the machine's peak arithmetic."""

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
    """Measure frames per second of solving and drawing a tracked clip, after one warm-up run.

    Args:
        shape: shape of a larger generator that replaces the avatar's and draws the same picture, such as ``OFFICIAL``.
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

    once()  # warm-up: the first run also sets up caches and kernels
    seconds, frames = wall(once, device), len(performance.observation.track.valid)
    return {"resolution": avatar.generator.resolution, "frames": frames, "wall": seconds, "fps": frames / seconds}


def personalizing(
    scan: Scan, base, recipe: Recipe, device: torch.device, progress: Progress = silent
) -> dict[str, float]:
    """Measure the seconds from a scan to a complete avatar."""
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
    """Compare the arithmetic rate of the generator, forward and backward, with that of a matrix product.

    Args:
        side: rows and columns of the matrices. rounds: timed rounds, after one warm-up round.
    Returns: TFLOP per second of both, ``share`` (generator / matrix product) and ``gflop`` (generator, per pass).
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
