"""The process of one job: it runs a stage through ``mystudio.api`` and reports to its worker.

The request is one line of JSON on stdin. Reports are lines of JSON on stdout. What libraries print goes to stderr,
which is the job's log. The end of stdin means that the worker is gone: the stage is stopped, and its checkpoints stay.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mystudio.errors import ArtifactBusy, sentence
from mystudio.jobs.estimate import Speed
from mystudio.storage.scan_inputs import CLIPS

if TYPE_CHECKING:
    from mystudio.types import Edit

OFTEN = 0.5  # s between two reports
YIELDING = 10  # niceness: a page that records and a live avatar go first; on a free machine it costs nothing
GRACE = 5.0  # s that a stage has to stop before its process is ended


class Reports:
    """Writes reports for the worker, and measures what the parts of the stage take."""

    def __init__(self, handle: int):
        self._handle, self._sent, self._last = handle, 0.0, time.monotonic()
        self._stage, self._speed = "", Speed(self._last)
        self._spent: dict[str, tuple[int, float]] = {}

    def progress(self, stage: str, done: int, total: int) -> None:
        """Called by the stage."""
        now = time.monotonic()
        begins = stage != self._stage
        if begins:
            self._stage, self._speed = stage, Speed(now)
            note(f"{stage} {done}/{total}")
        self._count(stage, total, now)
        left = self._speed.left(now, done, total)
        if begins or now - self._sent >= OFTEN or done >= total:
            self._sent = now
            self._send(stage=stage, done=done, total=total, left=left, spent=self._taken())

    def end(self, how: str, error: str = "", same: bool = False) -> None:
        """Report the end: "done", "failed", "busy" or "stopped"; ``same``: the result was up to date."""
        self._count(self._stage, 0, time.monotonic())
        with suppress(KeyboardInterrupt):  # the worker is gone: the next one finds out
            self._send(end=how, error=error, same=same, spent=self._taken())

    def _count(self, stage: str, total: int, now: float) -> None:
        units, seconds = self._spent.get(stage, (0, 0.0))
        self._spent[stage] = max(units, total), seconds + now - self._last
        self._last = now

    def _taken(self) -> dict[str, tuple[int, float]]:
        spent, self._spent = self._spent, {}
        return spent

    def _send(self, **facts: Any) -> None:
        line = json.dumps(facts).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._handle, line) :]
        except BrokenPipeError:
            raise KeyboardInterrupt from None  # the worker is gone


def yielding() -> None:
    """Let other programs go first."""
    if hasattr(os, "nice"):
        os.nice(YIELDING)


def note(text: str) -> None:
    """Write a line with the time into the log."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> None:
    """Run the job that stdin describes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker without a terminal may have ignored it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    yielding()
    reports = Reports(os.dup(1))
    os.dup2(2, 1)  # what a library prints must not look like a report
    request = json.loads(_line(0))
    threading.Thread(target=_stop_with_worker, daemon=True).start()
    try:
        out = Path(request["out"])
        note(f"try {request['try']}: {request['kind']} -> {out}")
        before = _written(out)
        _run_share(request, reports)
        reports.end("done", same=before is not None and _written(out) == before)
    except KeyboardInterrupt:
        note("stopped")
        reports.end("stopped")
    except ArtifactBusy as error:
        note(str(error))
        reports.end("busy", str(error))
    except Exception as error:
        traceback.print_exc()
        told = sentence(error, "its log says more: report it")
        note(told)
        reports.end("failed", told)


def edit_of(values: Mapping[str, Any]) -> Edit:
    """Make an edit of the values that a job holds: "name", and "strength" or "keys", and "edge"."""
    from mystudio.types import Edit

    plain: dict[str, Any] = {**values, "keys": tuple((float(s), float(v)) for s, v in values.get("keys", ()))}
    return Edit(**plain)


def _run_share(request: Mapping[str, Any], reports: Reports) -> None:
    if "share" not in request:
        _run(request, reports)
        return
    from selfscan.checkpoints import Share, ShareDone, only

    share = Share(**request["share"])
    note(f"share {share.part + 1} of {share.of}: {share.name}")
    with only(share), suppress(ShareDone):
        _run(request, reports)


def _run(request: Mapping[str, Any], reports: Reports) -> None:
    from mystudio import api
    from mystudio.recipe import resolve
    from selfscan.types import Span

    kind, options = request["kind"], dict(request["options"])
    arguments: dict[str, Any] = dict(request["inputs"])
    if kind == "scan":
        arguments["video"] = [arguments.pop(name) for name in CLIPS if name in arguments]
    view = [f"render.view={json.dumps(options.pop('view'))}"] if "view" in options else []
    if "start" in options or "end" in options:
        arguments["span"] = Span(options.pop("start", 0.0), options.pop("end", None))
    if kind not in ("edit", "evaluate"):
        arguments["recipe"] = resolve(options.pop("recipe", "default"), [*options.pop("options", ()), *view])
    if options.pop("same_person", False):
        arguments["truth"] = "same"
    if kind in ("personalize", "reenact"):
        arguments["tell"] = note
    if kind == "edit":
        arguments["edits"] = [edit_of(edit) for edit in options.pop("edits")]
    else:
        arguments["progress"] = reports.progress
    getattr(api, kind)(out=request["out"], **arguments, **options)


def _written(out: Path) -> tuple[int, int] | None:
    """What tells one writing of a result from another; None = there is none."""
    from mystudio.storage.manifest import written

    if found := written(out):
        return found
    try:
        status = out.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _line(handle: int) -> bytes:
    """Read one line without a buffer, which a thread would hold when the process ends."""
    data = b""
    while not data.endswith(b"\n"):
        if not (more := os.read(handle, 1 << 16)):
            os._exit(1)  # the worker was killed while it wrote
        data += more
    return data


def _stop_with_worker() -> None:
    while os.read(0, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE)
    os._exit(1)
