"""edit TAKE, edit list AVATAR, edit sheet AVATAR."""

from __future__ import annotations

import math
from pathlib import Path

import click

from mystudio.commands.options import (
    Command,
    common,
    device_option,
    existing,
    force_option,
    marked,
    output,
    provenance_options,
)
from mystudio.commands.terminal import answer, progress
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
    help="For --directions and avatars without measured edits, where codes leave the avatar's range: project them "
    "back, stop at the border, or continue. Measured edits end where `edit list` says.",
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
    """Show which edits an avatar offers, and how far each goes.

    $ mystudio edit list me.avatar

    Strength 1 changes the picture by the edit's own unit, the same for every avatar (docs/method.md). A strength
    beyond what the avatar can show has the effect of the last one that it can.
    """
    from mystudio import engines
    from mystudio.motion.attributes import EDITS
    from mystudio.storage.artifacts import load
    from mystudio.types import Avatar

    offered = engines.edits(load(avatar, Avatar))
    width = max(map(len, offered), default=0)
    lines = [f"{name:{width}}  {_far(reach)}" for name, reach in offered.items()]
    reaches = {name: list(reach) if math.isfinite(reach.low) else None for name, reach in offered.items()}
    missing = [name for name in EDITS if name not in offered] if any(reaches.values()) else []
    if missing:
        lines.append(f"not offered, because this avatar shows less than one unit of it: {', '.join(missing)}")
    text = "\n".join(lines) or f"{avatar} offers no edits."
    answer(text, avatar=avatar, edits=list(offered), reach=reaches, missing=missing)


@edit.command(cls=Command, short_help="Give an older avatar the edits of new ones.")
@existing("AVATAR")
@output("AVATAR2", "Folder of the new avatar.")
@device_option
@force_option
@common
def learn(avatar, out, device, force):
    """Measure what an avatar's face can do, and give it edits in their own unit.

    $ mystudio edit learn old.avatar -o new.avatar

    Avatars of this version have them. The new avatar draws the same pictures; takes of the old one stay with that one.
    """
    from mystudio import engines
    from mystudio.pipeline import run_learn
    from mystudio.storage.artifacts import load
    from mystudio.types import Avatar

    run_learn(avatar, out, progress(), device=device, force=force)
    names = list(engines.edits(load(out, Avatar)))
    answer(f"{out}: {avatar} with the edits {', '.join(names)}.", avatar=out, edits=names)


@edit.command(cls=Command, short_help="Measure what each edit changes, and what else moves.")
@existing("AVATAR")
@output("DIR", "Folder for effects.md, effects.json and effects.png.")
@click.option("--take", type=click.Path(path_type=Path), metavar="TAKE", help="Edit frames of this take.")
@click.option("--frames", type=click.IntRange(1, 64), default=4, show_default=True, help="Frames of the take.")
@common
def effects(avatar, out, take, frames):
    """Measure every edit from -3 to 3 on edited pictures: tables, figures and a sheet.

    $ mystudio edit effects me.avatar -o effects --take hello.take
    """
    from mystudio.bench.effects import run_effects

    tables = run_effects(avatar, out, take, frames, progress())
    answer(f"{tables}\n{out}: tables, figures and a sheet.", out=out)


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


def _far(reach) -> str:
    """How far an edit goes, in words."""
    if not math.isfinite(reach.low):
        return "in deviations over the avatar's samples; `mystudio edit learn` gives a new avatar with measured edits"
    return f"from {reach.low:+.1f} to {reach.high:+.1f}"


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
