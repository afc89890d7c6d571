"""info FILE: what a file or folder is, and what mystudio would do with it."""

from __future__ import annotations

import click

from mystudio.commands.options import Command, common, existing
from mystudio.commands.terminal import answer, progress


@click.command(cls=Command, short_help="Say what a file or folder is, in six lines.")
@existing("FILE")
@common
def info(file):
    """Say in six lines what a file or folder is, and what mystudio would do with it.

    It reads clips, pictures, folders of pictures, artifacts, packed avatars, bases, checkpoints of other programs,
    directions, recipes, keyframes and keys. Nothing is changed, and no code in a file is executed.

    $ mystudio info me.mp4
    """
    from mystudio.inspection.inspect import inspect

    found = inspect(file, progress())
    answer(found.text(), **(found.facts | {"path": file, "kind": found.kind, "lines": dict(found.lines)}))
