"""reenact: drive an avatar with one clip, or with several in one call."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mystudio.commands.options import (
    PATH,
    Command,
    common,
    device_option,
    existing,
    face_option,
    force_option,
    output,
    part_lines,
    recipe_options,
    span_of,
    span_options,
)
from mystudio.commands.terminal import answer, can_resume, progress, sentence, warned


@click.command(cls=Command, short_help="Avatar + driving clip -> take: codes over time.")
@existing("AVATAR")
@click.argument("videos", type=PATH, nargs=-1, required=True, metavar="VIDEO...")
@output("TAKE", "Folder of the take; of several clips: folder in which each has its take, named after the clip.")
@face_option
@click.option(
    "--others",
    type=click.Choice(["drive", "leave-out"]),
    default="drive",
    show_default=True,
    help="After a cut to another person: that person drives, or the avatar waits.",
)
@span_options
@recipe_options
@device_option
@force_option
@common
@click.pass_context
def reenact(ctx, avatar, videos, out, face, others, start, end, recipe, options, device, force):
    """Drive an avatar with the motion of a driving clip; the result is a take.

    A take holds codes over time and no pixels, so it can be edited and rendered in any view afterwards. With several
    clips, one that fails does not stop the others: the last line names it, and the exit code is 1.

    Before the long part begins, a forecast says at which seconds the driver does what the scan never showed, and what
    to record to get it.

    $ mystudio reenact me.avatar driver.mp4 -o hello.take --start 0:05 --end 0:12.5
    $ mystudio reenact me.avatar monday.mp4 tuesday.mov -o takes
    """
    from mystudio.pipeline import run_reenact
    from mystudio.recipe import resolve

    span, settings = span_of(start, end), resolve(recipe, options)
    how = {"face": face, "others": others, "span": span, "device": device, "force": force}
    if len(videos) == 1:
        can_resume(f"what is done is kept in {out}.partial: the same command goes on from there")
        shown = progress()
        run_reenact(avatar, videos[0], out, settings, shown, tell=shown.tell, **how)
        text, facts = _told(out)
        answer("\n".join([text, *part_lines(span)]), **facts, span={"start": span.start, "end": span.end})
        return
    can_resume(f"the finished takes in {out} are kept: the same command goes on from there")
    _refuse_artifact(out)
    lines, rows, failed = [], [], []
    for video, take in zip(videos, take_names(out, videos)):
        try:
            shown = progress()
            run_reenact(avatar, video, take, settings, shown, tell=shown.tell, **how)
            text, facts = _told(take)
        except Exception as error:  # one clip must not stop the others
            fault = sentence(error)
            text, facts = fault if fault.startswith(f"{video}:") else f"{video}: {fault}", {"error": fault}
            failed.append(video)
        lines.append(text)
        rows.append({"video": video, **facts})
    count = len(videos) - len(failed)
    lines += [*part_lines(span), f"{count} of {len(videos)} clips have their take in {out}."]
    lines += [f"Failed: {', '.join(map(str, failed))}."] if failed else []
    answer("\n".join(lines), ok=not failed, takes=rows, failed=failed, span={"start": span.start, "end": span.end})
    ctx.exit(1 if failed else 0)


def take_names(folder: Path, videos: Sequence[Path]) -> list[Path]:
    """The take of each of several clips: named after the clip, with a digest of its path where names repeat."""
    from selfscan.io.naming import derived

    count = Counter(video.stem.casefold() for video in {video.resolve() for video in videos})
    names = []
    for video in videos:
        mark = ""
        if count[video.resolve().stem.casefold()] > 1:
            mark = f"-{hashlib.sha256(str(video.resolve()).encode(errors='surrogateescape')).hexdigest()[:8]}"
        names.append(derived(folder / video.name, after=f"{mark}.take", stem=video.stem))
    return names


def _refuse_artifact(folder: Path) -> None:
    from mystudio.storage.manifest import MANIFEST

    if folder.is_file() or (folder / MANIFEST).exists():
        raise click.UsageError(f"expected a folder for the takes of several clips, got {folder}; choose another name")


def _told(take: Path) -> tuple[str, dict[str, Any]]:
    """Return a sentence about a take, with warnings about its clip, and the values for JSON."""
    from mystudio.storage.artifacts import driver_of, driver_warnings, load
    from mystudio.types import TAKE_OUTCOMES, Take
    from selfscan.face.notes import spans_of

    made = load(take, Take)
    counts = {outcome.word: int((made.outcome == outcome).sum()) for outcome in TAKE_OUTCOMES}
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    warnings, driver = driver_warnings(take), driver_of(take)
    text = f"{take}: {len(made)} frames ({words})." + warned(warnings)
    facts = {"take": take, "frames": len(made), "outcome": counts, "cuts": driver.observation.track.cut_spans}
    facts["others"] = () if driver.other is None else spans_of(driver.other, driver.observation.track)
    return text, facts | {"warnings": warnings}
