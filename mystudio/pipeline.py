"""The stages in order. Read this file first.

Each stage is a pure function in its own module. This module reads its inputs from artifact folders and stores its
result as one. A stage with unchanged inputs and settings is skipped. A stopped stage resumes from its checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from mystudio import bases, drafts, editing, engines, faces
from mystudio.clips import run_live as run_live  # these two stages write clips
from mystudio.clips import run_render as run_render
from mystudio.compute import blas
from mystudio.compute.device import choose
from mystudio.drafts import Drafts
from mystudio.engines.protocol import Forecasts, Improves
from mystudio.errors import BadArtifact, BadClips, ConsentRequired, TooFewImages
from mystudio.evaluation import evaluate, forecast
from mystudio.live import recording
from mystudio.motion import performance as perform
from mystudio.provenance import claim as provenance
from mystudio.recipe import Recipe
from mystudio.storage import artifacts
from mystudio.storage.artifacts import engine_of, load, load_performance, others_of, save
from mystudio.storage.directions import load_directions
from mystudio.storage.journal import DiskCheckpoints, write_bytes
from mystudio.storage.manifest import digest, digest_of, open_folder
from mystudio.storage.scan_inputs import scan_inputs
from mystudio.storage.workspace import StageRun, stage
from mystudio.types import Avatar, Edit, Performance, Progress, Take, silent
from selfscan.face.choose import LARGEST, check_wanted
from selfscan.io.naming import derived
from selfscan.perceptual.metric import perceptual_name
from selfscan.scan import coverage_figure
from selfscan.scan.consent import make_consent
from selfscan.scan.scan import scan_clips
from selfscan.scan.without import without as leave_out
from selfscan.types import WHOLE, Scan, Span

MEASUREMENT = 2  # version of what a performance measures; 1: without cuts, persons and turned faces


def unheard(_sentence: str) -> None:
    """Takes sentences that nobody reads."""


def run_scan(
    video: Path | Sequence[Path],
    out: Path,
    consent: str,
    recipe: Recipe,
    progress: Progress = silent,
    *,
    fictional: bool = False,
    consent_clip: Path | None = None,
    face: str = LARGEST,
    span: Span = WHOLE,
    force: bool = False,
) -> Path:
    """A video of one person, or several -> the scan: selected, aligned images, coverage and consent.

    If ``run_record`` wrote a file of words beside a video or ``consent_clip``, the consent includes them. ``face``
    chooses one of several faces (``selfscan.face.choose.check_wanted``). Where a second face stops the scan, a picture
    beside ``out`` numbers them.
    """
    settings = {
        "scan": recipe.scan,
        "consent": consent,
        "fictional": fictional,
        "metric": perceptual_name(recipe.scan.perceptual),
    } | faces.chosen(face, span)
    videos = [video] if isinstance(video, Path) else list(video)
    inputs = dict(zip(scan_inputs(len(videos)), videos)) | ({"consent_clip": consent_clip} if consent_clip else {})
    inputs |= {f"{name}_words": found for name, clip in inputs.items() if (found := recording.words_of(clip)).is_file()}
    with stage(out, "scan", inputs, settings, force=force) as run:
        _refuse_twice(run, videos)
        if not run.done:
            blas.reserve()
            first, *more = [(one, recording.read_words(one)) for one in videos]
            who = make_consent(consent, first[0], fictional, first[1], more)
            clip = (consent_clip, recording.read_words(consent_clip)) if consent_clip else None
            with run.checkpoints() as checkpoints, faces.numbered(out, span):
                made = scan_clips(videos, who, recipe.scan, progress, None, clip, checkpoints, face, span)
            coverage_figure.draw(made.coverage, picture := BytesIO(), made.frame_index)
            save(made, run, {"coverage.png": picture.getvalue()})
    return out


def _refuse_twice(run: StageRun, videos: Sequence[Path]) -> None:
    found = [run.inputs[name].digest for name in scan_inputs(len(videos))]
    if twice := [video for k, video in enumerate(videos) if found[k] in found[:k]]:
        raise BadClips(f"{twice[0]} has the content of a clip before it; give every clip once")


def run_personalize(
    scan_path: Path,
    out: Path,
    base: str,
    recipe: Recipe,
    progress: Progress = silent,
    *,
    engine: str = engines.DEFAULT,
    device: str = "auto",
    force: bool = False,
    minutes: float = 0.0,
    until_good: bool = False,
    without: Sequence[int] = (),
    tell: Callable[[str], None] = unheard,
) -> Path:
    """A scan -> the avatar: a generator that draws only this person.

    Images whose numbers are in ``without`` (``selfscan.scan.without``) are left out; the avatar's manifest names them.

    An engine that can (``engines.protocol.Improves``) gives usable avatars on the way. They are stored at ``out``, if
    that replaces nothing else. ``minutes`` and ``until_good`` end the work early; the same call goes on.
    """
    found = bases.find_base(base)
    own = recipe.of(engine, "personalize")
    settings = {"engine": engine, "metric": perceptual_name()} | _tables(own) | artifacts.images_left_out(without)
    with stage(out, "avatar", {"scan": scan_path, "base": found.path}, settings, force=force) as run:
        if not run.done:
            blas.reserve()
            person, module = leave_out(load(scan_path, Scan), without), engines.named(engine)
            watch = Drafts(run, minutes, until_good, tell)
            make = partial(module.improve, watch=watch) if isinstance(module, Improves) else module.personalize
            with run.checkpoints(ConsentRequired, TooFewImages) as checkpoints:
                made = make(person, found, own, checkpoints=checkpoints, device=choose(device), progress=progress)
                save(made, run, draft=watch.ended)
    return out


def run_forecast(scan_path: Path, base: str, recipe: Recipe, *, engine: str, device: str = "auto") -> float | None:
    """Measure some seconds of ``run_personalize``; returns an estimate of a first avatar, s; None = it has none."""
    module, own = engines.named(engine), recipe.of(engine, "personalize")
    if not isinstance(module, Forecasts):
        return None
    blas.reserve()
    begin = time.process_time()
    scan, found = load(scan_path, Scan), bases.find_base(base)
    read = time.process_time() - begin
    parts = module.forecast(scan, found, own, choose(device))
    before = read + parts.before
    return before + parts.during + drafts.spent(before, parts.during, parts.draft) + parts.after


def run_perform(
    video: Path,
    folder: Path,
    progress: Progress = silent,
    *,
    face: str = LARGEST,
    span: Span = WHOLE,
    force: bool = False,
) -> Path:
    """A driving clip -> the performance, usable with any avatar; its name in ``folder`` contains the clip's digest.

    Where several faces are visible, a picture in the performance numbers them, and ``face`` chooses one.
    """
    known = digest(video) if span == WHOLE else digest_of([digest(video), span.start, span.end])
    which = "" if face == LARGEST else f"-{check_wanted(face)}"
    settings = faces.chosen(face, span) | {"measurement": MEASUREMENT}
    named = partial(derived, folder / video.name, stem=video.stem)
    out = named(after=f"-{known[:8]}{which}.performance")
    if _is_older(out):  # takes refer to it: it stays
        out = named(after=f"-{known[:8]}{which}-{MEASUREMENT}.performance")
    with stage(out, "performance", {"video": video}, settings, force=force) as run:
        if not run.done:
            blas.reserve()
            with run.checkpoints() as checkpoints:
                made = perform.perform(video, progress=progress, checkpoints=checkpoints, face=face, span=span)
            made, extras = faces.with_picture(made, video, out, face)
            seen = replace(made.observation, video=video.name)  # the manifest stores the clip's path
            save(replace(made, observation=seen), run, extras)
    return out


def run_reenact(
    avatar_path: Path,
    video: Path,
    out: Path,
    recipe: Recipe,
    progress: Progress = silent,
    *,
    face: str = LARGEST,
    others: Literal["drive", "leave-out"] = "drive",
    span: Span = WHOLE,
    device: str = "auto",
    force: bool = False,
    tell: Callable[[str], None] = unheard,
) -> Path:
    """An avatar and a driving clip, or a part of it -> the take: codes over time.

    Args:
        face: which face drives where there are several: see ``selfscan.face.choose.check_wanted``.
        others: after a cut to another person, that person drives, or these frames count as without a face.
        span: the part of the clip that drives.
        tell: takes sentences on what the avatar will not be able to follow, before the frames are solved.
    """
    performance_path = run_perform(video, out.parent, progress, face=face, span=span)
    inputs = {"avatar": avatar_path, "performance": performance_path}
    engine = engine_of(avatar_path)
    settings = recipe.of(engine, "reenact")
    left_out = {"others": others} if others != "drive" else {}
    with stage(out, "take", inputs, _tables(settings) | left_out, force=force) as run:
        if not run.done:
            blas.reserve()
            avatar = load(avatar_path, Avatar)
            drive, told = partial(engines.named(engine).reenact, avatar), partial(forecast.foretold, avatar)
            rest = settings, DiskCheckpoints(run.journal()), choose(device), progress
            save(drive(told(_driver(load(performance_path, Performance), others), tell), *rest), run)
    return out  # no variable held the performance while it was solved


def run_edit(
    take_path: Path, out: Path, edits: Sequence[Edit], *, directions: Path | None = None, force: bool = False
) -> Path:
    """A take and edits -> another take; ``directions`` is a file of directions beyond the avatar's own."""
    folder = open_folder(take_path, "take")
    inputs = {"take": take_path, "avatar": folder.source("avatar"), "performance": folder.source("performance")}
    inputs |= {"directions": directions} if directions else {}
    with stage(out, "take", inputs, {"edits": edits}, force=force) as run:
        if not run.done:
            avatar = load(inputs["avatar"], Avatar)
            net, names = avatar.generator, [edit.name for edit in edits]
            more = load_directions(directions, net.w_dim, net.num_ws, names) if directions else None
            take = load(take_path, Take)  # loaded before any checkpoint is stored: a damaged take leaves no files
            with run.checkpoints() as checkpoints:
                made = editing.apply(avatar, take, list(edits), more, checkpoints)
            save(made, run)
    return out


