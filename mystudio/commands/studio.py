"""studio: the page for a browser."""

from __future__ import annotations

from pathlib import Path

import click

from mystudio.commands.options import Command, common


@click.command(cls=Command, short_help="Everything in a browser: record, train, drive, download.")
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, metavar="N", help="0 = any.")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open the browser.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where the server listens. Any other address lets the network reach it: whoever has the printed address can "
    "use everything in FOLDER, and reads along where the network is not trusted.",
)
@click.option("--worker/--no-worker", default=True, show_default=True, help="Run the jobs, too.")
@common
def studio(folder, port, opens, host, worker):
    """Serve the studio's page on this machine and open it: people, scans, training, takes, jobs, marks.

    FOLDER holds everything: a folder for each person, with the artifacts of the other commands. Without it, the folder
    is $MYSTUDIO_STUDIO or ~/mystudio. Artifacts that are put there appear on the page. Nothing is fetched from
    elsewhere. Jobs go on when the page is closed; Ctrl-C ends the server, and the next start continues them.

    $ mystudio studio
    $ mystudio studio studio-of-ada --port 9000 --no-open
    """
    from mystudio.jobs import studio_folder
    from mystudio.web.serve import serve

    serve(studio_folder(folder), host, port, opens, worker, lambda text: click.echo(text))
