"""The commands demo, doctor, recipe and base."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from mystudio.commands.options import Command, common, device_option, existing, recipe_options
from mystudio.commands.terminal import Failure, answer, can_resume, progress


@click.command(cls=Command, short_help="Run every stage once, on a person who does not exist.")
@click.option(
    "-o",
    "--out",
    "out",
    type=click.Path(path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    metavar="DIR",
    help="Folder for everything that the demo makes.",
)
@partial(recipe_options, default="quick")
@device_option
@common
def demo(out, recipe, options, device):
    """Run every stage once, on a person who does not exist: scan, avatar, reenactment, edit, clip, report.

    Takes a few minutes on two cores. A second run does only what is missing.

    $ mystudio demo -o demo-out
    """
    from mystudio.demo import run_demo
    from mystudio.recipe import resolve

    can_resume("what is done is kept: the same command goes on from there")
    made = run_demo(out, resolve(recipe, options), progress(), device=device)
    answer(
        "The demo made:\n" + "\n".join(f"  {path}  {words}" for path, words in made.items()),
        out=out,
        made={str(path): words for path, words in made.items()},
    )


@click.command(cls=Command, short_help="Check the installation and say how to fix it.")
@click.option("--gpu", is_flag=True, help="Check the GPU instead: two minutes of work, compared with the CPU's.")
@click.option("--fetch", is_flag=True, help="Download LPIPS's own backbone (5 MB), the only download ever made.")
@common
def doctor(gpu, fetch):
    """Check torch, device, networks, bases, codecs and disk, and say how to fix what is missing.

    With --gpu a tiny avatar is made and driven on the CPU and on the GPU, and the results are compared.

    $ mystudio doctor
    """
    from mystudio import doctor

    if gpu:
        return _check_gpu()
    if fetch:
        path = doctor.fetch()
        return answer(f"{path}: LPIPS with squeeze is used from now on.", file=path)
    findings = doctor.examine()
    lines = [
        f"{'ok  ' if f.ok else 'MISS' if f.needed else 'note'} {f.name}: {f.found}"
        + (f"\n     -> {f.advice}" if f.advice else "")
        for f in findings
    ]
    missing = [f.name for f in findings if f.needed and not f.ok]
    answer("\n".join(lines), findings=[vars(f) for f in findings], missing=missing)
    if missing:
        raise Failure(f"missing: {', '.join(missing)}; the lines above say what to do")


def _check_gpu() -> None:
    from mystudio.doctor import no_gpu
    from mystudio.errors import StudioError

    if advice := no_gpu():
        raise StudioError(f"no GPU was found, nothing was checked; {advice}")
    import torch

    from mystudio.gpu_check import check

    device = torch.device("cuda")
    rows, name = check(device, progress=progress()), torch.cuda.get_device_name(device)
    memory = torch.cuda.max_memory_allocated(device) / 2**30
    bad = [row.name for row in rows if not row.ok]
    lines = [f"{'ok  ' if row.ok else 'BAD '} {row.name}: {row.verdict}" for row in rows]
    lines.append(f"{name}: at most {memory:.1f} GiB of its memory in use")
    answer(
        "\n".join(lines), ok=not bad, gpu=name, memory_gib=round(memory, 2), rows=[vars(row) for row in rows], bad=bad
    )
    if bad:
        raise Failure(f"the GPU differs from the CPU in {', '.join(bad)}; use --device cpu, and report the lines above")


@click.group()
def recipe():
    """Settings of all stages, as data."""


@recipe.command(cls=Command, short_help="Print a recipe with all settings explained.")
@click.argument("name", required=False, metavar="[NAME|FILE]")
@recipe_options
@common
def show(name, recipe, options):
    """Print a recipe with every setting resolved and explained: the start of a recipe of your own.

    $ mystudio recipe show quick > mine.toml
    """
    from mystudio.recipe import resolve

    resolved = resolve(name or recipe, options)
    answer(resolved.show().rstrip(), recipe=resolved.name, toml=resolved.show())


@recipe.command("list", cls=Command)
@common
def list_recipes():
    """List the recipes that come with mystudio.

    $ mystudio recipe list
    """
    from mystudio.recipe import describe, names

    found = {name: describe(name) for name in names()}
    answer("\n".join(f"{name:10} {words}" for name, words in found.items()), recipes=found)


@click.group()
def base():
    """Generators that avatars start from."""


@base.command("list", cls=Command)
@common
def list_bases():
    """List the installed bases.

    $ mystudio base list
    """
    from mystudio.bases import list_bases

    found = [
        {
            "name": b.name,
            "resolution": int(b.info["resolution"]),
            "encoder": b.companion("encoder") is not None,
            "path": str(b.path),
        }
        for b in list_bases()
    ]
    lines = [
        f"{b['name']:16} {b['resolution']:5} px  {'with encoder' if b['encoder'] else 'no encoder  '}  {b['path']}"
        for b in found
    ]
    answer("\n".join(lines) or "There is no base; import one with `mystudio base import`.", bases=found)


@base.command("import", cls=Command)
@existing("FILE")
@click.option("--name", metavar="NAME", help="Name of the base; default: the file's name.")
@common
def import_(file, name):
    """Convert a StyleGAN2 checkpoint (.pkl, .pt) to a base. Nothing in the file is executed.

    It may be a checkpoint of StyleGAN2, or one of pSp, e4e, ReStyle or PTI, whose generator is imported.

    $ mystudio base import stylegan2-ffhq-256x256.pkl --name ffhq256
    """
    from mystudio.bases import import_base

    made = import_base(file, name or file.stem)
    answer(
        f"{made.name}: {made.info['resolution']} px{_source(made.info)}, at {made.path}.",
        base=made.name,
        path=made.path,
        info=made.info,
        digest=made.digest,
    )


def _source(info: dict[str, str]) -> str:
    part = info.get("source_part", "G_ema")
    return "" if part in ("G_ema", "g_ema") else f", from the part {part!r} of {info['source_file']}"


@base.command("train-encoder", cls=Command, short_help="Train the inversion encoder of a base.")
@click.argument("name", metavar="NAME|FILE")
@click.option("--people", default=2000, show_default=True, type=click.IntRange(20), help="Samples of the base to draw.")
@click.option("--steps", default=2500, show_default=True, type=click.IntRange(1), help="Training steps.")
@click.option(
    "--look-factors",
    type=click.IntRange(1),
    metavar="N",
    help="The first N numbers of z decide the look, the others the motion (people128: 32).",
)
@click.option(
    "--motion-factors",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="The next N numbers of z decide the motion, and the rest the look; 0 = all the rest are motion.",
)
@click.option(
    "--side-factors",
    type=click.IntRange(0),
    nargs=2,
    default=(0, 0),
    metavar="FIRST END",
    help="Numbers FIRST to END - 1 of z decide the motion, too; codes with sides: 64 67.",
)
@device_option
@common
def train_encoder(name, people, steps, look_factors, motion_factors, side_factors, device):
    """Train the inversion encoder of a base on the base's own samples.

    An imported base has no encoder. Without one, its avatars start from the base's mean face and need invert.steps.

    $ mystudio base train-encoder ffhq256
    """
    from mystudio.base.train_encoder import EncoderSettings, train_and_save
    from mystudio.bases import find_base
    from mystudio.compute.device import choose

    found = find_base(name)
    settings = EncoderSettings(people, steps=steps, motion_factors=motion_factors, side_factors=side_factors)
    path, figures = train_and_save(found, look_factors, settings, progress(), choose(device))
    answer(f"{path}: explains {figures['explained']:.0%} of W on held-out samples.", encoder=path, **figures)
