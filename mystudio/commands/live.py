"""live AVATAR: the avatar follows a camera."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mystudio.commands.options import (
    RECORDING,
    Command,
    audio_track_option,
    clip_output,
    common,
    device_option,
    existing,
    face_option,
    marked,
    part_lines,
    provenance_options,
    recipe_options,
    span_of,
    span_options,
)
from mystudio.commands.render import lines_of
from mystudio.commands.terminal import answer, can_resume, progress, warned

if TYPE_CHECKING:
    from mystudio.live.follow import Shown
    from mystudio.live.window import Window, Wish


@click.command(cls=Command, short_help="Avatar + camera -> the avatar follows in real time.")
@existing("AVATAR")
@click.option(
    "--driver",
    default="0",
    show_default=True,
    metavar="N|VIDEO",
    help="Number of the camera, or a video file to play instead.",
)
@clip_output("Record what is shown, with the driver's time stamps (and sound, of a file).", RECORDING, required=False)
@audio_track_option
@span_options
@click.option(
    "--window/--no-window",
    default=None,
    help="Show a window or none; default: a window if there is a screen. Keys: q ends, n marks the face "
    "as being at rest now.",
)
@click.option(
    "--drop/--no-drop",
    default=None,
    help="Drop frames that come too fast, or use every frame with delay; default: drop, unless a file is "
    "played and recorded.",
)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=float("inf"), metavar="S", help="End after this long."
)
@face_option
@provenance_options
@recipe_options
@device_option
@common
def live(avatar, driver, out, window, drop, seconds, face, recipe, options, device, audio_track, start, end, **mark):
    """Let an avatar follow a camera in real time, shown beside the driver.

    The avatar's regressor gives the codes; no solver runs. Look into the camera with a face at rest for the first
    second. Ctrl-C ends a camera's recording and keeps it. A file's recording is kept only if it is complete.

    $ mystudio live me.avatar
    $ mystudio live me.avatar --driver driver.mp4 -o live.mp4 --no-window
    """
    from mystudio.live.window import Window, display_is_missing
    from mystudio.pipeline import run_live
    from mystudio.recipe import resolve

    settings = marked(resolve(recipe, options), **mark)
    source, span = int(driver) if driver.isdecimal() else Path(driver), span_of(start, end)
    if isinstance(source, int) and (start is not None or end is not None):
        raise click.UsageError("expected --start and --end with a video, got a camera; --seconds ends its stream")
    if window is None:
        window = out is None or not display_is_missing()
    view = Window() if window else None
    if isinstance(source, Path):
        can_resume(f"{out} is as it was before" if out else "nothing was recorded")
    with stop_on_ctrl_c(isinstance(source, int)) as stop:
        try:
            told = run_live(
                avatar,
                source,
                settings,
                lambda shown: _watch(shown, view, stop),
                progress(),
                out=out,
                drop=drop,
                seconds=seconds,
                audio_track=audio_track,
                span=span,
                face=face,
                device=device,
            )
        finally:
            if view:
                view.close()
    text = "\n".join([sentences(told, out), *part_lines(span), *lines_of(out or "", told, settings.provenance.mark)])
    used = {"start": span.start, "end": span.end}
    answer(text, **({"video": out} if out else {}), **told, span=used)


def sentences(told: dict, out: str | None) -> str:
    """Return sentences about what the live stage did."""
    count, outcomes = told["frames"], told["outcomes"]
    words = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in outcomes.items())
    lines = [f"{out}: {count} frames ({words})." if out else f"{count} frames ({words})."]
    if told["dropped"]:
        lines.append(f"{told['dropped']} frames came too fast and were left out.")
    if not outcomes.get("followed"):
        lines.append(
            "No frame showed a face: the avatar stayed at rest. Use good light, and a face that is upright "
            "and at least 4 % of the picture's width."
        )
    lines.append(f"{told['frames_per_second']} frames a second; from frame to picture {_ms(told['latency_ms'])}.")
    lines += [f"  {name}: {_ms(spread)}" for name, spread in told["stages_ms"].items()]
    return "\n".join(lines) + warned(told["warnings"])


def _ms(spread: dict) -> str:
    return f"{spread['median']} ms, 95 % within {spread['p95']} ms"


def _watch(shown: Shown, view: Window | None, stop: threading.Event) -> Wish:
    wish: Wish = view(shown.picture) if view else ""
    return "stop" if stop.is_set() else wish


@contextmanager
def stop_on_ctrl_c(active: bool) -> Iterator[threading.Event]:
    """Let the first Ctrl-C end a camera's stream and keep its recording; a second one interrupts."""
    stop = threading.Event()
    if not active:
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(*_) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
