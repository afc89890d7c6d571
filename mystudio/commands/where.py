"""Where jobs run: the options of `jobs run`, and the runner that they mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mystudio.jobs.running import Runner

HERE = "this-machine"


def where_options(command):
    """--on and --store."""
    command = click.option(
        "--store",
        metavar="FOLDER|URL",
        help="With Ray: where files move, the same for all machines; default: jobs/store in the studio folder.",
    )(command)
    return click.option(
        "--on",
        "where",
        default=HERE,
        show_default=True,
        metavar="this-machine|ray[://ADDRESS]",
        help="Where jobs run (docs/cluster.md).",
    )(command)


@contextmanager
def runner_of(where: str, store: str | None, studio: Path) -> Iterator[tuple[Runner, int]]:
    """What starts the jobs, and how many heavy ones it runs at once."""
    from mystudio.jobs.place import JOBS
    from mystudio.jobs.running import Running

    if where == HERE:
        if store is not None:
            raise click.UsageError("expected --store beside --on ray alone")
        yield Running, 1
        return
    from mystudio.cluster.rays import Rays, address_of

    place = address_of(where), store or str(studio / JOBS / "store")
    rays = Rays(*place)
    try:
        yield rays, rays.room()
    finally:
        rays.close()
