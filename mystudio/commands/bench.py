"""bench: the tables of docs/benchmarks.md, measured."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from mystudio.commands.options import Command, common, device_option, output, recipe_options
from mystudio.commands.terminal import Failure, answer, can_resume, progress


@click.group(short_help="Measure quality, speed and costs.")
def bench():
    """Measure the studio: real clips, actors with truth, ablations, costs."""


def measuring(command, recipe: str = "default"):
    """Add the options that the measuring commands share; ``recipe`` is the default of --recipe."""
    for name, words in (
        ("--blendshapes", "MediaPipe's face_landmarker.task, to measure expressions in 52 weights."),
        ("--identity-net", "ONNX file of a further face network, to measure identity beside likeness."),
    ):
        command = click.option(
            name, type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE", help=words
        )(command)
    command = click.option("--again", is_flag=True, help="Make all artifacts and measurements again.")(command)
    command = click.option(
        "--base", default="people128", show_default=True, metavar="NAME|FILE", help="Generator to start from."
    )(command)
    words = "Folder of results.jsonl, tables.md, contact sheets and all artifacts."
    return output("DIR", words)(recipe_options(device_option(common(command)), recipe))


def clips_of(required: bool):
    """Add the options that name real clips."""

    def add(command):
        command = click.option(
            "--i-am-the-person-or-have-consent",
            "consent",
            required=required,
            metavar="NAME",
            help="Your name or that of the person shown, who has agreed; it is stored with each scan.",
        )(command)
        return click.option(
            "--clips",
            "folder",
            required=required,
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="Folder of the clips.",
        )(command)

    return add


scan_names = click.option("--scan", "scans", multiple=True, metavar="NAME", help="Clip to scan, no .mp4; repeatable.")
_drivers = click.option("--driver", "drivers", multiple=True, metavar="NAME", help="Driving clip; repeatable.")


@bench.command(cls=Command, short_help="Real clips: self- and cross-reenactment.")
@clips_of(required=True)
@scan_names
@_drivers
@click.option("--seconds", default=6.0, show_default=True, help="Seconds of each driving clip of another person.")
@measuring
def real(folder, consent, scans, drivers, seconds, **rest):
    """Scan real clips, drive each by its own held-out seconds and by other people, and measure.

    $ mystudio bench real -o bench-out --clips clips --i-am-the-person-or-have-consent "Ada Example"
    """
    from mystudio.bench import real as part

    studio, ledger = opened(rest)
    case = part.RealCase(folder, consent, scans or part.SCANS, drivers or part.DRIVERS, seconds)
    finish(ledger, "real", part.run(studio, ledger, case))


@bench.command(cls=Command, short_help="Synthetic actors, against the true cross-reenactment.")
@click.option("--people", default=3, show_default=True, type=click.IntRange(1, 3), help="Scanned actors.")
@click.option("--performances", default=2, show_default=True, type=click.IntRange(1, 2), help="Drivers of each.")
@click.option("--scan-seconds", default=20.0, show_default=True, help="Length of a self-scan.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of a driving clip.")
@click.option("--size", default=512, show_default=True, metavar="PX", help="Side of a rendered frame.")
@click.option(
    "--ceiling-every",
    default=4,
    show_default=True,
    metavar="N",
    help="Fit the ceiling to every Nth frame; 0 = no ceiling.",
)
@measuring
def actors(people, performances, scan_seconds, seconds, size, ceiling_every, **rest):
    """Film actors, drive each by others, and compare with the actor doing the driver's exact motion.

    The actors' head is imported once: `mystudio actors import-basis`.

    $ mystudio bench actors -o bench-out
    """
    from mystudio.bench import actors as part

    studio, ledger = opened(rest)
    case = part.ActorsCase(
        part.PEOPLE[:people], part.DRIVERS[:performances], scan_seconds, seconds, size, ceiling_every
    )
    finish(ledger, "actors", part.run(studio, ledger, case))


@bench.command(cls=Command, short_help="Measure the effect of each part of the method.")
@clips_of(required=False)
@click.option("--actors", "on_actors", is_flag=True, help="On a pair of actors too.")
@scan_names
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="Measure only this change and the unchanged recipe; repeatable.",
)
@click.option("--scan-seconds", default=20.0, show_default=True, help="Length of the actor's self-scan.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of the actors' driving clip.")
@click.option("--size", default=512, show_default=True, metavar="PX", help="Side of a rendered frame.")
@measuring
def ablation(folder, consent, on_actors, scans, variants, scan_seconds, seconds, size, **rest):
    """Change one thing at a time, on a real clip and on a pair of actors. Artifacts of other benchmarks are reused.

    $ mystudio bench ablation -o bench-out --actors
    """
    from mystudio.bench import ablation as part
    from mystudio.bench.actors import ActorsCase
    from mystudio.bench.real import RealCase

    known = {variant.name for variant in part.VARIANTS}
    if unknown := set(variants) - known:
        raise click.UsageError(f"unknown variants: {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    if not (folder or on_actors):
        raise click.UsageError("expected --clips FOLDER or --actors, or both")
    if folder and not consent:
        raise click.UsageError("expected --i-am-the-person-or-have-consent NAME with --clips")
    studio, ledger = opened(rest)
    real_case = RealCase(folder, consent, scans or (part.SCAN,), ()) if folder else None
    actors_case = ActorsCase(scan_seconds=scan_seconds, driver_seconds=seconds, size=size) if on_actors else None
    finish(ledger, "ablation", part.run(studio, ledger, real_case, actors_case, part.chosen(variants)))


@bench.command(cls=Command, short_help="Seconds and memory of each stage.")
@clips_of(required=True)
@scan_names
@_drivers
@click.option("--iterations", default=24, show_default=True, type=click.IntRange(8), help="Tuning iterations.")
@click.option("--frames", default=64, show_default=True, type=click.IntRange(1), help="Driving frames.")
@click.option(
    "--paper-frames",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="Driving frames with the paper's recipe.",
)
@click.option(
    "--length",
    "lengths",
    multiple=True,
    type=click.IntRange(1),
    default=(100, 3000),
    show_default=True,
    metavar="FRAMES",
    help="Driving frames whose peak memory is compared; repeatable.",
)
@measuring
def costs(folder, consent, scans, drivers, iterations, frames, paper_frames, lengths, **rest):
    """Measure seconds and peak memory of each stage, with the recipe and with the paper's.

    $ mystudio bench costs -o bench-out --clips clips --i-am-the-person-or-have-consent "Ada Example"
    """
    from mystudio.bench import costs as part
    from mystudio.bench.real import RealCase

    studio, ledger = opened(rest)
    case = RealCase(folder, consent, scans or ("scan-glasses",), drivers or ("driver-mouth",))
    wanted = part.CostsCase(case, iterations, frames=frames, paper_frames=paper_frames, lengths=tuple(lengths))
    finish(ledger, "costs", part.run(studio, ledger, wanted))


@bench.command(cls=Command, short_help="Time solvers, generator, tuning, selection and live against plain versions.")
@click.option(
    "--part",
    "parts",
    multiple=True,
    metavar="NAME",
    help="Measure only this part: solve, generator, personalize, select, live or rates; repeatable.",
)
@click.option(
    "--solver",
    "rivals",
    multiple=True,
    metavar="NAME",
    help="Measure only this solver: start, default, lm, lm-proxy, adam, lbfgs or paper; repeatable.",
)
@click.option("--people", default=3, show_default=True, type=click.IntRange(1, 3), help="Scanned actors.")
@click.option("--performances", default=2, show_default=True, type=click.IntRange(1, 2), help="Drivers of each.")
@click.option("--scan-seconds", default=20.0, show_default=True, help="Length of a self-scan.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of a driving clip.")
@click.option("--size", default=512, show_default=True, metavar="PX", help="Side of a rendered frame.")
@click.option("--frames", default=12, show_default=True, type=click.IntRange(2), help="Solved by every solver.")
@click.option(
    "--paper-frames",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="Driving frames for the paper's solver, which takes one to two minutes for each.",
)
@click.option(
    "--budget",
    default=300.0,
    show_default=True,
    metavar="S",
    help="Processor seconds that MyStyle's tuning gets; its whole schedule takes hours.",
)
@measuring
def speed(parts, rivals, people, performances, scan_seconds, seconds, size, frames, paper_frames, budget, **rest):
    """Time the costly parts against the paper's methods and plain versions in one run, and measure their quality.

    The actors' head is imported once: `mystudio actors import-basis`. Artifacts of `bench actors` are reused.

    $ mystudio bench speed -o bench-out
    """
    from mystudio.bench import speed as part
    from mystudio.bench.actors import DRIVERS, PEOPLE, ActorsCase
    from mystudio.bench.personal import solvers

    for given, known in ((parts, part.PARTS), (rivals, [rival.name for rival in solvers.RIVALS])):
        if unknown := set(given) - set(known):
            raise click.UsageError(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    if paper_frames > frames:
        raise click.UsageError(f"expected --paper-frames of at most --frames, got {paper_frames} and {frames}")
    studio, ledger = opened(rest)
    actors_case = ActorsCase(PEOPLE[:people], DRIVERS[:performances], scan_seconds, seconds, size)
    case = part.SpeedCase(
        actors_case, parts or part.PARTS, rivals or part.SpeedCase.rivals, frames, paper_frames, budget=budget
    )
    keys = part.run(studio, ledger, case)
    if found := part.summary(ledger):
        click.echo(
            "Paper's solver / default, a frame: {paper_cpu_seconds:.1f} / {default_cpu_seconds:.3f} processor "
            "seconds, {times:.0f} times, over {pairs} pairs.".format(**found),
            err=True,
        )
    finish(ledger, "speed", keys)


@bench.command(cls=Command, short_help="Training a base: images per second, against a plain implementation.")
@click.option(
    "--recipe", default="base-faces", show_default=True, metavar="NAME|FILE", help="Recipe of the base's shape."
)
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1), help="Images per step.")
@click.option(
    "--steps", default=5, show_default=True, type=click.IntRange(1), help="Measured steps, after as many warm-up steps."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Precision of the feature maps; the plain version uses float32.",
)
@device_option
@common
def training(recipe, batch, steps, precision, device):
    """Time adversarial steps against a plain float32 StyleGAN2 with the same weights, in one run.

    $ mystudio bench training --recipe base-cpu
    """
    from mystudio.bench.base_training import TrainingCase, measure
    from mystudio.compute.device import choose
    from mystudio.recipe import resolve_base

    found = measure(TrainingCase(resolve_base(recipe, ()).model, batch, steps, precision), choose(device))
    answer(
        f"{recipe}: ours {found['ours']:.2f} images/s, plain {found['reference']:.2f}, {found['times']:.1f} times.",
        recipe=recipe,
        batch=batch,
        **found,
    )


def opened(rest: dict):
    """Open the studio and the ledger of a measuring command by the options that ``measuring`` adds."""
    from mystudio.bench.ledger import Ledger
    from mystudio.bench.studio import Studio

    out = rest["out"]
    can_resume(f"what is measured is kept in {out}: the same command goes on from there")
    studio = Studio(
        out,
        rest["recipe"],
        tuple(rest["options"]),
        rest["base"],
        rest["device"],
        rest["identity_net"],
        rest["blendshapes"],
        rest["again"],
        progress(),
    )
    return studio, Ledger(out, shlex.join(["mystudio", *sys.argv[1:]]), rest["again"])


def finish(ledger, part: str, keys: list[str]) -> None:
    """Write and print the tables of a part. Raises Failure: a measurement failed."""
    from mystudio.bench.tables import shown, write_tables

    write_tables(ledger, ledger.path.with_name("tables.md"))
    answer(shown(ledger, part).rstrip(), results=ledger.path, rows=len(keys), tables=ledger.path.with_name("tables.md"))
    if failed := ledger.failures(keys):
        raise Failure(
            f"{len(failed)} of {len(keys)} measurements failed and are tried again by the same command: "
            + "; ".join(failed)
        )
