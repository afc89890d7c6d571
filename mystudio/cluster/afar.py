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
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from mystudio import __version__
from mystudio.cluster.parcel import PARTIAL, Files, packed, why
from mystudio.errors import ArtifactBusy, BadArtifact, OutputFailed, StudioError
from mystudio.jobs.types import Job
from mystudio.storage.content import Content
from mystudio.storage.journal import KEY, journal
from mystudio.storage.locks import lock
from mystudio.storage.manifest import beside, digest
from mystudio.storage.workspace import recover, sync_tree

TICK = 0.2  # s between two looks at the unit
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

    Args: places: where it may run. content: the store that all machines share. store: its name for the nodes.
    """

    def __init__(self, job: Job, places: Places, content: Content, store: str):
        self.job = job
        self.facts: Mapping[str, Any] | None = None
        self.spent: dict[str, tuple[int, float]] = {}
        self._places, self._content, self._store = places, content, store
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
        handle = self._places(work.kind, json.dumps(request))
        try:
            return self._until_end(handle)
        finally:
            handle.kill()

    def _until_end(self, handle: Handle) -> tuple[str, str]:
        asked = 0.0
        while True:
            time.sleep(TICK)
            if self._killed.is_set() or asked and time.monotonic() > asked + PATIENCE:
                return "stopped", ""
            if self._stopping.is_set() and not asked:
                asked = time.monotonic()
                handle.stop()
            answer = handle.poll()
            if answer is None:
                continue
            news = json.loads(answer[0])
            self._take(news, answer[1])
            if "end" in news:
                how, error = news["end"]
                if how == "done":
                    self._land(news["made"])
                return str(how), str(error)

    def _take(self, news: Mapping[str, Any], picture: bytes) -> None:
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
        shutil.rmtree(f"{out}{PARTIAL}", ignore_errors=True)

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
