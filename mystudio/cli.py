"""The command line: only names and help here; each command is in ``mystudio.commands``, all work in the stages."""

from __future__ import annotations

import os
import warnings

import click

from mystudio import __version__
from mystudio.commands import (  # noqa: F401
    about,
    actors,
    avatar,
    batch,
    bench,
    edit,
    engines,
    info,
    jobs,
    live,
    motion_range,
    oneshot,
    record,
    reenact,
    render,
    stages,
    studio,
    training,
    tuning,
    verify,
)
from mystudio.commands.terminal import DEBUG, StudioGroup


@click.group(cls=StudioGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mystudio")
@click.pass_context
def cli(ctx: click.Context):
    """The personalized-generator studio: scan yourself, make an avatar, drive it with any video, edit the result.

    \b
    $ mystudio demo                                          every stage once, in minutes
    $ mystudio studio                                        the same and more, in a browser
    $ mystudio record -o me.mp4                              the camera, with advice
    $ mystudio scan me.mp4 -o me.scan --i-am-the-person-or-have-consent "Ada Example"
    $ mystudio personalize me.scan -o me.avatar
    $ mystudio reenact me.avatar driver.mp4 -o hello.take
    $ mystudio edit hello.take -o smiling.take --set smile=1.0
    $ mystudio render smiling.take -o hello.mp4
    $ mystudio evaluate smiling.take -o hello.report
    $ mystudio live me.avatar                                the avatar follows the camera
    $ mystudio info me.mp4                                   what a file is, in six lines

    Everything stays on this machine. Each command explains itself with --help.
    """
    # torch's threads wait for each other awake, but only shortly, or they would take the time of other programs. Read
    # when torch starts; measured in docs/experiments/costs.md
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    if not ctx.meta.get(DEBUG):
        warnings.simplefilter("ignore")  # hides warnings of libraries
        os.environ.setdefault("GLOG_minloglevel", "2")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


for command in (
    record.record,
    stages.scan,
    stages.personalize,
    reenact.reenact,
    edit.edit,
    render.render,
    stages.evaluate,
    live.live,
    verify.verify,
    info.info,
    avatar.avatar,
    studio.studio,
    about.demo,
    about.doctor,
    about.recipe,
    about.base,
    engines.engines,
    jobs.jobs,
    batch.batch,
    actors.actors,
    bench.bench,
):  # importing ``training`` adds commands to about.base; ``oneshot``, ``tuning`` and ``motion_range`` to bench.bench
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="mystudio")


if __name__ == "__main__":
    main()
