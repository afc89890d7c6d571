"""The kinds of jobs: what each needs, may have and accepts. They are the verbs of the commands, with their options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mystudio.errors import BadJob
from mystudio.jobs.types import Work
from mystudio.storage.scan_inputs import CLIPS

Types = Mapping[str, tuple[type, ...]]
SETTINGS: Types = {"recipe": (str,), "options": (list,), "force": (bool,)}  # options: ["scan.frames=60", ...]
DEVICE: Types = {"device": (str,)}
PART: Types = {"face": (str,), "start": (int, float), "end": (int, float)}  # s of the clip
EDIT = ("name", "strength", "keys", "edge")  # fields of ``mystudio.types.Edit``
#: options that change how long a job takes: time is estimated from past jobs with equal ones
PACE = ("recipe", "options", "device", "base", "engine", "minutes", "until_good", "view")


@dataclass(frozen=True)
class Kind:
    """One kind of job."""

    needs: tuple[str, ...]  # inputs
    may_have: tuple[str, ...]  # further inputs
    options: Types  # name -> JSON types
    must: tuple[str, ...] = ()  # options without a default
    light: bool = False  # takes seconds: may run beside a heavy job


KINDS: Mapping[str, Kind] = {
    "scan": Kind(
        ("video",),
        ("consent_clip", *CLIPS[1:]),
        {"consent": (str,), "fictional": (bool,), **PART, **SETTINGS},
        must=("consent",),
    ),
    "personalize": Kind(
        ("scan",),
        (),
        {
            "base": (str,),  # name, or path of a file
            "engine": (str,),
            "minutes": (int, float),
            "until_good": (bool,),
            "without": (list,),  # numbers of images of the scan
            **DEVICE,
            **SETTINGS,
        },
    ),
    "reenact": Kind(("avatar", "video"), (), {"others": (str,), **PART, **DEVICE, **SETTINGS}),
    "edit": Kind(
        ("take",),
        ("directions",),
        {"edits": (list,), "force": (bool,)},  # edits: [{"name", "strength" or "keys": [[s, strength]], "edge"}, ...]
        must=("edits",),
        light=True,
    ),
    "render": Kind(("take",), (), {"view": (str,), "audio_track": (int,), **DEVICE, **SETTINGS}),
    "evaluate": Kind(
        ("take",),
        ("truth", "identity_net", "blendshapes"),
        {"same_person": (bool,), "force": (bool,), **DEVICE},  # same_person: the driver is the avatar's own person
    ),
}


def check(work: Work) -> Kind:
    """Return the kind of a job, after checking the names of its inputs and the names and types of its options.

    Raises: BadJob: a name is unknown or missing, or a value has a wrong type.
    """
    kind = KINDS.get(work.kind)
    if kind is None:
        raise BadJob(f"kind of a job: expected one of {', '.join(KINDS)}, got {work.kind!r:.80}")
    _names(work.kind, "input", work.inputs, (*kind.needs, *kind.may_have), kind.needs)
    _names(work.kind, "option", work.options, tuple(kind.options), kind.must)
    for name, value in work.options.items():
        types = kind.options[name]
        if not isinstance(value, types) or isinstance(value, bool) and bool not in types:
            raise BadJob(
                f"option {name} of {work.kind}: expected {' or '.join(t.__name__ for t in types)}, got {value!r:.80}"
            )
    _edits(work.options.get("edits", ()))
    if odd := [number for number in work.options.get("without", ()) if type(number) is not int]:
        raise BadJob(f"option without: expected numbers of images, got {odd[0]!r:.80}")
    start, end = work.options.get("start", 0.0), work.options.get("end")
    if start < 0 or end is not None and end <= start:
        raise BadJob(
            f"options start and end of {work.kind}: expected 0 or more and an end after it, got {start}, {end}"
        )
    try:
        json.dumps(dict(work.options), allow_nan=False)
    except (TypeError, ValueError):
        raise BadJob(f"options of {work.kind}: expected JSON values, got {work.options!r:.200}") from None
    return kind


def _edits(edits: Sequence[Any]) -> None:
    for edit in edits:
        if not isinstance(edit, Mapping) or not {"name"} <= set(edit) <= set(EDIT):  # pyright: ignore[reportUnknownArgumentType]
            raise BadJob(f"option edits: expected a list of objects with {', '.join(EDIT)}, got {edit!r:.80}")


def _names(kind: str, what: str, given: Mapping[str, Any], known: tuple[str, ...], must: tuple[str, ...]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise BadJob(f"{what} of {kind}: expected {', '.join(known) or 'none'}, got {unknown[0]!r:.80}")
    if missing := [name for name in must if name not in given]:
        raise BadJob(f"{what} of {kind}: expected {missing[0]}, got none; name it")


def variant(work: Work) -> str:
    """Return what changes how long a job takes, as one text: equal for jobs that can be compared."""
    alike = {name: work.options[name] for name in PACE if name in work.options}
    clips = sum(name in CLIPS for name in work.inputs)
    return json.dumps(alike | ({"clips": clips} if clips > 1 else {}), sort_keys=True)
