"""One job on one node: its files are fetched, its child runs, and its journal and result go into the store."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mystudio import __version__
from mystudio.cluster.parcel import Files, made_in, moved, unpacked, why
from mystudio.errors import OutputFailed, StudioError
from mystudio.jobs.running import Running
from mystudio.jobs.types import Job, State, Work
from mystudio.storage.content import Content

TICK = 0.1  # s between two looks at the child
SYNC = 2.0  # s between two looks at its journal
CACHE = "MYSTUDIO_NODE"  # environment variable: this node's folder for files that were fetched


def node_folder() -> Path:
    """Return this node's own folder: ``$MYSTUDIO_NODE``, or one in the temporary folder."""
    return Path(os.environ.get(CACHE) or Path(tempfile.gettempdir()) / f"mystudio-node-{os.getuid()}")


class Unit:
    """Runs a job in a mirror of the sender's folders. It holds JSON and bytes alone: nothing is unpickled.

    Args: request: JSON: "version", "store", "files" (``parcel.Files``), "kind", "inputs", "out", "options", "try", and
        "share" for a share of a pass (``selfscan.checkpoints.Share``).
    """

    def __init__(self, request: str):
        self._request: Mapping[str, Any] = json.loads(request)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._news: dict[str, Any] = {"spent": {}, "journal": {}, "log": ""}
        self._picture: bytes = b""
        self._running: Running | None = None
        self._read = 0  # bytes of the log
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def poll(self) -> tuple[str, bytes]:
        """Return the news since the last call as JSON, and the newest picture or b"".

        "facts", "spent" and "log" as ``Running`` has them; "journal": checkpoints that are in the store; at the end
        "end": (how, error), and "made": the result's files.
        """
        with self._lock:
            news, picture = json.dumps(self._news), self._picture
            self._news = {name: self._news[name] for name in ("end", "made") if name in self._news}
            self._news |= {"spent": {}, "journal": {}, "log": ""}
            self._picture = b""
        return news, picture

    def stop(self) -> None:
        """Ask the job to stop; its journal is stored before it ends."""
        self._stop.set()

    def kill(self) -> None:
        """End the job at once; what its journal gained since the last look is lost."""
        self._stop.set()
        if self._running:
            self._running.kill()

    def _work(self) -> None:
        root = Path("")
        try:
            if self._request["version"] != __version__:
                raise StudioError(
                    f"a node runs mystudio {__version__}, the queue's machine {self._request['version']}; install the "
                    "same version on all of them"
                )
            folder = node_folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _swept(folder)
            root = Path(tempfile.mkdtemp(prefix=f"unit-{os.getpid()}-", dir=folder))
            self._run(root / "tree", Content(self._request["store"], folder / "cache"))
        except (OSError, OutputFailed) as error:  # this node's disk: another node may have space
            self._ended("crashed", f"on {os.uname().nodename}: {why(error)}")
        except StudioError as error:
            self._ended("failed", str(error))
        except Exception as error:
            self._ended("crashed", f"{type(error).__name__}: {error}")
        finally:
            if root.name:
                shutil.rmtree(root, ignore_errors=True)

    def _run(self, root: Path, content: Content) -> None:
        request = self._request
        sent: Files = {name: (sha, size) for name, (sha, size) in request["files"].items()}
        unpacked(sent, root, content)
        work = moved(Work(request["kind"], request["inputs"], request["out"], request["options"]), root)
        out = Path(work.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        running = self._running = Running(_job(work, request["try"], root.parent / "log"), root, request.get("share"))
        sync, ended = 0.0, None
        try:
            while ended is None:
                time.sleep(TICK)
                running.read()
                if self._stop.is_set():
                    running.stop()
                ended = running.outcome()
                if ended or time.monotonic() > sync:
                    sync = time.monotonic() + SYNC
                    self._tell(running, content, root, sent)
        finally:
            running.kill()
        done = ended[0] in ("done", "same")
        self._ended(*ended, made_in(root, out, sent, content, partial=False) if done else {})

    def _tell(self, running: Running, content: Content, root: Path, sent: Files) -> None:
        """Take the child's reports, and store what its journal has gained."""
        journal = made_in(root, Path(running.job.out), sent, content, partial=True)
        sent |= journal
        with open(running.job.log, "rb") as file:
            file.seek(self._read)
            text = file.read()
        self._read += len(text)
        picture = running.preview()
        with self._lock:
            news = self._news
            news["journal"] |= journal
            news["log"] += text.decode("utf-8", "replace").replace(str(root), "")
            if running.facts:
                news["facts"] = running.facts
            for part, (units, seconds) in running.spent.items():
                before, so_far = news["spent"].get(part, (0, 0.0))
                news["spent"][part] = (max(units, before), so_far + seconds)
            self._picture = picture or self._picture
        running.taken()

    def _ended(self, how: str, error: str, made: Files | None = None) -> None:
        with self._lock:
            self._news |= {"end": (how, error), "made": made or {}}


def _job(work: Work, tries: int, log: Path) -> Job:
    """A job as ``Running`` needs it; the queue's own row stays with the sender."""
    return Job(
        0, work, "", State.RUNNING, None, False, (), "", "", 0, 0, None, None, None, "", log, "", tries, 0.0, None,
        None, None, 0.0, 0,
    )  # fmt: skip


def _swept(folder: Path) -> None:
    """Remove the mirrors of processes that were killed."""
    for path in folder.glob("unit-*"):
        process = path.name.split("-")[1]
        if not process.isdigit() or not _lives(int(process)):
            with suppress(OSError):
                shutil.rmtree(path)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
