"""bench oneshot: a person of one or a few photos, driven by others."""

from __future__ import annotations

import click

from mystudio.commands.bench import bench, clips_of, finish, measuring, opened, scan_names
from mystudio.commands.options import Command, EngineName
from mystudio.engines import ENGINES


@bench.command(cls=Command, short_help="One photo, driven by others, against the true frames.")
@clips_of(required=False)
@scan_names
@click.option("--people", default=16, show_default=True, type=click.IntRange(2), help="Actors.")
@click.option("--motions", default=6, show_default=True, type=click.IntRange(2), help="Motions of each actor.")
@click.option("--photos", default=1, show_default=True, type=click.IntRange(1), help="Photos of each person.")
@click.option("--drivers", default=2, show_default=True, type=click.IntRange(1), help="Drivers of each actor.")
@click.option(
    "--leak",
    default=200,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="Further drivers for the measurement of leakage; 0 = none.",
)
@click.option(
    "--frames", default=16, show_default=True, type=click.IntRange(1), help="Driving frames of each real clip."
)
@click.option("--size", default=256, show_default=True, type=click.IntRange(64), metavar="PX", help="Side of a photo.")
@click.option("--seed", default=20260, show_default=True, type=click.IntRange(0), help="Which actors.")
@click.option(
    "--steps",
    multiple=True,
    default=(100,),
    show_default=True,
    type=click.IntRange(1),
    help="Steps for which baseline 0 is tuned on the photos; repeatable.",
)
@click.option(
    "--engine",
    "chosen",
    multiple=True,
    type=EngineName(),
    metavar="NAME",
    help=f"Measure this engine too: {', '.join(ENGINES)}; repeatable.",
)
@click.option("--no-actors", is_flag=True, help="Measure real clips alone.")
@measuring
def oneshot(
    folder, consent, scans, people, motions, photos, drivers, leak, frames, size, seed, steps, chosen, no_actors, **rest
):
    """Reenact people of whom there is one photo, or a few, and compare with the true frames.

    Rows: the true frames, the driver's own picture, the still photo, the nearest photo, baseline 0 (the base's encoder:
    appearance of the photos, motion of the driver), the same after tuning on the photos, and engines. Actors' truth is
    exact. Real clips are split in time: photos of the first half, driven by frames of the second.

    $ mystudio bench oneshot -o bench-out
    """
    from mystudio.bench.clips import of_folder
    from mystudio.bench.oneshot.pairs import ActorPairs, RealPairs
    from mystudio.bench.oneshot.run import OneShotCase, run

    if folder and not consent:
        raise click.UsageError("expected --i-am-the-person-or-have-consent NAME with --clips")
    if no_actors and not folder:
        raise click.UsageError("expected --clips FOLDER with --no-actors")
    if not no_actors and motions <= photos:
        raise click.UsageError(f"expected more --motions than --photos, got {motions} and {photos}; the rest drives")
    if not no_actors and drivers >= people:
        raise click.UsageError(f"expected fewer --drivers than --people, got {drivers} and {people}")
    studio, ledger = opened(rest)
    acted = None if no_actors else ActorPairs(people, motions, photos, drivers, leak, size, seed)
    real = RealPairs(of_folder(folder, scans), consent, photos, frames) if folder else None
    finish(ledger, "oneshot", run(studio, ledger, OneShotCase(acted, real, steps, chosen)))
