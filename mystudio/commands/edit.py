"""edit TAKE, edit list AVATAR, edit sheet AVATAR."""

from __future__ import annotations

import math
from pathlib import Path

import click

from mystudio.commands.options import Command, common, existing, force_option, marked, output, provenance_options
from mystudio.commands.terminal import answer
from mystudio.errors import BadEdit
from mystudio.storage.keyframes import read_keys as read_keys


class EditGroup(click.Group):
    """``edit TAKE`` is ``edit apply TAKE``: a word that is no sub-command is a take."""

    default = "apply"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default sub-command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=EditGroup,
    short_help="Take -> edited take.",
    options_metavar="",
    subcommand_metavar="TAKE -o TAKE2 --set NAME=STRENGTH ...",
)
def edit():
    """Change a take along named directions: smile, mouth_open, gaze_x, yaw, ...

    \b
    $ mystudio edit hello.take -o smiling.take --set smile=1.0
    $ mystudio edit list me.avatar
    $ mystudio edit sheet me.avatar -o edits.png

    `mystudio edit apply --help` shows the options of an edit: strengths over time, directions of your own, the range.
    """


@edit.command(cls=Command, short_help='Edit a take; the word "apply" may be left out.')
@existing("TAKE")
@output("TAKE2", "Folder of the edited take.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=STRENGTH",
    help="A constant strength; 1 is a clearly visible change. May be repeated.",
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file of strengths over time: smile = [[0.0, 0.0], [1.5, 1.0]] (seconds, strength).",
)
@click.option(
    "--edge",
    type=click.Choice(["project", "stop", "continue"]),
    default="project",
    show_default=True,
    help="What to do with codes outside the avatar's range: project them back, stop at the border, or continue.",
)
@click.option(
    "--directions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="More directions: .safetensors, .npz, .npy, .pt or .pth; a W vector each, or one a layer.",
)
@force_option
@common
def apply(take, out, sets, keys, edge, directions, force):
    """Edit a take (the word "apply" may be left out); the take itself is not changed.

    $ mystudio edit hello.take -o smiling.take --set smile=1.0 --set gaze_x=-0.5
    """
    constant = [split(text) for text in sets]
    over_time = read_keys(keys) if keys else {}
    if not constant and not over_time:
        raise click.UsageError("expected at least one --set NAME=STRENGTH or --keys FILE")
    from mystudio.pipeline import run_edit
    from mystudio.types import Edit

    edits = [Edit(name, strength, edge=edge) for name, strength in constant]
    edits += [Edit(name, keys=pairs, edge=edge) for name, pairs in over_time.items()]
    run_edit(take, out, edits, directions=directions, force=force)
    answer(f"{out}: {take} with {', '.join(e.name for e in edits)}.", take=out, edits=[e.name for e in edits])


@edit.command("list", cls=Command)
@existing("AVATAR")
@common
def list_(avatar):
    """Show which edits an avatar offers.

    $ mystudio edit list me.avatar
    """
    from mystudio import engines
    from mystudio.storage.artifacts import load
    from mystudio.types import Avatar

    names = list(engines.directions(load(avatar, Avatar)))
    answer("\n".join(names) or f"{avatar} offers no edits.", avatar=avatar, edits=names)


@edit.command(cls=Command)
@existing("AVATAR")
@output("PICTURE", "PNG file to write.")
@click.option("--take", type=click.Path(path_type=Path), metavar="TAKE", help="Start from this take, not the neutral.")
@provenance_options
@common
def sheet(avatar, out, take, sign_key, sign_cert, no_provenance):
    """Draw every edit of an avatar from -2 to 2.

    $ mystudio edit sheet me.avatar -o edits.png
    """
    from mystudio.pipeline import run_sheet
    from mystudio.recipe import resolve

    settings = marked(resolve(), sign_key, sign_cert, no_provenance)
    run_sheet(avatar, out, settings, take)
    mark = settings.provenance.mark
    answer(f"{out}: written" + ("." if mark else " without a mark, as you chose."), picture=out, marked=mark)


def split(text: str) -> tuple[str, float]:
    """Return name and strength of NAME=STRENGTH. Raises BadEdit."""
    name, equals, value = text.partition("=")
    try:
        strength = float(value)
    except ValueError:
        strength = math.nan
    if not (name.strip() and equals and math.isfinite(strength)):
        raise BadEdit(f"--set {text[:80]!r}: expected NAME=STRENGTH with a number, for example smile=1.0")
    return name.strip(), strength
