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
    """--on, --store and --segments."""
    command = click.option(
        "--segments",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="With Ray: parts of a long clip that are tracked, solved and rendered at once.",
    )(command)
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
def runner_of(where: str, store: str | None, segments: int, studio: Path) -> Iterator[tuple[Runner, int]]:
    """What starts the jobs, and how many heavy ones it runs at once."""
    from mystudio.jobs.place import JOBS
    from mystudio.jobs.running import Running

    if where == HERE:
        if store is not None or segments != 1:
            raise click.UsageError("expected --store and --segments beside --on ray alone")
        yield Running, 1
        return
    from mystudio.cluster.rays import Rays, address_of

    rays = Rays(address_of(where), store or str(studio / JOBS / "store"), segments)
    try:
        yield rays, rays.room()
    finally:
        rays.close()
