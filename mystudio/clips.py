"""The stages that write clips: render draws a take, live follows a driver. A clip's name says its container."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mystudio import faces
from mystudio.compute import blas
from mystudio.compute.device import choose
from mystudio.live import recording, session
from mystudio.live.follow import Live, Shown
from mystudio.live.session import Wish
from mystudio.live.stream import Frames, Pace, play
from mystudio.provenance import claim as provenance
from mystudio.recipe import Recipe
from mystudio.rendering import render
from mystudio.storage.artifacts import load, load_performance
from mystudio.storage.journal import DiskCheckpoints
from mystudio.storage.manifest import digest, open_folder
from mystudio.storage.products import Product, product
from mystudio.types import Avatar, Progress, Take, silent
from selfscan.face.choose import LARGEST
from selfscan.io import camera, video
from selfscan.io.containers import FOLDER, container_of
from selfscan.types import WHOLE, Span


def run_render(
    take_path: Path,
    out: str | Path,
    recipe: Recipe,
    progress: Progress = silent,
    *,
    audio_track: int | None = None,
    device: str = "auto",
    force: bool = False,
) -> dict[str, Any]:
    """A take -> the finished clip.

    Args:
        out: the clip; its ending says the container, a slash at its end a folder of PNGs.
        audio_track: number of the driving clip's sound track, from 1; None = the default or the first not silent.
    Returns: facts about the clip: "sound" (``selfscan.io.sound.Heard``), "still" (number of the frame that a picture
        shows, or None), "manifest" (whether it carries a signed one).
    """
    container, out = container_of(out), Path(out)
    folder = open_folder(take_path, "take")
    inputs = {name: folder.source(name) for name in ("avatar", "performance")}
    inputs |= {"take": take_path, "video": open_folder(inputs["performance"]).source("video")}
    settings = {"render": recipe.render, "provenance": recipe.provenance}
    settings |= {} if audio_track is None else {"audio_track": audio_track}
    with product(out, inputs, settings, force, container == FOLDER) as run:
        if not run.done:
            blas.reserve()
            who = provenance.signing_key(recipe.provenance) if container.mime else None
            avatar, take = load(inputs["avatar"], Avatar), load(take_path, Take)
            avatar = replace(avatar, generator=avatar.generator.to(choose(device)))
            claim = provenance.Claim(
                recipe.render.view,
                digest(inputs["avatar"]),
                avatar.consent.fictional,
                digest(inputs["video"]),
                digest(take_path),
                take.edits,
            )
            run.facts |= {"still": render.shown_in_still(take) if container.still else None, "manifest": bool(who)}
            render.render(
                avatar,
                take,
                load_performance(inputs["performance"]),
                out,
                recipe.render,
                progress,
                provenance.finisher(out, claim, who, container) if who else None,
                provenance.stamp(recipe.provenance, claim.avatar),
                DiskCheckpoints(run.journal()),
                render.Sound(audio_track, _noted(run)),
                container,
            )
        return run.facts


def run_live(
    avatar_path: Path,
    source: Path | int | Frames,
    recipe: Recipe,
    show: Callable[[Shown], Wish] = lambda _: "",
    progress: Progress = silent,
    *,
    out: str | Path | None = None,
    drop: bool | None = None,
    seconds: float = math.inf,
    audio_track: int | None = None,
    span: Span = WHOLE,
    face: str = LARGEST,
    device: str = "auto",
) -> dict[str, Any]:
    """Drive an avatar live from a camera (its number), from frames, or from a clip in place of a camera.

    Args:
        show: called with every picture; returns "stop", "neutral" to find the driver's neutral face again, or "".
        out: clip of the shown pictures; its ending says the container.
        drop: skip frames that arrive too fast; None = True, except when a clip is recorded to ``out``.
        seconds: of the source that are used. audio_track: see ``run_render``.
        span: the part of a clip that is played. face: see ``run_reenact``; beside ``out``, a picture numbers them.
    Returns: frames, outcomes, frames a second, delay and time of each stage (``stream.Pace.summary``), warnings about
        the clip, and with ``out`` "sound" and "manifest" as ``run_render``.
    """
    container = recording.stream_container(out) if out else None
    clip = source if isinstance(source, Path) else None
    info = video.probe(clip, span=span) if clip else None
    drop = (clip is None or out is None) if drop is None else drop
    who = provenance.signing_key(recipe.provenance) if container and container.mime else None
    blas.reserve()
    avatar = load(avatar_path, Avatar)
    live = Live(avatar, recipe.of(avatar.engine, "reenact"), recipe.live, choose(device), face)
    pace, warnings = Pace(), list[str]()
    frames = session.until(_frames_of(source, warnings.append, span), seconds)
    with closing(live), closing(play(frames, live, pace, drop=drop, paced=drop and clip is not None)) as stream:
        shown = session.shown(stream, live, show)
        if info and not drop:
            shown = session.told(shown, math.ceil(min(seconds, info.duration) * info.fps), progress)
        if out is None or container is None:
            deque(shown, maxlen=0)
            return pace.summary() | {"warnings": [*warnings, *faces.told_live(live.crowd, None, face)]}
        out = Path(out)
        inputs = {"avatar": avatar_path} | ({"video": clip} if clip else {})
        settings = {"live": recipe.live, "provenance": recipe.provenance}
        with product(out, inputs, settings, True, container == FOLDER) as run:
            recording.rescue(out)
            of_clip = digest(clip) if clip else None
            claim = provenance.Claim("live", digest(avatar_path), avatar.consent.fictional, of_clip)
            if stamp := provenance.stamp(recipe.provenance, claim.avatar):
                shown = ((time, stamp(picture)) for time, picture in shown)
            rate = info.fps if info else recording.CAMERA_RATE
            finish = provenance.finisher(out, claim, who, container) if who else None
            run.facts["manifest"] = bool(who)
            sound = video.SoundOf(clip, span.start, audio_track) if clip else None
            recording.write_stream(out, shown, rate, sound, recipe.render.crf, finish, _noted(run), container)
    warnings += faces.told_live(live.crowd, out, face)
    return pace.summary() | run.facts | {"warnings": warnings}


def _frames_of(source: Path | int | Frames, warn: Callable[[str], None], span: Span) -> Frames:
    if isinstance(source, Path):
        return video.read(source, warn=warn, span=span)
    return camera.read(source) if isinstance(source, int) else source


def _noted(run: Product) -> Callable[[video.Heard], None]:
    """A function that keeps what became of the sound with the product."""

    def note(heard: video.Heard) -> None:
        run.facts["sound"] = asdict(heard)

    return note
