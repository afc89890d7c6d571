"""avatar pack, unpack, delete."""

from __future__ import annotations

from pathlib import Path

import click

from mystudio.commands.options import Command, common, existing, output
from mystudio.commands.terminal import JSON, answer
from mystudio.errors import NotConfirmed


@click.group()
def avatar():
    """Pack an avatar into one file, unpack it, or delete it."""


@avatar.command(cls=Command)
@existing("AVATAR")
@output("FILE", "Archive to write.")
@common
def pack(avatar, out):
    """Write an avatar as one file, to move or share: an uncompressed zip.

    Whoever has the file can show the person saying anything. It holds the weights, the codes and the consent record,
    not the scan.

    $ mystudio avatar pack me.avatar -o me.avatar.zip
    """
    from mystudio.storage.archive import pack as write

    size = write(avatar, out)
    answer(f"{out}: {size / 1e6:.1f} MB.", archive=out, bytes=size)


@avatar.command(cls=Command)
@existing("FILE")
@output("AVATAR", "Folder of the avatar.")
@common
def unpack(file, out):
    """Extract an avatar from an archive after verifying every byte. Nothing in the file is executed.

    $ mystudio avatar unpack me.avatar.zip -o me.avatar
    """
    from mystudio.storage.archive import unpack as place

    manifest = place(file, out)
    answer(
        f"{out}: an avatar of {sum(entry.bytes for entry in manifest.files.values()) / 1e6:.1f} MB, made "
        f"{manifest.created[:10]}.",
        avatar=out,
        digest=manifest.digest,
    )


@avatar.command(cls=Command, short_help="Remove an avatar and what belongs to it.")
@existing("AVATAR")
@click.option(
    "--with-scan/--keep-scan",
    default=None,
    help="Remove the scan that the avatar was made from, or keep it; default: remove it, unless "
    "another avatar was made from it.",
)
@click.option("--with-takes", is_flag=True, help="Remove takes, edited takes and reports made from the avatar too.")
@click.option(
    "--in",
    "search",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also search this folder for takes and reports; may be repeated.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def delete(avatar, with_scan, with_takes, search, yes):
    """Remove an avatar with its weights and codes and its scan, and list what was removed and what is kept.

    $ mystudio avatar delete me.avatar --with-takes
    """
    from mystudio.storage.removal import carry_out, plan

    planned = plan(avatar, with_scan, with_takes, search)
    if not yes:
        _ask(planned)
    removed = carry_out(planned)
    answer(
        "\n".join([f"removed: {item}" for item in removed] + [f"left: {text}" for text in planned.left]),
        removed=[
            {"path": str(item.path), "kind": item.kind, "files": item.files, "bytes": item.bytes} for item in removed
        ],
        left=list(planned.left),
    )


def _ask(planned) -> None:
    """Show what would be removed and ask; raise NotConfirmed unless the answer is yes."""
    if not click.get_current_context().find_root().meta.get(JSON):
        click.echo(
            "\n".join(
                [f"would remove: {item}" for item in planned.items] + [f"would leave: {text}" for text in planned.left]
            )
        )
    try:
        agreed = click.confirm("Remove this for good?", err=True)
    except click.Abort:
        agreed = False
    if not agreed:
        raise NotConfirmed("nothing was removed; answer y, or give --yes")
