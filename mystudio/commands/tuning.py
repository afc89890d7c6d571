"""bench tuning: how near an avatar comes to scan images that its tuning does not see."""

from __future__ import annotations

import click

from mystudio.commands.bench import bench, finish, measuring, opened
from mystudio.commands.options import PATH, Command


@bench.command(cls=Command, short_help="Tuning step by step, on scan images held out of it.")
@click.argument("scans", nargs=-1, required=True, type=PATH, metavar="SCAN...")
@click.option(
    "--at",
    multiple=True,
    default=(100, 200, 300),
    show_default=True,
    type=click.IntRange(1),
    metavar="STEPS",
    help="Measure after so many steps; repeatable. Tuning ends after the last one.",
)
@click.option(
    "--held-out", "every", default=8, show_default=True, type=click.IntRange(2), help="Hold out one image of so many."
)
@click.option("--from-base", is_flag=True, help="Start from the base itself, not from the start that belongs to it.")
@click.option(
    "--backbone",
    type=PATH,
    metavar="FILE",
    help="SqueezeNet's weights for the LPIPS that is reported; tuning lowers the one that personalize finds.",
)
@measuring
def tuning(scans, at, every, from_base, backbone, **rest):
    """Tune on most images of each scan, and compare the avatar with the others after some steps.

    Settings are compared by several calls with one folder and different options.

    $ mystudio bench tuning me.scan -o bench-out --at 100 --at 300 --option personalize.texture=0
    """
    from mystudio.bench import tuning as part

    studio, ledger = opened(rest)
    finish(ledger, "tuning", part.run(studio, ledger, part.TuningCase(scans, at, every, from_base, backbone)))
