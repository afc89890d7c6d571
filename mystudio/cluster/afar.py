"""A job that runs on another machine, as the worker sees it: it has what a child process of this machine has.

Nothing of the job is only here: the queue holds its state, and the journal that comes back lies beside its result. A
worker that is killed therefore loses nothing, and the next one goes on, on any runner.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from mystudio import __version__
from mystudio.cluster.parcel import PARTIAL, Files, packed, why
from mystudio.errors import ArtifactBusy, BadArtifact, OutputFailed, StudioError
from mystudio.jobs.types import Job
from mystudio.storage.content import Content
from mystudio.storage.journal import KEY, journal, journal_of
from mystudio.storage.locks import lock
from mystudio.storage.manifest import beside, digest
from mystudio.storage.workspace import recover, sync_tree

TICK = 0.2  # s between two looks at the unit
#: kind of a job -> passes that units of their own run, in order: the names of their checkpoints
PASSES: Mapping[str, tuple[str, ...]] = {
    "reenact": ("track", "measure", "patches", "persons.faces", "window"),
    "render": ("segment",),
}
WHOLE = ("track",)  # passes of which one unit does all: each frame is followed from the one before
PATIENCE = 20.0  # s that a unit has to stop before it is ended


class Lost(Exception):
    """The node, or the process of the unit, is gone; the message says what is known."""


class Handle(Protocol):
    """A unit somewhere (``unit.Unit``)."""

    def poll(self) -> tuple[str, bytes] | None:
        """News of the unit; None = it has not answered yet. Raises Lost."""
        ...

    def stop(self) -> None:
        """Ask it to stop."""
        ...

    def kill(self) -> None:
        """End it."""
        ...


#: starts a unit of a kind of job, somewhere: (kind, request) -> its handle
Places = Callable[[str, str], Handle]


class Afar:
    """One run of a job elsewhere. It starts here; a thread follows it, and brings its journal and result back.

    A long job may be divided: each pass of ``PASSES`` runs as several shares at once, whose checkpoints come back
    beside the result. The last unit is the whole job, which finds them and joins them.

    Args: places: where it may run. content: the store that all machines share. store: its name for the nodes.
        shares: number of parts of a pass; 1 = the job is not divided.
    """

    def __init__(self, job: Job, places: Places, content: Content, store: str, shares: int = 1):
        self.job = job
        self.facts: Mapping[str, Any] | None = None
        self.spent: dict[str, tuple[int, float]] = {}
        self._places, self._content, self._store, self._shares = places, content, store, shares
        self._lock, self._stopping, self._killed = threading.Lock(), threading.Event(), threading.Event()
        self._picture, self._outcome = b"", None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def read(self) -> None:
        """Take the reports that have come: the thread has done it."""

    def taken(self) -> None:
        """Forget the reports that were stored."""
        with self._lock:
            self.facts, self.spent = None, {}

    def stop(self) -> None:
        """Ask the job to stop; after ``PATIENCE`` it is ended."""
        self._stopping.set()

    def kill(self) -> None:
        """End the job."""
        self._killed.set()

    def outcome(self) -> tuple[str, str] | None:
        """How the run ended, and its error; None = it has not ended."""
        return self._outcome

    def preview(self) -> bytes | None:
        """Return the newest picture that the stage has shown; None = none since the last call."""
        with self._lock:
            picture, self._picture = self._picture, b""
        return picture or None

    def _follow(self) -> None:
        try:
            with lock(Path(self.job.out)):
                self._outcome = self._run()
        except ArtifactBusy as error:
            self._outcome = "busy", str(error)
        except Lost as error:
            self._outcome = "crashed", str(error)
        except (StudioError, OSError) as error:
            self._outcome = "failed", why(error)
        except Exception as error:
            self._outcome = "crashed", f"{type(error).__name__}: {error}"

    def _run(self) -> tuple[str, str]:
        passes = PASSES.get(self.job.work.kind, ()) if self._shares > 1 and not Path(self.job.out).exists() else ()
        for name in passes:
            count = 1 if name in WHOLE else self._shares
            shares = [{"name": name, "part": part, "of": count} for part in range(count)]
            how, error = self._together([self._request(share) for share in shares])
            if how not in ("done", "same"):
                return how, error
        return self._together([self._request(None)])

    def _request(self, share: Mapping[str, Any] | None) -> str:
        work = self.job.work
        request = {
            "version": __version__,
            "store": self._store,
            "files": packed(work, self._content),
            "kind": work.kind,
            "inputs": {name: str(path) for name, path in work.inputs.items()},
            "out": str(work.out),
            "options": dict(work.options),
            "try": self.job.tries,
        }
        return json.dumps(request | ({"share": share} if share else {}))

    def _together(self, requests: Sequence[str]) -> tuple[str, str]:
        """Run units at once until all have ended, or one has not done its part; returns how they ended."""
        handles: list[Handle] = []
        try:
            for request in requests:
                handles.append(self._places(self.job.work.kind, request))
            return self._until_end(handles)
        finally:
            for handle in handles:
                handle.kill()

    def _until_end(self, handles: Sequence[Handle]) -> tuple[str, str]:
        asked, ends = 0.0, dict[int, tuple[str, str]]()
        while len(ends) < len(handles):
            time.sleep(TICK)
            if self._killed.is_set() or asked and time.monotonic() > asked + PATIENCE:
                return "stopped", ""
            if self._stopping.is_set() and not asked:
                asked = time.monotonic()
                for handle in handles:
                    handle.stop()
            for number, handle in enumerate(handles):
                answer = None if number in ends else handle.poll()
                if answer is not None and (end := self._take(json.loads(answer[0]), answer[1])):
                    ends[number] = end
            if bad := next((end for end in ends.values() if end[0] not in ("done", "same", "stopped")), None):
                return bad
        return next((end for end in ends.values() if end[0] == "stopped"), ends[0])

    def _take(self, news: Mapping[str, Any], picture: bytes) -> tuple[str, str] | None:
        """Take a unit's news; returns how it ended, None = it has not."""
        with self._lock:
            self.facts = news.get("facts") or self.facts
            for part, (units, seconds) in news["spent"].items():
                before, so_far = self.spent.get(part, (0, 0.0))
                self.spent[part] = (max(units, before), so_far + seconds)
            self._picture = picture or self._picture
        if news["log"]:
            self.job.log.parent.mkdir(parents=True, exist_ok=True)
            with open(self.job.log, "a") as log:
                log.write(news["log"])
        self._keep(news["journal"])
        if "end" not in news:
            return None
        how, error = news["end"]
        if how == "done":
            self._land(news["made"])
        return str(how), str(error)

    def _keep(self, files: Files) -> None:
        """Put checkpoints beside the result, where a later run of any runner finds them."""
        folders: dict[Path, list[str]] = {}
        for name in files:
            folders.setdefault(Path("/", name).parent, []).append(name)
        for folder, names in folders.items():
            self._refuse_elsewhere(folder)
            if key := next((name for name in names if Path(name).name == KEY), None):
                self._content.get(*files[key], new := beside(folder, "key"))
                journal(folder.with_name(folder.name.removesuffix(PARTIAL)), new.read_text())
                new.unlink()
            for name in names:
                if Path(name).name != KEY and (folder / KEY).is_file():
                    self._content.get(*files[name], new := beside(Path("/", name), "new"))
                    os.replace(new, Path("/", name))

    def _refuse_elsewhere(self, path: Path) -> None:
        """A node writes beside the result, and nowhere else. Raises BadArtifact."""
        if not Path(os.path.normpath(path)).is_relative_to(Path(self.job.out).parent):
            raise BadArtifact(f"expected results beside {self.job.out}, got {path}; nothing was written there")

    def _land(self, files: Files) -> None:
        """Put the files that a stage made in their places: each folder at once, the result last.

        Raises: OutputFailed: disk full, no permission; what was there is unchanged.
        """
        home, out = Path(self.job.out).parent, Path(self.job.out)
        groups: dict[Path, Files] = {}
        for name, entry in files.items():
            path = Path("/", name)
            self._refuse_elsewhere(path)
            groups.setdefault(home / path.relative_to(home).parts[0], {})[name] = entry
        try:
            for top in sorted(groups, key=lambda path: (path == out, path.name.startswith("."))):
                with nullcontext() if top == out or top.name.startswith(".") else lock(top):
                    self._replace(top, groups[top])
        except OSError as error:
            raise OutputFailed(
                f"{out} could not be written ({error.strerror or error}); free space, and retry the job"
            ) from error
        for top in groups:
            shutil.rmtree(journal_of(top), ignore_errors=True)

    def _replace(self, top: Path, files: Files) -> None:
        new, old = beside(top, "new"), beside(top, "old")
        shutil.rmtree(new, ignore_errors=True)
        for name, entry in files.items():
            self._content.get(*entry, new / Path("/", name).relative_to(top))
        if new.is_file():
            os.replace(new, top)
            return
        sync_tree(new)
        recover(top)
        if top != Path(self.job.out) and top.exists():
            if digest(top) != digest(new):
                shutil.rmtree(new)
                raise ArtifactBusy(f"{top} was written meanwhile by another job; this one goes on with it")
            shutil.rmtree(new)
            return
        if top.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(top, old)
        os.rename(new, top)
        with suppress(OSError):
            shutil.rmtree(old)
