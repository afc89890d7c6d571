"""A short check of a GPU: a tiny avatar is made and driven on the CPU and on the device, and the results are compared.

The person is drawn by the packaged base, so no video and no camera is needed. Rounding differs between devices, and
tuning amplifies it; each row has a bound that rounding keeps and a wrong kernel, device or type does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mystudio import engines, recipe
from mystudio.bases import Base, find_base
from mystudio.errors import reason
from mystudio.rendering.render import synthesize
from mystudio.types import Avatar, Performance, Progress, Take, silent
from selfscan.face import patches
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.headpose import head_pose
from selfscan.face.measures import measures
from selfscan.io.pixels import to_uint8
from selfscan.types import Alignment, Consent, Coverage, FaceTrack, Observation, Scan

BASE = "people128"
LOOK, MOTION = slice(0, 32), slice(32, 58)  # numbers of this base's z that decide who it is, and what the face does
OPTIONS = (  # of the recipe "quick": small enough for a CPU, and alike on both sides
    "invert.steps=0", "personalize.resolution=0", "personalize.width=0", "personalize.precision=float32",
    "personalize.check_every=10", "regress.rank=12", "regress.steps=200", "reenact.steps=3",
    "reenact.precision=float32", "reenact.start_precision=float32",
)  # fmt: skip
LEVELS = "grey levels"
Result = TypeVar("Result")


@dataclass(frozen=True)
class CheckSettings:
    """How much work the check does."""

    images: int = 12  # of the scan
    steps: int = 8  # of tuning
    samples: int = 16  # for the regressor
    frames: int = 8  # of the driving clip


@dataclass(frozen=True)
class Row:
    """One comparison of the device with the CPU."""

    name: str
    ok: bool
    verdict: str  # a sentence
    difference: float | None  # between the two results; None = the device gave none
    bound: float  # what rounding stays below
    unit: str
    cpu_seconds: float
    device_seconds: float


@dataclass(frozen=True)
class Work:
    """One thing that both devices do."""

    name: str
    run: Callable[[torch.device], np.ndarray]  # the result, brought to the CPU
    bound: float
    unit: str
    #: results -> one number; at first the mean absolute difference
    apart: Callable[[np.ndarray, np.ndarray], float] = lambda here, there: float(np.abs(here - there).mean())


def check(
    device: torch.device,
    settings: CheckSettings = CheckSettings(),
    progress: Progress = silent,
    alter: Callable[[str, np.ndarray], np.ndarray] = lambda name, found: found,
) -> list[Row]:
    """Run everything on the CPU and on a device, and compare.

    Args:
        device: usually a GPU; the CPU compares with itself. settings: how much is done.
        alter: changes what the device gave: for tests, which put a fault in.
    Returns: a row for each comparison; a device that fails gives a row that says so.
    """
    rows, works = [], list(_works(settings))
    for done, work in enumerate(works):
        progress("check", done, len(works))
        rows.append(compare(work, device, alter))
    progress("check", len(works), len(works))
    return rows


def compare(
    work: Work, device: torch.device, alter: Callable[[str, np.ndarray], np.ndarray] = lambda name, found: found
) -> Row:
    """Do one thing on both devices."""
    here, cpu_seconds = _timed(lambda: work.run(torch.device("cpu")), torch.device("cpu"))
    try:
        there, seconds = _timed(lambda: alter(work.name, work.run(device)), device)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, MemoryError) as error:
        verdict = f"failed on {device.type}: {reason(error)}"
        return Row(work.name, False, verdict, None, work.bound, work.unit, cpu_seconds, 0.0)
    gap = work.apart(here, there) if here.shape == there.shape else float("inf")
    ok = bool(gap <= work.bound)  # a result that is no number is not
    verdict = f"{gap:.3g} {work.unit} from the CPU's result, {'within' if ok else 'beyond'} {work.bound:g}"
    verdict += f"; CPU {cpu_seconds:.1f} s, {device.type} {seconds:.1f} s"
    return Row(work.name, ok, verdict, gap, work.bound, work.unit, cpu_seconds, seconds)


def _works(settings: CheckSettings) -> Iterator[Work]:
    """What is compared, from single networks to whole stages; avatars are made once and used again."""
    base, made = find_base(BASE), {}
    engine, chosen = engines.named(engines.DEFAULT), _recipe(settings)
    scan, driver = _scan(base, settings.images), _performance(base, settings.frames)

    def generate(device: torch.device) -> np.ndarray:
        return 127.5 * _draw(base, _motions(8, 1), device).cpu().numpy()

    def landmarks(device: torch.device) -> np.ndarray:
        images = _draw(base, _motions(8, 1), torch.device("cpu")).to(device)
        with torch.inference_mode():
            return 100 * crop_landmarks(load_facemesh(device=device), images)[0].cpu().numpy()

    def personalize(device: torch.device) -> np.ndarray:
        avatar = engine.personalize(scan, base, chosen.of(engine.NAME, "personalize"), device=device)
        made[device.type] = replace(avatar, generator=avatar.generator.cpu())
        return _pictures(made[device.type], _still(engine, made[device.type]), torch.device("cpu"), "float32")

    def reenact(device: torch.device) -> np.ndarray:
        take = engine.reenact(made["cpu"], driver, chosen.of(engine.NAME, "reenact"), device=device)
        made["cpu"].generator.cpu()
        made.setdefault("take", take)
        return np.concatenate([values.flatten(1).numpy() for values in take.codes.values()], 1)

    def render(device: torch.device) -> np.ndarray:
        return _pictures(made["cpu"], made["take"], device, "auto")

    yield Work("generator", generate, 1.0, LEVELS)
    yield Work("landmarks", landmarks, 0.1, "% of the picture")
    yield Work("personalize", personalize, 6.0, LEVELS)
    yield Work("reenact", reenact, 0.05, "of the codes' spread", _relative)
    yield Work("render", render, 2.0, LEVELS)


def _relative(here: np.ndarray, there: np.ndarray) -> float:
    """Root mean square difference over the standard deviation."""
    return float(np.sqrt(np.square(here - there).mean()) / max(here.std(), 1e-9))


def _recipe(settings: CheckSettings) -> recipe.Recipe:
    sizes = (f"personalize.steps={settings.steps}", f"regress.samples={settings.samples}")
    return recipe.resolve("quick", [*OPTIONS, *sizes])


def _timed(work: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - started


def _motions(count: int, seed: int) -> Tensor:
    """Motion factors [count, 26]; the first is the neutral face."""
    motion = torch.randn(count, 26, generator=torch.Generator().manual_seed(seed))
    motion[0] = 0
    return motion


@torch.no_grad()
def _draw(base: Base, motion: Tensor, device: torch.device) -> Tensor:
    """Images [N, 3, H, H] of one person with motion factors [N, 26]."""
    z = torch.zeros(len(motion), base.generator.z_dim)
    z[:, LOOK] = torch.randn(32, generator=torch.Generator().manual_seed(5))
    z[:, MOTION] = motion
    generator = base.generator.to(device)
    try:
        return generator(generator.broadcast(generator.mapping(z.to(device)))).clamp(-1, 1)
    finally:
        generator.cpu()  # it is shared


def _scan(base: Base, count: int) -> Scan:
    images = _draw(base, _motions(count, 0), torch.device("cpu"))
    marks = crop_landmarks(load_facemesh(), images)[0].numpy()
    consent = Consent("Nobody (drawn by the base)", "does not exist", "2024-01-01T00:00:00Z", "0" * 64, fictional=True)
    covered, quality = Coverage(measures(marks), {}), np.ones(count, np.float32)
    return Scan(to_uint8(images), marks, 10 * np.arange(count), quality, {}, covered, consent, "all")


def _performance(base: Base, count: int) -> Performance:
    """A clip whose frames are their own crops; the motion wanders smoothly."""
    keys, at = _motions(count // 4 + 2, 3), torch.arange(count) / 4
    low, share = at.long(), (at % 1)[:, None]
    images = _draw(base, keys[low] * (1 - share) + keys[low + 1] * share, torch.device("cpu"))
    marks = crop_landmarks(load_facemesh(), images)[0]
    mouth, irises = patches.mouth_and_irises(images, marks)
    side, valid = images.shape[-1], np.ones(count, bool)
    pixels, presence = side * marks.numpy(), np.ones(count, np.float32)
    track = FaceTrack(pixels, head_pose(pixels), presence, valid, np.arange(count) / 25, (side, side), ~valid)
    same = Alignment(np.repeat(np.eye(2, 3)[None], count, 0), side)
    seen = Observation(track, same, marks.numpy(), presence, "drawn.mp4", "0" * 64)
    return Performance(seen, to_uint8(mouth), to_uint8(irises))


def _still(engine, avatar: Avatar) -> Take:
    """A take of one frame: the neutral face."""
    return Take(engine.neutral_codes(avatar), np.zeros(1, np.uint8), np.zeros(1), {})


def _pictures(avatar: Avatar, take: Take, device: torch.device, precision) -> np.ndarray:
    avatar.generator.to(device)
    try:
        drawn = [images.cpu().numpy() for images in synthesize(avatar, take, 8, precision=precision)]
    finally:
        avatar.generator.cpu()
    return 127.5 * np.concatenate(drawn)
