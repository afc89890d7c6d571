"""base train, export, pack, sheet, sample, evaluate: train a base generator and measure it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from mystudio.commands.about import base
from mystudio.commands.options import PATH, Command, common, device_option, existing, output
from mystudio.commands.terminal import answer, can_resume, progress

_data = click.option(
    "--data",
    "data",
    multiple=True,
    type=PATH,
    metavar="FOLDER|FILE",
    help="Images (a folder), images with codes (.npz, or a folder of them), or actors[:SEED], drawn "
    "as they are needed; repeatable.",
)
_weight = click.option(
    "--weight",
    "weights",
    multiple=True,
    type=click.FloatRange(0),
    metavar="W",
    help="Share of each --data, in their order; default: equal shares.",
)
_named = click.argument("name", metavar="BASE|FILE")


@base.command("train", cls=Command, short_help="Train a base generator.")
@output("RUN", "Folder of the run; an existing run is resumed.")
@_data
@_weight
@click.option("--recipe", metavar="NAME|FILE", help="base-actors, base-faces or a TOML file; a run keeps its own.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Change one setting of the recipe, e.g. adversarial.r1=1; may be repeated.",
)
@click.option("--resolution", type=click.IntRange(8), metavar="PX", help="Resolution of the generator; a power of two.")
@click.option(
    "--from", "start", metavar="BASE|FILE", help="Base of equal or lower resolution that a new run starts from."
)
@click.option("--phase", type=click.Choice(["supervised", "adversarial"]), help="Only this phase.")
@click.option("--kimg", type=click.FloatRange(0), metavar="N", help="Length of the phase, in thousand images.")
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    default=0.0,
    metavar="N",
    help="Stop before N minutes are over, with a checkpoint; the same command goes on.",
)
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Images per step, over all processes.")
@click.option(
    "--max-part-mb",
    type=click.FloatRange(0),
    default=0.0,
    metavar="N",
    help="Write the checkpoint in files of at most N MiB.",
)
@device_option
@common
def train(out, data, weights, recipe, options, resolution, start, phase, kimg, minutes, batch, max_part_mb, device):
    """Train a base: from actor codes to their images, then against a discriminator with adaptive augmentation.

    The same command again resumes the run. Several GPUs: torchrun --nproc-per-node 8 -m mystudio.cli base
    train ...

    $ mystudio base train -o faces.run --recipe base-faces --from actors256 --data faces --data actors.npz
    """
    began = time.monotonic()
    can_resume("the last checkpoint is kept; the same command goes on from there")
    from mystudio.base.train import TrainingSession
    from mystudio.base.train import train as run_training
    from mystudio.bases import find_base
    from mystudio.compute.device import choose

    settings = _settings(out, recipe, options, resolution, phase, kimg, batch)
    session = TrainingSession(
        _sources(data, settings.model.resolution),
        weights,
        find_base(start).path if start else None,
        minutes,
        began,
        max_part_mb,
    )
    leads = os.environ.get("RANK", "0") == "0"
    made = run_training(out, settings, session, choose(device), *([progress()] if leads else []))
    if leads:
        state = "done" if made["done"] else "stopped at the time limit; the same command resumes"
        seen = ", ".join(f"{count / 1000:g} thousand images {name}" for name, count in made["images"].items())
        answer("\n".join([f"{out}: {state} ({seen}).", *made["warnings"]]), run=out, **made)


def _settings(out: Path, recipe, options, resolution, phase, kimg, batch):
    import dataclasses

    from mystudio.base.checkpoint import INDEX
    from mystudio.base.runs import settings_of, with_budget
    from mystudio.recipe import resolve_base

    if kimg is not None and not phase:
        raise click.UsageError("--kimg needs --phase, because it sets the length of that phase")
    if recipe is None and (out / INDEX).exists():
        if options:
            raise click.UsageError("--option needs --recipe: without one, a run keeps the settings it has")
        settings = settings_of(out)
    else:
        settings = resolve_base(recipe or "base-actors", options)
    settings = with_budget(settings, phase, kimg, batch)
    if not resolution:
        return settings
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, resolution=resolution))


def _sources(data, resolution: int) -> list:
    from mystudio.base.sources import open_source

    if not data:
        raise click.UsageError("give at least one --data: a folder of images or an .npz file")
    return [open_source(path, resolution) for path in data]


@base.command("export", cls=Command)
@existing("RUN")
@output("FILE", "Base to write (.safetensors).")
@click.option("--info", "facts", multiple=True, metavar="KEY=TEXT", help="A fact for the file's header, e.g. terms=...")
@common
def export(run, out, facts):
    """Write the averaged generator of a run as a base, in fp16.

    $ mystudio base export faces.run -o faces256.safetensors --info "data=1,832 portraits, MIT and CC0"
    """
    from mystudio.base.runs import export_generator
    from mystudio.stylegan2.checkpoint import read_info, save_generator

    extra = dict(fact.partition("=")[::2] for fact in facts)
    generator, info = export_generator(run)
    save_generator(generator, out, info | extra, half=True)
    answer(f"{out}: {generator.resolution} px, {out.stat().st_size / 1e6:.1f} MB.", base=out, info=read_info(out))


@base.command("pack", cls=Command, short_help="Write a small copy of a run, for sending.")
@existing("RUN")
@output("RUN", "Folder of the copy.")
@click.option(
    "--max-part-mb",
    type=click.FloatRange(0.1),
    default=15.0,
    show_default=True,
    metavar="N",
    help="MiB of a file at most.",
)
@common
def pack(run, out, max_part_mb):
    """Write a small copy of a run for sending: fp16 weights in parts, without the state of Adam.

    The copy can be resumed, but the continued run is not bit-identical to the original.

    $ mystudio base pack faces.run -o light.run
    """
    from mystudio.base.runs import pack as pack_run

    pack_run(run, out, max_part_mb)
    size = sum(p.stat().st_size for p in out.iterdir())
    answer(f"{out}: {size / 1e6:.1f} MB.", run=out, bytes=size)


@base.command("sheet", cls=Command)
@_named
@output("PNG", "Picture to write.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the samples.")
@click.option(
    "--truncation", type=float, default=0.7, show_default=True, help="Truncation of the lower rows; 0 = the mean face."
)
@common
def sheet(name, out, seed, truncation):
    """Draw samples, the same samples truncated, and interpolations.

    $ mystudio base sheet faces256.safetensors -o faces256.png
    """
    from mystudio.base.sheets import sheet_of_base, write_png
    from mystudio.bases import find_base

    write_png(out, sheet_of_base(find_base(name).generator, seed, truncation))
    answer(f"{out}: two rows of samples, the same at truncation {truncation:g}, three interpolations.", sheet=out)


@base.command("sample", cls=Command)
@_named
@output("DIR", "Folder for the images.")
@click.option("-n", "count", type=click.IntRange(1), default=16, show_default=True, help="Images.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the samples.")
@click.option("--truncation", type=float, default=1.0, show_default=True, help="0 = the mean face.")
@common
def sample(name, out, count, seed, truncation):
    """Draw faces as PNG files.

    $ mystudio base sample people128 -o faces -n 16
    """
    from mystudio.base.sheets import fixed_latents, pictures, write_png
    from mystudio.bases import find_base

    generator = find_base(name).generator
    for k, part in enumerate(fixed_latents(count, generator.z_dim, seed).split(8)):
        for i, image in enumerate(pictures(generator, generator.mapping(part, truncation).detach())):
            write_png(out / f"{8 * k + i:05d}.png", image)
    answer(f"{out}: {count} images.", folder=out, count=count)


@base.command("evaluate", cls=Command, short_help="Measure a base's samples against training images.")
@_named
@output("DIR", "Folder of evaluation.json and nearest.png.")
@_data
@_weight
@click.option(
    "--samples", type=click.IntRange(16), default=1000, show_default=True, help="Samples to draw from the base."
)
@click.option(
    "--images", type=click.IntRange(16), default=2000, show_default=True, help="Largest number of training images."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the samples and of the chosen images."
)
@device_option
@common
def evaluate(name, out, data, weights, samples, images, seed, device):
    """Measure samples: faces found, spread of pose and expression, distance, precision and recall, nearest images.

    $ mystudio base evaluate faces256.safetensors -o faces256.eval --data faces
    """
    from mystudio.base.data import Mixture
    from mystudio.base.evaluate import evaluate_base, summary, write
    from mystudio.bases import find_base
    from mystudio.compute.device import choose

    found = find_base(name)
    mixture = Mixture(_sources(data, found.generator.resolution), weights, seed=seed)
    result = evaluate_base(found.generator, mixture, samples, images, seed, choose(device), progress())
    write(result, out)
    answer(summary(result) + f"\n{out}: evaluation.json, nearest.png.", out=out, **result.figures)
