"""engines list, train, install: methods that make avatars, and the training of those with networks of their own."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mystudio.commands.options import PATH, Command, EngineName, common, device_option, output
from mystudio.commands.terminal import answer, can_resume, progress

_engine = click.argument("engine", metavar="ENGINE", type=EngineName())
_base = click.option(
    "--base", default="people128", show_default=True, metavar="NAME|FILE", help="Base that the networks are for."
)


@click.group(short_help="Methods that make avatars, and their training.")
def engines():
    """Methods that make avatars, and the training of their own networks."""


@engines.command("list", cls=Command, short_help="List the engines and what each needs.")
@common
def list_engines():
    """List the engines: the fewest images that each needs, and whether it is trained.

    $ mystudio engines list
    """
    from mystudio.bases import list_bases
    from mystudio.engines import ENGINES, named, needed
    from mystudio.engines.protocol import Trains

    rows = []
    for name in ENGINES:
        trained = isinstance(named(name), Trains)
        there = [base.name for base in list_bases() if trained and base.companion(name)]
        rows.append({"engine": name, "images": needed(name), "trained": trained, "bases": there})
    lines = [
        f"{row['engine']:10} from {row['images']} images"
        + (f"; weights for: {', '.join(row['bases']) or 'no base yet'}" if row["trained"] else "")
        for row in rows
    ]
    answer("\n".join(lines), engines=rows)


@engines.command("train", cls=Command, short_help="Train the networks of an engine.")
@_engine
@output("RUN", "Folder of the run; an existing run is resumed.")
@click.option(
    "--data",
    "data",
    multiple=True,
    required=True,
    type=PATH,
    metavar="FOLDER",
    help="Groups of actors (`mystudio actors dataset --grid`), or portraits (JPEG, PNG); repeatable.",
)
@_base
@click.option("--recipe", metavar="NAME|FILE", help="A recipe that begins with the engine's name; default: that name.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Change one setting of the recipe, e.g. curriculum.batch=4; may be repeated.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    default=0.0,
    metavar="N",
    help="Stop before N minutes are over, with a checkpoint; the same command goes on.",
)
@device_option
@common
def train(engine, out, data, base, recipe, options, minutes, device):
    """Train an engine's networks for a base; the same command again resumes the run.

    The images are measured first, once; the measurements are kept beside them. Sheets of people who are not trained
    on appear in RUN/sheets.

    $ mystudio engines train hyper -o hyper.run --data groups --data portraits
    """
    began = time.monotonic()
    can_resume("the last checkpoint is kept; the same command goes on from there")
    from mystudio import engines as registry
    from mystudio.bases import find_base
    from mystudio.compute.device import choose
    from mystudio.oneshot.loop import Limits
    from mystudio.recipe import resolve_training

    trained = registry.training(engine)
    settings = resolve_training(engine, recipe or engine, options)
    made = trained.train(out, find_base(base), data, settings, Limits(minutes, began), choose(device), progress())
    state = "done" if made["done"] else f"stopped at the time limit in the phase {made['phase']}"
    follows = f"`mystudio engines install {engine} {out}` installs it" if made["done"] else "the same command goes on"
    answer(f"{out}: {state}, {made['steps']} steps; {follows}.", run=out, **made)


@engines.command("install", cls=Command, short_help="Install an engine's trained networks.")
@_engine
@click.argument("source", metavar="RUN|FILE", type=click.Path(path_type=Path))
@_base
@common
def install(engine, source, base):
    """Put the weights of a training run, or of a file, beside the base: the engine then makes avatars.

    $ mystudio engines install hyper hyper.run
    """
    from mystudio import engines as registry
    from mystudio.bases import find_base

    path = registry.training(engine).install(source, find_base(base))
    answer(f"{path}: {path.stat().st_size / 1e6:.1f} MB; `--engine {engine}` uses it.", weights=path)
