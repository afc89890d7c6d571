"""Options that several commands share, each defined once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from mystudio.commands.terminal import DEBUG, JSON
from mystudio.engines import ENGINES

PATH = click.Path(path_type=Path, readable=False)


class WhichFace(click.ParamType):
    """Which of several faces: largest, left, right, or a number from 1."""

    name = "face"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from selfscan.face.choose import check_wanted

        try:
            return check_wanted(value)
        except ValueError as error:
            self.fail(str(error).removeprefix("face: "), param, ctx)


def face_option(command):
    """--face."""
    return click.option(
        "--face",
        type=WhichFace(),
        default="largest",
        show_default=True,
        metavar="N|largest|left|right",
        help="Which face to take where several are visible; a picture in the result, or beside it, numbers them.",
    )(command)


class EngineName(click.ParamType):
    """The name of a registered engine."""

    name = "engine"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in ENGINES:
            self.fail(f"expected one of {', '.join(ENGINES)}, got {value!r}", param, ctx)
        return value


def _remember(key: str):
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().meta[key] = True

    return callback


def common(command):
    """--json and --debug."""
    for names, key, words in (
        ("--debug", DEBUG, "Show the traceback of a failure."),
        ("--json", JSON, "Put one JSON object on the last line of stdout."),
    ):
        command = click.option(
            names, is_flag=True, expose_value=False, is_eager=True, callback=_remember(key), help=words
        )(command)
    return command


def recipe_options(command, default: str = "default"):
    """--recipe and --option."""
    command = click.option(
        "--option",
        "options",
        multiple=True,
        metavar="STAGE.KEY=VALUE",
        help="Change one setting of the recipe, e.g. reenact.steps=30; may be repeated.",
    )(command)
    return click.option(
        "--recipe",
        "recipe",
        default=default,
        show_default=True,
        metavar="NAME|FILE",
        help="Settings of the stages; see `mystudio recipe list`.",
    )(command)


def provenance_options(command):
    """--sign-key, --sign-cert and --no-provenance: ``marked`` applies them."""
    command = click.option(
        "--no-provenance",
        is_flag=True,
        help="Write no mark into the result (provenance.mark=false); recorded beside it.",
    )(command)
    command = click.option(
        "--sign-cert",
        type=click.Path(path_type=Path),
        metavar="PEM",
        help="Certificates of --sign-key, the signing certificate first (provenance.sign_cert).",
    )(command)
    return click.option(
        "--sign-key",
        type=click.Path(path_type=Path),
        metavar="PEM",
        help="Your own private key; default: a key made at first use (provenance.sign_key).",
    )(command)


def marked(recipe, sign_key: Path | None, sign_cert: Path | None, no_provenance: bool):
    """Return a recipe with the values of ``provenance_options`` applied."""
    from dataclasses import replace

    given = {"sign_key": sign_key and str(sign_key), "sign_cert": sign_cert and str(sign_cert)}
    changes = {key: value for key, value in given.items() if value} | ({"mark": False} if no_provenance else {})
    return replace(recipe, provenance=replace(recipe.provenance, **changes))


def device_option(command):
    """--device."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Processor that does the work; auto takes a GPU where there is one.",
    )(command)


def force_option(command):
    """--force."""
    return click.option(
        "--force", is_flag=True, help="Compute again even if the result for equal inputs and settings exists."
    )(command)


def output(metavar: str, words: str):
    """-o, required."""
    return click.option("-o", "--out", "out", required=True, type=PATH, metavar=metavar, help=words)


START = "Start of the part of the video to use: seconds, or hh:mm:ss; default: its beginning."
CLIP, RECORDING = "OUT.mp4|mov|mkv|webm|gif|png|webp|DIR/", "OUT.mp4|mov|mkv|webm|gif|DIR/"


def clip_output(words: str, metavar: str = CLIP, required: bool = True):
    """-o of a video, as the text that was given: a slash at its end stands for a folder of pictures."""
    return click.option("-o", "--out", "out", required=required, type=str, metavar=metavar, help=words)


class Seconds(click.ParamType):
    """A time of a clip: seconds, or hh:mm:ss[.ms]."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time in s."""
        if isinstance(value, float):
            return value
        if re.fullmatch(r"\d+(\.\d+)?|(\d+:)?\d+:[0-5]?\d(\.\d+)?", value) is None:
            self.fail(f"expected seconds such as 12.5, or a time such as 1:02 or 0:01:02.5, got {value!r}", param, ctx)
        return sum(float(part) * 60**power for power, part in enumerate(reversed(value.split(":"))))


def span_options(command):
    """--start and --end; ``span_of`` makes a span of them."""
    for name, words in (("--end", "End of that part; default: the video's."), ("--start", START)):
        command = click.option(name, type=Seconds(), metavar="TIME", help=words)(command)
    return command


def span_of(start: float | None, end: float | None):
    """The part of a clip that --start and --end name. Raises UsageError: the part is empty."""
    from selfscan.types import Span

    if end is not None and end <= (start or 0.0):
        raise click.UsageError(f"expected --end after --start, got {end:g} s and {start or 0:g} s")
    return Span(start or 0.0, end)


def part_lines(span) -> list[str]:
    """Return a sentence about the part of a clip that was used; none for the whole clip."""
    if span.start == 0 and span.end is None:
        return []
    return [f"Part used: {span.start:g} s to {'the end' if span.end is None else f'{span.end:g} s'}."]


def audio_track_option(command):
    """--audio-track."""
    return click.option(
        "--audio-track",
        type=click.IntRange(1),
        metavar="N",
        help="Sound track of the clip to use, from 1; default: its default track, or the first that is not silent.",
    )(command)


def existing(name: str):
    """Add a positional path. The stage checks that it exists, because its error message is clearer than click's."""
    return click.argument(name.lower(), type=PATH, metavar=name)


class Command(click.Command):
    """A command whose help keeps the line breaks of its examples."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help; a paragraph that starts with a dollar sign is an example."""
        for paragraph in (self.help or "").split("\n\n"):
            formatter.write_paragraph()
            with formatter.indentation():
                if paragraph.lstrip().startswith("$"):
                    indent = " " * formatter.current_indent
                    formatter.write("".join(f"{indent}{line.strip()}\n" for line in paragraph.strip().splitlines()))
                else:
                    formatter.write_text(" ".join(paragraph.split()))
