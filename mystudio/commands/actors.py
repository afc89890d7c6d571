"""actors import-basis, clip, dataset, sheet: synthetic people with exact truth."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from mystudio.commands.options import Command, common, existing
from mystudio.commands.terminal import answer, can_resume, progress


def _seed(words: str):
    return click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help=words)


def _size(default: int):
    return click.option(
        "--size",
        default=default,
        show_default=True,
        type=click.IntRange(32, 4096),
        metavar="PX",
        help="Side of an image.",
    )


class Grid(click.ParamType):
    """People and motions of a group, as 4x4; at most ``LARGEST`` images."""

    name, LARGEST = "grid", 4096

    def convert(self, value, param, ctx):
        """Return (people, motions)."""
        found = re.fullmatch(r"\s*(\d{1,4})\s*[x×]\s*(\d{1,4})\s*", str(value), re.ASCII | re.IGNORECASE)
        people, motions = map(int, found.groups()) if found else (0, 0)
        if not 0 < people * motions <= self.LARGEST:
            words = f"expected PEOPLExMOTIONS with at most {self.LARGEST} images in a group, such as 4x4, got {value!r}"
            self.fail(words, param, ctx)
        return people, motions


@click.group(short_help="Synthetic people, with exact truth.")
def actors():
    """Synthetic people who do not exist, with exact truth (needs mystudio[actors])."""


@actors.command("import-basis", cls=Command, short_help="Import the 3D head model of the actors.")
@existing("FOLDER_OR_NPZ")
@common
def import_basis(folder_or_npz):
    """Import the 3D head model of the actors: an ICT-FaceKit checkout (MIT), or an ict_basis.npz.

    $ mystudio actors import-basis ICT-FaceKit
    """
    from mystudio.actors.basis import read_npz
    from mystudio.actors.ict import import_basis

    path = import_basis(folder_or_npz)
    count = len(read_npz(path).neutral)
    answer(f"{path}: a head of {count} vertices.", basis=path, vertices=count)


@actors.command(cls=Command, short_help="Render a clip of a person, with its truth.")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.mp4")
@_seed("Which person.")
@click.option(
    "--script", type=click.Choice(["selfscan", "talk"]), default="talk", show_default=True, help="What the person does."
)
@click.option(
    "--motion-seed",
    type=click.IntRange(0),
    metavar="N",
    help="Seed of the performance; default: the person's seed plus one.",
)
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Length.")
@click.option("--fps", default=25.0, show_default=True, type=click.FloatRange(1, 240), help="Frames a second.")
@_size(512)
@click.option(
    "--ffhq", is_flag=True, help="Write aligned squares, as for training generators, instead of the camera's view."
)
@common
def clip(out, seed, script, motion_seed, seconds, fps, size, ffhq):
    """Render a clip of a person; the truth of every frame is written beside it, as OUT.npz.

    $ mystudio actors clip scan.mp4 --seed 7 --script selfscan --seconds 25
    """
    from mystudio.actors.actor import Actor
    from mystudio.actors.film import write_clip
    from mystudio.actors.motion import perform

    score = perform(script, seconds, fps, seed + 1 if motion_seed is None else motion_seed)
    truth = write_clip(out, Actor.from_seed(seed), score, size, "ffhq" if ffhq else None, seed, progress())
    answer(f"{out}: {len(score)} frames; their truth is in {truth}.", clip=out, truth=truth, frames=len(score))


@actors.command(cls=Command, short_help="Draw training images with their codes.")
@click.argument("out", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--count", default=10000, show_default=True, type=click.IntRange(1), help="Images.")
@click.option(
    "--grid",
    type=Grid(),
    metavar="PEOPLExMOTIONS",
    help="Draw groups, as 4x4: all people of a group have the same motions. COUNT is rounded up to whole groups.",
)
@_size(256)
@_seed("Which people.")
@click.option("--takes", default=4, show_default=True, type=click.IntRange(1), help="Images of each person.")
@click.option(
    "--vivid",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of images in which lids and brows often move far.",
)
@click.option("--sides", is_flag=True, help="Winks, one raised brow and crooked smiles, too: codes of 67 numbers.")
@click.option("--still", is_flag=True, help="In pairs of images of a person only the expression and the gaze differ.")
@click.option("--workers", type=click.IntRange(1), help="Number of processes; default: one per core.")
@common
@click.pass_context
def dataset(context, out, count, grid, size, seed, takes, vivid, sides, still, workers):
    """Draw aligned training images with their codes; run the same command again to resume.

    With --grid the data holds the true cross-reenactment of every two images of a group: the first one's person with
    the second one's motion.

    $ mystudio actors dataset faces --count 20000 --size 256
    $ mystudio actors dataset groups --grid 4x4 --count 32768 --size 128
    """
    from mystudio.actors.dataset import DatasetSettings, write_dataset

    if grid and context.get_parameter_source("takes") is not ParameterSource.DEFAULT:
        raise click.UsageError("expected --grid or --takes, got both; --grid 4x6 draws six images of each person")
    people, takes = grid or (1, takes)
    if still and takes % 2:
        raise click.UsageError(f"expected an even number of images of each person with --still, got {takes}")
    settings = DatasetSettings(count, size, seed, takes, vivid=vivid, people=people, sides=sides, still=still)
    if grid:
        settings = replace(settings, count=-(-count // settings.group) * settings.group)
    can_resume("the finished shards are kept: the same command goes on from there")
    paths = write_dataset(out, settings, workers, progress=progress())
    groups = f", {settings.count // settings.group} groups of {people} people with {takes} motions" if grid else ""
    answer(
        f"{out}: {settings.count} images in {len(paths)} shards{groups}.",
        dataset=out,
        shards=len(paths),
        images=settings.count,
        **({"groups": settings.count // settings.group, "people": people, "motions": takes} if grid else {}),
    )


@actors.command(cls=Command)
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.png")
@click.option("--rows", default=4, show_default=True, type=click.IntRange(1, 50), help="Rows.")
@click.option("--columns", default=6, show_default=True, type=click.IntRange(1, 50), help="Columns.")
@_size(256)
@_seed("Which people.")
@click.option("--neutral", is_flag=True, help="Draw neutral faces that look straight ahead.")
@common
def sheet(out, rows, columns, size, seed, neutral):
    """Draw a contact sheet of different people.

    $ mystudio actors sheet people.png
    """
    import cv2

    from mystudio.actors import film
    from mystudio.storage.journal import write_bytes

    picture = film.sheet(rows, columns, size, seed, neutral, progress=progress())
    write_bytes(out, cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    answer(f"{out}: {rows * columns} people.", sheet=out)
