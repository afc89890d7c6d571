"""bench range: what an avatar makes of motion that its scan never showed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from mystudio.commands.bench import bench, finish, measuring, opened
from mystudio.commands.options import PATH, Command


class Several(click.ParamType):
    """Some values, with commas between them."""

    def __init__(self, name: str, of: Callable[[str], Any]):
        self.name, self._of = name, of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return the values, each once."""
        words = value.split(",") if isinstance(value, str) else value
        try:
            return tuple(dict.fromkeys(self._of(word) for word in words))
        except ValueError:
            self.fail(f"expected {self.name} with commas between them, got {value!r}", param, ctx)


@bench.command("range", cls=Command, short_help="Motion that a scan never showed, against the truth.")
@click.option(
    "--people",
    default="1008",
    show_default=True,
    type=Several("seeds", int),
    metavar="SEEDS",
    help="Scanned actors.",
)
@click.option(
    "--rows",
    type=Several("names", str.strip),
    metavar="NAMES",
    help="Scans: full, smile, mouth, lids, wink, brows, gaze, head, tied; default: all.",
)
@click.option(
    "--floor",
    type=PATH,
    metavar="DIR",
    help="Folder of an earlier run without the change that is measured; its clips are used.",
)
@click.option("--seconds", default=6.0, show_default=True, help="Length of the free part of each scan.")
@click.option("--fps", default=10.0, show_default=True, type=click.FloatRange(8), help="Frames a second.")
@click.option("--size", default=256, show_default=True, metavar="PX", help="Side of a rendered frame.")
@click.option(
    "--small/--as-recipe",
    default=True,
    show_default=True,
    help="Avatars of 128 px after 120 steps, or of the recipe's size and steps.",
)
@partial(measuring, recipe="quick")
def motion_range(people, rows, floor, seconds, fps, size, small, **rest):
    """Scan actors who leave out a motion, drive their avatars with it, and compare with the actor doing it.

    Each scan lacks one motion, or shows two only together; the full scan lacks nothing. The same command goes on after
    a stop. The actors' head is imported once: `mystudio actors import-basis`.

    $ mystudio bench range -o today
    $ mystudio bench range -o trial --floor today --option personalize.landmarks=1
    """
    from mystudio.bench.range import run as part

    if unknown := set(rows or ()) - set(part.ROWS):
        raise click.UsageError(f"unknown rows: {', '.join(sorted(unknown))}; known are {', '.join(part.ROWS)}")
    if small:
        rest["options"] = (*part.SMALL, *rest["options"])
    studio, ledger = opened(rest)
    case = part.RangeCase(people, rows or part.ROWS, seconds=seconds, fps=fps, size=size, floor=floor)
    finish(ledger, "range", part.run(studio, ledger, case))
