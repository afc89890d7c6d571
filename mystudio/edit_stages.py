"""The stages of edits: a take and edits -> a take, an avatar -> its edits, and the sheet of all edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mystudio import editing, engines
from mystudio.compute import blas
from mystudio.compute.device import choose
from mystudio.engines.protocol import Learns
from mystudio.errors import NotOffered
from mystudio.provenance import claim as provenance
from mystudio.recipe import Recipe
from mystudio.storage.artifacts import load, save
from mystudio.storage.directions import load_directions
from mystudio.storage.journal import write_bytes
from mystudio.storage.manifest import digest, open_folder
from mystudio.storage.workspace import DRAFT, stage
from mystudio.types import Avatar, Edit, Progress, Take, silent


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


def run_learn(
    avatar_path: Path, out: Path, progress: Progress = silent, *, device: str = "auto", force: bool = False
) -> Path:
    """An avatar -> the same avatar with edits that were measured on its pictures."""
    folder = open_folder(avatar_path, "avatar")
    scan = folder.source_if_there("scan")
    inputs = {"avatar": avatar_path} | ({"scan": scan} if scan else {})
    settings = {name: value for name, value in folder.manifest.settings.items() if name != DRAFT}
    with stage(out, "avatar", inputs, settings, force=force) as run:
        if not run.done:
            blas.reserve()
            avatar = load(avatar_path, Avatar)
            engine = engines.of(avatar)
            if not isinstance(engine, Learns):
                raise NotOffered(f"the engine {avatar.engine!r} measures no edits; use an avatar of another engine")
            save(engine.with_steps(replace(avatar, generator=avatar.generator.to(choose(device))), progress), run)
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
