"""scan, personalize, evaluate."""

from __future__ import annotations

from pathlib import Path

import click

from mystudio.commands.options import (
    PATH,
    Command,
    EngineName,
    common,
    device_option,
    existing,
    face_option,
    force_option,
    output,
    part_lines,
    recipe_options,
    span_of,
    span_options,
)
from mystudio.commands.terminal import answer, can_resume, progress, warned
from mystudio.engines import DEFAULT, ENGINES


@click.command(cls=Command, short_help="Video of a person -> chosen, aligned images.")
@click.argument("videos", type=PATH, nargs=-1, required=True, metavar="VIDEO...")
@output("SCAN", "Folder of the scan.")
@click.option(
    "--i-am-the-person-or-have-consent",
    "consent",
    required=True,
    metavar="NAME",
    help="Your name: you are the person shown, or that person has agreed. It is recorded with the scan.",
)
@click.option("--fictional", is_flag=True, help="The person shown does not exist; NAME is the character's.")
@click.option(
    "--consent-clip",
    type=click.Path(path_type=Path),
    metavar="VIDEO",
    help="A separate clip in which the person says that they agree: it must show the person of VIDEO.",
)
@click.option("--frames", type=click.IntRange(1), metavar="N", help="Images to choose (scan.frames).")
@click.option(
    "--size",
    type=click.IntRange(32),
    metavar="PX",
    help="Side of an image (scan.size); default: 256, or 512 if the clip shows so much.",
)
@face_option
@span_options
@recipe_options
@force_option
@common
def scan(videos, out, consent, fictional, consent_clip, frames, size, face, start, end, recipe, options, force):
    """Choose the sharp, diverse, aligned images of one person from a video of 20 to 30 seconds.

    With several videos of this person, up to eight, the images are chosen over all of them. --start, --end and --face
    then hold for each.

    VIDEO may also be a photo, or a folder of photos of one person, for engines that need no more. The engine personal
    needs at least four images.

    The picture coverage.png in SCAN shows which poses and expressions the video holds and what to record again. Videos
    with two people, together or one after the other, are refused. Words that `mystudio record` wrote beside the
    video become part of the consent.

    $ mystudio scan me.mp4 -o me.scan --i-am-the-person-or-have-consent "Ada Example"
    $ mystudio scan monday.mp4 tuesday.mp4 -o me.scan --i-am-the-person-or-have-consent "Ada Example"
    $ mystudio scan me.jpg -o me.scan --i-am-the-person-or-have-consent "Ada Example"
    """
    from dataclasses import asdict

    from mystudio.pipeline import run_scan
    from mystudio.recipe import resolve
    from mystudio.storage.artifacts import load
    from selfscan.types import Scan

    span = span_of(start, end)
    can_resume(f"what is done is kept in {out}.partial: the same command goes on from there")
    short = [f"scan.{key}={value}" for key, value in (("frames", frames), ("size", size)) if value]
    run_scan(
        videos,
        out,
        consent,
        resolve(recipe, [*options, *short]),
        progress(),
        fictional=fictional,
        consent_clip=consent_clip,
        face=face,
        span=span,
        force=force,
    )
    made = load(out, Scan)
    clips = [{"video": clip.name, "images": int((made.clip_index == k).sum())} for k, clip in enumerate(made.clips)]
    origin = f" ({', '.join('{images} of {video}'.format(**clip) for clip in clips)})" if len(clips) > 1 else ""
    rejected = ", ".join(f"{reason} {count}" for reason, count in made.rejects.items() if count) or "none"
    missing = "; ".join(made.coverage.missing)
    answer(
        f"{out}: {len(made)} images of {made.images.shape[1]} px{origin}; frames rejected: {rejected}."
        + "".join(f"\n{line}" for line in (*part_lines(span), *consented(made)))
        + (f"\nTo get a fuller scan, record again and: {missing}." if missing else "")
        + warned(made.warnings),
        scan=out,
        images=len(made),
        clips=clips,
        rejects=made.rejects,
        span={"start": span.start, "end": span.end},
        missing=made.coverage.missing,
        metric=made.perceptual,
        identity=asdict(made.identity) if made.identity else None,
        consent=asdict(made.consent),
        cuts=made.cuts,
        warnings=made.warnings,
    )


