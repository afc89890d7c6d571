"""render: draw a take as a clip, a picture or a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mystudio.commands.options import (
    Command,
    audio_track_option,
    clip_output,
    common,
    device_option,
    existing,
    force_option,
    marked,
    provenance_options,
    recipe_options,
)
from mystudio.commands.terminal import answer, can_resume, progress

DAMAGED = 0.1  # s of sound that cannot be decoded, from which on it is told


@click.command(cls=Command, short_help="Take -> finished video.")
@existing("TAKE")
@clip_output("Video to write; its ending says which kind.")
@click.option(
    "--view",
    type=click.Choice(["aligned", "side-by-side", "paste"]),
    help="The avatar alone, beside the driver, or pasted into the driving clip (render.view).",
)
@audio_track_option
@provenance_options
@recipe_options
@device_option
@force_option
@common
def render(take, out, view, audio_track, sign_key, sign_cert, no_provenance, recipe, options, device, force):
    """Write a take as a video, with the driving clip's time stamps and sound.

    The ending of OUT says what is written: .mp4, .m4v, .mov, .mkv, .webm, an animated .gif, one picture as .png or
    .webp, or, with a slash at the end, a folder of PNGs. The sound is copied where the file can hold it, otherwise it
    is encoded.

    The video carries a signed C2PA manifest that says what it is; `mystudio verify` reads it. An .mkv or a .webm can
    hold none; the watermark in its pictures marks it.

    $ mystudio render hello.take -o hello.mp4 --view side-by-side
    $ mystudio render hello.take -o hello.gif
    """
    from mystudio.pipeline import run_render
    from mystudio.recipe import resolve

    settings = resolve(recipe, [*options, *([f'render.view="{view}"'] if view else [])])
    settings = marked(settings, sign_key, sign_cert, no_provenance)
    can_resume(f"what is done is kept in {Path(out)}.partial: the same command goes on from there")
    told = run_render(take, out, settings, progress(), audio_track=audio_track, device=device, force=force)
    mark = settings.provenance.mark
    still = told.get("still")
    lines = [
        f"{out}: written ({settings.render.view}" + (")." if mark else "), without a mark, as you chose."),
        *(
            [f"It shows frame {still + 1} of the take alone; for all of them choose a video."]
            if still is not None
            else []
        ),
        *lines_of(out, told, mark),
    ]
    answer("\n".join(lines), video=out, view=settings.render.view, marked=mark, **told)


def lines_of(out: str, told: dict[str, Any], mark: bool) -> list[str]:
    """Return sentences about a clip's mark and sound; if its sound is lost, the last one says so.

    Args:
        out: the clip. told: "manifest" and "sound" of ``pipeline.run_render``. mark: whether it was to be marked.
    """
    lines, sound = [], told.get("sound") or {}
    if mark and told.get("manifest") is False:
        lines.append("Such a file can hold no signed manifest: the watermark in its pictures alone marks it.")
    if sound.get("track") and sound["tracks"] > 1:
        silent = [str(number) for number in sound["silent"]]
        lines.append(
            f"Sound: track {sound['track']} of {sound['tracks']}"
            + (f" (silent: {', '.join(silent)})" if silent else "")
            + (f", before or after it {', '.join(map(str, sound['others']))}" if sound.get("others") else "")
            + "; --audio-track chooses another."
        )
    if sound.get("damaged", 0) >= DAMAGED:
        lines.append(f"{sound['damaged']:.1f} s of the sound could not be decoded and are silent.")
    if sound.get("lost"):
        lines.append(f"The sound is lost: {sound['lost']}.")
    return lines
