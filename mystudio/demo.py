"""The demo: runs all stages once on the packaged scan and driving clips of synthetic people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mystudio import engines, pipeline
from mystudio.recipe import Recipe
from mystudio.storage.artifacts import load
from mystudio.types import Avatar, Edit, Progress, silent

FOLDER = Path(__file__).parent / "data" / "demo"
PERSON = "Demo Actor (synthetic)"
BASE = "people128"
EDIT = Edit("smile", 1.5)


def run_demo(out: Path, recipe: Recipe, progress: Progress = silent, device: str = "auto") -> dict[Path, str]:
    """Run scan, personalize, reenact, edit, render and evaluate.

    Args:
        out: folder for all results; results that are up to date are kept.
        recipe: resolved settings. progress: called with (stage, done, total). device: "auto", "cpu" or "cuda".
    Returns: path -> its description, in the order of making.
    """
    out.mkdir(parents=True, exist_ok=True)
    scan, avatar, take, smiling = (out / name for name in ("me.scan", "me.avatar", "hello.take", "smiling.take"))
    driver, report = FOLDER / "driver.mp4", out / "report"
    pipeline.run_scan(FOLDER / "scan.mp4", scan, PERSON, recipe, _of("scan", progress), fictional=True)
    pipeline.run_personalize(scan, avatar, BASE, recipe, _of("personalize", progress), device=device)
    pipeline.run_reenact(avatar, driver, take, recipe, _of("reenact", progress), device=device)
    person = load(avatar, Avatar)
    pipeline.run_sheet(avatar, out / "edits.png", recipe, take)
    made = {
        scan: "the scan; coverage.png in it shows its poses and expressions",
        avatar: "the avatar: a generator that is this person",
        take: "the driver's performance, as codes of the avatar",
        out / "edits.png": "every edit that the avatar offers",
    }
    if EDIT.name in engines.directions(person):
        pipeline.run_edit(take, smiling, [EDIT])
        made[smiling] = f"the same with {EDIT.name} {EDIT.strength:+g}"
    beside = replace(recipe, render=replace(recipe.render, view="side-by-side"))
    for source in (take, smiling):
        if source in made:
            clip = out / f"{source.stem}.mp4"
            pipeline.run_render(source, clip, beside, _of(clip.name, progress), device=device)
            made[clip] = "driver and avatar side by side"
    pipeline.run_evaluate(take, report, _of("report", progress), truth=FOLDER / "true_cross.mp4", device=device)
    made[report / "report.html"] = "how good it is: open it in a browser"
    return made


def _of(verb: str, progress: Progress) -> Progress:
    """Progress whose stages are named after the verb that they belong to: "scan: track"."""
    return lambda stage, done, total: progress(f"{verb}: {stage}", done, total)
