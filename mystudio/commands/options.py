"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path

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
