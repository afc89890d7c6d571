"""A job from the words of a command: `jobs add STAGE WORDS` takes what `mystudio STAGE WORDS` takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mystudio.commands import edit, reenact, render, stages
from mystudio.commands.options import span_of
from mystudio.errors import BadJob
from mystudio.storage.scan_inputs import scan_inputs

if TYPE_CHECKING:
    from mystudio.jobs import Work

COMMANDS: Mapping[str, click.Command] = {
    "scan": stages.scan,
    "personalize": stages.personalize,
    "reenact": reenact.reenact,
    "edit": edit.apply,
    "render": render.render,
    "evaluate": stages.evaluate,
}
KINDS = tuple(COMMANDS)


def work_of(kind: str, words: Sequence[str]) -> Work:
    """Return the job that a command's words describe, with absolute paths.

    Raises: click.UsageError: as the command does. BadJob: the queue does not take an option of it. BadClips: too many.
    """
    from mystudio.jobs import KINDS, Work

    known = KINDS[kind]
    root = click.get_current_context().find_root()
    context = COMMANDS[kind].make_context(f"jobs add {kind}", list(words), parent=root)
    given = {name: value for name, value in context.params.items() if _is_given(context, name)}
    given = _translated(kind, given)
    out = given.pop("out")
    inputs = {name: _absolute(given.pop(name)) for name in (*known.needs, *known.may_have) if name in given}
    for name in ("base", "recipe"):
        if name in given and Path(given[name]).is_file():
            given[name] = _absolute(given[name])
    slash = os.sep if str(out).endswith(os.sep) else ""
    return Work(kind, inputs, f"{_absolute(out)}{slash}", given)


def _is_given(context: click.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _translated(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return a command's parameters under the names of the queue."""
    if "start" in given or "end" in given:
        span_of(given.get("start"), given.get("end"))
    options = [*given.pop("options", ())]
    options += [f"scan.{name}={given.pop(name)}" for name in ("frames", "size") if kind == "scan" and name in given]
    options += [
        f'provenance.{name}="{_absolute(given.pop(name))}"' for name in ("sign_key", "sign_cert") if name in given
    ]
    options += ["provenance.mark=false"] if given.pop("no_provenance", False) else []
    given |= {"options": options} if options else {}
    if "without" in given:
        given["without"] = [*given["without"]]
    if kind == "edit":
        given["edits"] = _edits(given)
    if given.get("truth") == "same":
        given |= {"same_person": True}
        del given["truth"]
    if "videos" in given and kind == "scan":
        videos = given.pop("videos")
        given |= dict(zip(scan_inputs(len(videos)), videos))
    if "videos" in given:
        if len(given["videos"]) != 1:
            raise BadJob("videos of reenact: expected one for a job, got several; add a job for each")
        (given["video"],) = given.pop("videos")
    return given


def _edits(given: dict[str, Any]) -> list[dict[str, Any]]:
    edge = {"edge": given.pop("edge")} if "edge" in given else {}
    edits = [{"name": name, "strength": strength} | edge for name, strength in map(edit.split, given.pop("sets", ()))]
    keys = edit.read_keys(given.pop("keys")) if "keys" in given else {}
    edits += [{"name": name, "keys": [list(pair) for pair in pairs]} | edge for name, pairs in keys.items()]
    if not edits:
        raise click.UsageError("expected at least one --set NAME=STRENGTH or --keys FILE")
    return edits


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)
