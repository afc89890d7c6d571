"""A batch: avatars x clips x edits x renders, written as one TOML file, as jobs of the queue with predictable results.

The avatar ``ada``, the clip ``hello``, the edit ``smile`` and the render ``side`` make ``ada.scan``, ``ada.avatar``,
``ada.hello.take``, ``ada.hello.smile.take`` and ``ada.hello.smile.side.mp4`` in the folder ``out``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from mystudio.errors import BadJob, StudioError
from mystudio.jobs.batch_file import Table, tables_of
from mystudio.jobs.kinds import check
from mystudio.jobs.place import stored
from mystudio.jobs.queue import Queue
from mystudio.jobs.types import Job, State, Work
from mystudio.storage.manifest import MANIFEST
from mystudio.storage.products import sidecar_of
from mystudio.storage.scan_inputs import CLIPS
from selfscan.errors import SelfscanError

OPEN = (State.WAITING, State.RUNNING, State.PAUSED)


@dataclass
class Batch:
    """What a file asks for."""

    file: Path
    works: list[Work] = field(default_factory=list[Work])  # in an order in which every input is made before
    lines: list[int] = field(default_factory=list[int])  # of the table that asks for each


def read(file: Path) -> Batch:
    """Read a batch's file and expand it; relative paths start at its folder, and nothing is written.

    Raises: BadJob: one sentence with the line: what was expected, what came, what to do.
    """
    out, tables = tables_of(file)
    batch = Batch(file)
    for table, work in _expanded(file.parent, Path(_path(file.parent, out)), tables):
        try:
            _check(check(work).options, work)
        except (StudioError, SelfscanError, ValueError) as error:
            raise BadJob(f"{file}, line {table.line}, [[{table.kind}]] {table.name}: {error}") from None
        batch.works.append(work)
        batch.lines.append(table.line)
    return batch


def _check(known: Mapping[str, Any], work: Work) -> None:
    """Check values that only the stage itself would refuse, after hours in the queue. Raises StudioError, ..."""
    from mystudio.recipe import resolve
    from selfscan.face.choose import check_wanted
    from selfscan.io.containers import container_of

    options = work.options
    if "recipe" in known:
        view = [f'render.view="{options["view"]}"'] if "view" in options else []
        resolve(options.get("recipe", "default"), [*options.get("options", ()), *view])
    check_wanted(options.get("face", "largest"))
    if options.get("others", "drive") not in ("drive", "leave-out"):
        raise BadJob(f"expected others as drive or leave-out, got {options['others']!r:.60}; correct it")
    if work.kind == "render":
        container_of(work.out)


def _expanded(here: Path, out: Path, tables: Mapping[str, Sequence[Table]]) -> Iterator[tuple[Table, Work]]:
    for person in tables["avatar"]:
        steps = list(_person(here, out, person))
        yield from steps
        avatar = steps[-1][1].out if steps else _path(here, person.values["avatar"])
        for clip in tables["clip"]:
            name = f"{person.name}.{clip.name}"
            inputs = {"avatar": avatar, "video": _path(here, clip.values["video"])}
            options = clip.some("face", "others", "start", "end") | _settings(here, clip)
            yield clip, Work("reenact", inputs, take := str(out / f"{name}.take"), options)
            yield from _shown(here, out, name, take, tables["edit"], tables["render"])


def _person(here: Path, out: Path, person: Table) -> Iterator[tuple[Table, Work]]:
    """The jobs that make an avatar; none if it is there."""
    values, scan = person.values, str(out / f"{person.name}.scan")
    if "avatar" in values:
        return
    if "video" in values:
        videos = [values["video"]] if isinstance(values["video"], str) else values["video"]
        inputs = dict(zip(CLIPS, (_path(here, video) for video in videos)))
        settings = {key: value for key, value in _settings(here, person).items() if key != "device"}
        yield person, Work("scan", inputs, scan, person.some("consent", "fictional") | settings)
    else:
        scan = _path(here, values["scan"])
    options = person.some("engine") | _settings(here, person)
    if "base" in values:
        options["base"] = _file_or_name(here, values["base"])
    yield person, Work("personalize", {"scan": scan}, str(out / f"{person.name}.avatar"), options)


def _shown(
    here: Path, out: Path, name: str, take: str, edits: Sequence[Table], renders: Sequence[Table]
) -> Iterator[tuple[Table, Work]]:
    """Edited takes of a take, and the clips of each; without [[edit]] the take itself is rendered."""
    variants = [(name, take)] if not edits else []
    for edit in edits:
        changes = edit.values.get("set", {})
        if changes:
            edge = edit.some("edge")
            each = [{"name": what, "strength": strength} | edge for what, strength in changes.items()]
            yield edit, Work("edit", {"take": take}, made := str(out / f"{name}.{edit.name}.take"), {"edits": each})
            variants.append((f"{name}.{edit.name}", made))
        else:
            variants.append((f"{name}.{edit.name}", take))
    for (named, source), render in product(variants, renders):
        ending = render.values.get("ending", ".mp4")
        options = render.some("view", "audio_track") | _settings(here, render)
        yield render, Work("render", {"take": source}, str(out / f"{named}.{render.name}{ending}"), options)


def _settings(here: Path, table: Table) -> dict[str, Any]:
    found = table.some("options", "device")
    recipe = table.values.get("recipe")
    return found | ({"recipe": _file_or_name(here, recipe)} if recipe else {})


def _file_or_name(here: Path, text: str) -> str:
    return _path(here, text) if (here / text).is_file() else text


def _path(here: Path, text: str) -> str:
    return os.path.abspath(here / Path(text).expanduser())


def to_add(queue: Queue, batch: Batch) -> list[tuple[Work, int]]:
    """Return the jobs of a batch, with their lines, that the queue does not hold yet.

    A job counts as held if it has equal work and is not done, or its result is there. A job behind one that is added
    is added as well.

    Raises: BadJob: a result would collide with another job's, or with a file that mystudio did not make; or an input
        is missing.
    """
    last: dict[str, Job] = {job.work.out if isinstance(job.work.out, str) else str(job.work.out): job
                            for job in sorted(queue.jobs(), key=lambda job: job.id)}  # fmt: skip
    new: list[tuple[Work, int]] = []
    made: set[str] = set()
    for work, line in zip(batch.works, batch.lines):
        held = last.get(out := str(work.out))
        same = held is not None and _key(queue.studio, held.work) == _key(queue.studio, work)
        if held is not None and not same and held.state in OPEN:
            raise BadJob(
                f"{batch.file}, line {line}: job {held.id} makes {out} with other settings; cancel that job, or "
                "choose another out"
            )
        if held is None:
            _refuse_foreign(batch.file, line, Path(out))
        behind = any(str(path) in made for path in work.inputs.values())
        if same and held is not None and not (behind and held.state == State.DONE) and _counts(held):
            continue
        _check_inputs(batch, line, work, made, last)
        new.append((work, line))
        made.add(out)
    return new


def _counts(held: Job) -> bool:
    return held.state != State.DONE or held.out.exists()


def _key(studio: Path, work: Work) -> tuple[Any, ...]:
    return (
        work.kind,
        sorted((name, stored(studio, path)) for name, path in work.inputs.items()),
        stored(studio, work.out),
        {**work.options},
    )


def _refuse_foreign(file: Path, line: int, out: Path) -> None:
    """Raise BadJob if a result's place holds something that mystudio did not make."""
    if out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir())):
        return
    if out.exists() and not sidecar_of(out).exists():
        raise BadJob(f"{file}, line {line}: {out} is there, and mystudio did not make it; choose another out or name")


def _check_inputs(batch: Batch, line: int, work: Work, made: set[str], last: Mapping[str, Job]) -> None:
    for role, path in work.inputs.items():
        maker = last.get(str(path))
        if str(path) not in made and not Path(path).exists() and not (maker and maker.state in OPEN):
            if maker is not None and maker.state != State.DONE:
                raise BadJob(
                    f"{batch.file}, line {line}: the {role} {path} is missing, since job {maker.id} is {maker.state}; "
                    f"`mystudio jobs retry {maker.id}` first"
                )
            raise BadJob(f"{batch.file}, line {line}: expected the {role} {path}, found nothing; correct the path")


def add(queue: Queue, batch: Batch) -> list[Job]:
    """Add the jobs of a batch that the queue does not hold yet; returns them.

    Raises: BadJob: as ``to_add``; nothing was added.
    """
    jobs: list[Job] = []
    for work, line in to_add(queue, batch):
        try:
            jobs.append(queue.add(work, title=batch.file.stem))
        except StudioError as error:
            raise BadJob(f"{batch.file}, line {line}: {error}; {len(jobs)} jobs before it were added") from None
    return jobs