@click.command(cls=Command, short_help="Scan -> avatar: a generator that is this person.")
@existing("SCAN")
@output("AVATAR", "Folder of the avatar.")
@click.option(
    "--base",
    default="people128",
    show_default=True,
    metavar="NAME|FILE",
    help="Generator to start from; see `mystudio base list`.",
)
@click.option(
    "--engine",
    default=DEFAULT,
    show_default=True,
    type=EngineName(),
    metavar="NAME",
    help=f"How the avatar is made and driven: {', '.join(ENGINES)}.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    default=0.0,
    metavar="N",
    help="Stop after N minutes with the avatar of that moment; the same command goes on.",
)
@click.option("--until-good", is_flag=True, help="Stop as soon as more time would change little.")
@click.option(
    "--without",
    type=click.IntRange(0),
    multiple=True,
    metavar="N",
    help="Leave out the image SCAN/images/N.png (such as 000123, or 123); may be repeated.",
)
@recipe_options
@device_option
@force_option
@common
def personalize(scan, out, base, engine, minutes, until_good, without, recipe, options, device, force):
    """Tune a generator until it draws the person of a scan and nobody else: the avatar.

    This is the long stage. AVATAR can be used after the first minute, and is replaced as it improves. The work can be
    stopped at any time, and the same command resumes it. Previews appear in AVATAR.partial while it runs.

    $ mystudio personalize me.scan -o me.avatar
    """
    from mystudio import engines
    from mystudio.drafts import quality
    from mystudio.pipeline import run_personalize
    from mystudio.recipe import resolve
    from mystudio.storage.artifacts import is_draft, load
    from mystudio.types import Avatar

    can_resume(f"what is done is kept in {out}.partial: the same command goes on from there")
    shown = progress()
    run_personalize(
        scan,
        out,
        base,
        resolve(recipe, options),
        shown,
        engine=engine,
        device=device,
        force=force,
        minutes=minutes,
        until_good=until_good,
        without=without,
        tell=shown.tell,
    )
    made, draft = load(out, Avatar), is_draft(out)
    facts, edits = engines.describe(made), list(engines.directions(made))
    words = [f"{made.generator.resolution} px", *(f"{value} {name}" for name, value in facts.items())]
    answer(
        f"{out}: an avatar of {made.consent.name}, {', '.join(words)}; edits: {', '.join(edits) or 'none'}."
        + (f"\n{looks}" if (looks := quality(made.info)) else "")
        + ("\nIt is not finished: the same command goes on." if draft else ""),
        avatar=out,
        engine=engine,
        **facts,
        edits=edits,
        draft=draft,
        info=made.info,
    )


@click.command(cls=Command, short_help="Take -> metrics and a report.")
@existing("TAKE")
@output("DIR", "Folder of metrics.json and report.html.")
@click.option(
    "--truth",
    metavar="VIDEO|same",
    help="The true result, frame by frame; 'same' if the driving clip shows the avatar's own person.",
)
@click.option(
    "--identity-net",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="ONNX file of a further face network, to measure identity beside likeness.",
)
@click.option(
    "--blendshapes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="MediaPipe's face_landmarker.task, to measure expressions in 52 weights.",
)
@device_option
@force_option
@common
def evaluate(take, out, truth, identity_net, blendshapes, device, force):
    """Measure a take: likeness, pose, expression, gaze, jitter, and against the truth where there is one.

    $ mystudio evaluate hello.take -o hello.report
    """
    import json

    from mystudio.pipeline import run_evaluate

    truth = truth if truth in (None, "same") else Path(truth)
    can_resume(f"what is done is kept in {out}.partial: the same command goes on from there")
    run_evaluate(
        take,
        out,
        progress(),
        truth=truth,
        identity_net=identity_net,
        blendshapes=blendshapes,
        device=device,
        force=force,
    )
    numbers = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    answer(
        f"{out / 'report.html'}: written.\n" + "\n".join(headlines(numbers)),
        report=out / "report.html",
        metrics={row["name"]: row["value"] for row in numbers["metrics"]},
    )


def consented(scan) -> list[str]:
    """Return sentences about the results of a scan's identity and consent checks."""
    from selfscan.scan.guide import MOVED

    lines, consent = [], scan.consent
    if scan.identity and scan.identity.lowest is None:
        lines.append("The check for a second person was not possible: no frame shows the face from the front.")
    if consent.clip:
        lines.append(
            f"The clip of consent shows the person of the scan (likeness {consent.clip.likeness:.2f}, at "
            f"least {consent.clip.threshold} is needed)."
        )
    for words in filter(None, (consent.words, *(o.words for o in consent.others), consent.clip and consent.clip.words)):
        moved = sum(item.mouth is not None and item.mouth >= MOVED for item in words.said)
        lines.append(
            f"Words shown while it was recorded: {', '.join(item.text for item in words.said)}; the mouth "
            f"moved in {moved} of {len(words.said)}. Listen to the video to check that they were said."
        )
    return lines


def headlines(numbers: dict) -> list[str]:
    """Return the main rows of metrics.json as lines of text."""
    return [
        f"  {row['title']}: {row['value']:.3g} {row['unit']}".rstrip()
        for row in numbers["metrics"]
        if row["headline"] and row["value"] is not None
    ]
