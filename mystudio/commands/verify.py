"""verify: what marks a file carries."""

from __future__ import annotations

from pathlib import Path

import click

from mystudio.commands.options import Command, common, existing
from mystudio.commands.terminal import answer
from mystudio.errors import NotVerified


@click.command(cls=Command, short_help="What a clip or picture says about itself, and whether it is true.")
@existing("FILE")
@click.option(
    "--trust",
    "trusted",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PEM",
    help="Certificate of an issuer whose signers you know, besides your own key; may be repeated.",
)
@common
def verify(file, trusted):
    """Look for the marks in an mp4, png or jpeg, and say what they tell: who signed, which avatar, which edits.

    Exit code 0: marked, and unchanged since. Exit code 1: not marked, or changed.

    $ mystudio verify hello.mp4
    """
    from mystudio.provenance.verify import examine

    findings = examine(file, trusted)
    words = "; ".join(finding.statement for finding in findings)
    states = {finding.state for finding in findings}
    if "tampered" in states or "found" not in states:
        raise NotVerified(f"{file}: {words}")
    answer(f"{file}: {words}.", file=file, findings=[vars(finding) for finding in findings])
