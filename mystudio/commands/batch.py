"""batch: many avatars, clips, edits and renders in one file, as jobs of the queue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mystudio.commands.jobs import run, studio_option
from mystudio.commands.options import PATH, Command, common
from mystudio.commands.terminal import answer, clock

if TYPE_CHECKING:
    from mystudio.jobs.outlook import Outlook


@click.command(cls=Command, short_help="Avatars x clips x edits x renders of one file, as jobs.")
@click.argument("file", type=PATH, metavar="JOBS.toml")
@click.option("--dry-run", is_flag=True, help="Add nothing; say what there is to do, and what it would take.")
@click.option("--run", "work", is_flag=True, help="Work on the queue at once, as `mystudio jobs run` does.")
@studio_option
@common
@click.pass_context
def batch(context, file, dry_run, work, studio):
    """Add the jobs of a file to the queue: every avatar with every clip, edit and render.

    The names of the results come from the names in the file: ada.hello.smile.side.mp4. A job that the queue holds is
    not added again, so the same command goes on after a change of the file. docs/cluster.md shows a file.

    $ mystudio batch JOBS.toml --dry-run
    $ mystudio batch JOBS.toml
    $ mystudio jobs run
    """
    from mystudio.jobs import Queue
    from mystudio.jobs.batch import add, read, to_add
    from mystudio.jobs.outlook import outlook

    asked = read(Path(file))
    with Queue(studio) as queue:
        if dry_run:
            new = [one for one, _ in to_add(queue, asked)]
            rows = outlook(queue, new)
            held = len(asked.works) - len(new)
            lines = [*map(_row, rows), f"{len(new)} jobs would be added; the queue holds {held} of this file already."]
            if unknown := [row.kind for row in rows if row.seconds is None]:
                lines.append(f"Not known yet for {', '.join(unknown)}: no such job with these settings was done here.")
            answer("\n".join(lines), jobs=len(new), held=held, rows=[vars(row) for row in rows])
            return
        jobs = add(queue, asked)
        folder = queue.studio
    held = len(asked.works) - len(jobs)
    if not work:
        answer(
            f"{len(jobs)} jobs were added; the queue held {held} of this file already. `mystudio jobs run` works.",
            jobs=[job.facts() for job in jobs],
            held=held,
        )
        return
    click.echo(f"{len(jobs)} jobs were added; the queue held {held} of this file already.", err=True)
    context.invoke(run, studio=folder)


def _row(row: Outlook) -> str:
    frames = f", {row.frames} frames" if row.frames is not None else ""
    time = clock(row.seconds) if row.seconds is not None else "time not known yet"
    disk = f"{row.bytes / 1e6:.1f} MB" if row.bytes is not None else "disk not known yet"
    return f"{row.kind:12} {row.jobs} jobs{frames}: {time}, {disk}"
