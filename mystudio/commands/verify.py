"""verify: find and check the marks in a file."""

from __future__ import annotations

from pathlib import Path

import click

from mystudio.commands.options import Command, common, existing
from mystudio.commands.terminal import answer
from mystudio.errors import NotVerified


@click.command(cls=Command, short_help="Read and check the marks of a clip or picture.")
@existing("FILE")
@click.option(
    "--trust",
    "trusted",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PEM",
    help="Certificate of an issuer that you trust, in addition to your own; may be repeated.",
)
@common
def verify(file, trusted):
    """Read and check the marks in an mp4, png or jpeg: who signed it, which avatar, which edits.

    Exit code 0: the file is marked and unchanged. Exit code 1: it is not marked, or was changed.

    $ mystudio verify hello.mp4
    """
    from mystudio.provenance.verify import examine

    findings = examine(file, trusted)
    words = "; ".join(finding.statement for finding in findings)
    states = {finding.state for finding in findings}
    if "tampered" in states or "found" not in states:
        raise NotVerified(f"{file}: {words}")
    answer(f"{file}: {words}.", file=file, findings=[vars(finding) for finding in findings])
