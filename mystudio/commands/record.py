"""record: record a self-scan from a camera, with advice and words to say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mystudio.commands.live import stop_on_ctrl_c
from mystudio.commands.options import Command, audio_track_option, common, output
from mystudio.commands.render import lines_of
from mystudio.commands.terminal import answer, can_resume

if TYPE_CHECKING:
    from selfscan.io.sound import Heard
    from selfscan.scan.guide import Advice

TITLE = "mystudio record: q ends"


@click.command(cls=Command, short_help="Camera -> video for a scan, with advice.")
@output("OUT.mp4|mov|mkv|webm", "Video to write; the words that were shown go beside it, as OUT.words.json.")
@audio_track_option
@click.option(
    "--camera",
    "source",
    default="0",
    show_default=True,
    metavar="N|VIDEO",
    help="Number of the camera, or a video file to use instead.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(5, 600),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Longest length; after 20 s the recording ends as soon as nothing is missing.",
)
@click.option(
    "--window/--no-window",
    default=None,
    help="Show a window, or write the advice to the terminal; default: a window if there is a screen.",
)
@common
def record(out, audio_track, source, seconds, window):
    """Record a self-scan with advice on missing poses and expressions, and on light, sharpness and distance.

    A sentence, the date and three random words are shown one after the other: say them, or hold them up. They are
    stored so that people can check the consent later; no program recognises them. A camera's recording has no sound, a
    file's sound is copied. Ctrl-C ends a camera's recording and keeps it.

    $ mystudio record -o me.mp4
    $ mystudio scan me.mp4 -o me.scan --i-am-the-person-or-have-consent "Ada Example"
    """
    from mystudio.live.recording import run_record, words_of
    from mystudio.live.window import Window, display_is_missing
    from mystudio.rendering.render import Sound

    heard: list[Heard] = []
    camera = int(source) if source.isdecimal() else Path(source)
    if window is None:
        window = not display_is_missing()
    view = Window(TITLE) if window else None
    if isinstance(camera, Path):
        can_resume(f"{out} is as it was before")
    with stop_on_ctrl_c(isinstance(camera, int)) as stop:
        told = _Told(view, stop)
        try:
            words = run_record(camera, out, seconds, told, Sound(audio_track, heard.append))
        finally:
            if view:
                view.close()
    time, todo = (told.last.time, told.last.todo) if told.last else (0.0, ())
    told_of = {"sound": asdict(heard[0])} if heard and isinstance(camera, Path) else {}
    answer(
        f"{out}: {time:.1f} s. The words and when they were shown: {words_of(out)}."
        + (f"\nStill missing: {'; '.join(todo)}." if todo else "")
        + ("" if told.faces else "\nNo frame showed a usable face: record again in good light.")
        + "".join(f"\n{line}" for line in lines_of(str(out), told_of, False)),
        video=out,
        words=words_of(out),
        shown=[item.text for item in words.said],
        seconds=time,
        missing=todo,
        **told_of,
    )


class _Told:
    """Shows the frame and the advice in a window, or prints new advice as a line."""

    def __init__(self, view, stop):
        self.last: Advice | None = None
        self.faces = False
        self._view, self._stop, self._line = view, stop, ""

    def __call__(self, frame, advice) -> str:
        from selfscan.scan.guide import draw

        self.last, self.faces = advice, self.faces or not advice.wrong
        if self._view:
            wish = self._view(draw(frame, advice))
        else:
            wish = ""
            line = f"say: {advice.say}" if advice.say else "; ".join((*advice.wrong, *advice.todo))
            if line and line != self._line:
                click.echo(f"{advice.time:5.1f} s  {line}", err=True)
            self._line = line or self._line
        return "stop" if self._stop.is_set() else wish