def run_sheet(avatar_path: Path, out: Path, recipe: Recipe, take_path: Path | None = None) -> Path:
    """Draw every edit that an avatar offers, on its neutral face or on a take, as PNG."""
    who = provenance.signing_key(recipe.provenance)
    avatar, take = load(avatar_path, Avatar), load(take_path, Take) if take_path else None
    picture = editing.sheet_png(avatar, take, provenance.stamp(recipe.provenance, digest(avatar_path)))
    if who:
        claim = provenance.Claim("edit sheet", digest(avatar_path), avatar.consent.fictional)
        picture = provenance.seal_png(picture, claim, who, out.name)
    write_bytes(out, picture)
    return out


def run_evaluate(
    take_path: Path,
    out: Path,
    progress: Progress = silent,
    *,
    truth: Path | str | None = None,
    identity_net: Path | None = None,
    blendshapes: Path | None = None,
    device: str = "auto",
    force: bool = False,
) -> Path:
    """A take -> metrics.json and report.html."""
    folder = open_folder(take_path, "take")
    inputs = {"take": take_path, "avatar": folder.source("avatar"), "performance": folder.source("performance")}
    inputs |= {"video": open_folder(inputs["performance"]).source("video")}
    optional = {
        "truth": truth,
        "identity_net": identity_net,
        "blendshapes": blendshapes,
        "scan": open_folder(inputs["avatar"]).source_if_there("scan"),
        "unedited": folder.source_if_there("take"),
    }
    inputs |= {name: path for name, path in optional.items() if isinstance(path, Path)}
    settings = {"truth": "same" if truth == "same" else None, "metric": perceptual_name()}
    kinds = {"scan", "avatar", "take", "unedited"}  # inputs whose recipes the report shows
    with stage(out, "report", inputs, settings, force=force) as run:
        if not run.done:
            blas.reserve()
            avatar, take = _on(load(inputs["avatar"], Avatar), device), load(take_path, Take)
            stamp = provenance.stamp(provenance.ProvenanceSettings(), digest(inputs["avatar"]))
            with run.checkpoints() as checkpoints, run.writing() as place:
                evaluate.evaluate(
                    avatar,
                    take,
                    _driver(load_performance(inputs["performance"]), others_of(take_path)),
                    place,
                    progress=progress,
                    truth=truth,
                    scan=artifacts.load_scan_of(inputs["avatar"], inputs["scan"]) if "scan" in inputs else None,
                    unedited=load(inputs["unedited"], Take) if "unedited" in inputs else None,
                    edit_sheet=editing.sheet_png(avatar, take, stamp) if engines.directions(avatar) else None,
                    identity_net=identity_net,
                    blendshapes=blendshapes,
                    recipe={kind: open_folder(inputs[kind]).manifest.settings for kind in sorted(kinds & set(inputs))},
                    checkpoints=checkpoints,
                )
    return out


def _is_older(path: Path) -> bool:
    """Whether a performance comes from an earlier version of the measurement."""
    try:
        return open_folder(path, "performance").manifest.settings.get("measurement", 1) < MEASUREMENT
    except BadArtifact:
        return False


def _driver(performance: Performance, others: str) -> Performance:
    return performance if others == "drive" else perform.without_others(performance)


def _tables(settings: Any) -> dict[str, Any]:
    """An engine's settings as the manifest stores them: one entry a table."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _on(avatar: Avatar, device: str) -> Avatar:
    return replace(avatar, generator=avatar.generator.to(choose(device)))
