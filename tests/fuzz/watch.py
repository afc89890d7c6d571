"""Watch one call of a reader: its exceptions, processes, files, memory and time."""

import dis
import os
import resource
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from mystudio.errors import StudioError
from selfscan.errors import SelfscanError

SECONDS = 2.0  # processor time
MEGABYTES = 64  # default limit of a reader's memory, in addition to three times its file
STARTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "pty.spawn",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.bind",
    "pickle.find_class",
    "ctypes.dlopen",
    "os.kill",
    "webbrowser.open",
    "smtplib.connect",
    "urllib.Request",
)
PLACES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "shutil.rmtree",
    "shutil.move",
    "shutil.copyfile",
    "tempfile.mkstemp",
    "tempfile.mkdtemp",
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_now: dict = {"folder": None, "allowed": (), "seen": []}


def _audit(event: str, arguments: tuple) -> None:
    folder = _now["folder"]
    if folder is None or event in _now["allowed"]:
        return
    if event in STARTS:
        _now["seen"].append(f"{event} {arguments[:1]!r}"[:200])
    elif event == "exec" and arguments[0].co_filename == "<string>" and _calls(arguments[0]):
        _now["seen"].append(f"exec of {arguments[0].co_names}")
    elif event in PLACES or event == "open" and _is_writing(*arguments):
        for path in arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]:
            if isinstance(path, str | bytes | os.PathLike) and not _inside(_whole(path, arguments), folder):
                _now["seen"].append(f"{event} {path!r}"[:200])


def _calls(code) -> bool:
    """Return whether a text contains more than names, which type hints are made of."""
    return any(step.opname.startswith(("CALL", "IMPORT")) for step in dis.get_instructions(code))


def _whole(path, arguments: tuple) -> str:
    """Return the full path; rmtree passes paths relative to an open folder."""
    handle = next((a for a in arguments[1:] if type(a) is int and a > 2), None)
    path = os.fsdecode(path)
    if handle is None or os.path.isabs(path):
        return path
    return os.path.join(os.path.realpath(f"/proc/self/fd/{handle}"), path)


def _is_writing(path, mode, flags) -> bool:
    if not isinstance(path, str | bytes | os.PathLike) or os.fsdecode(path) == os.devnull:
        return False
    return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & WRITES)


def _inside(path: str, folder: str) -> bool:
    return os.path.realpath(path).startswith(folder + os.sep) or os.path.realpath(path) == folder


sys.addaudithook(_audit)


class Misbehaviour(AssertionError):
    """A reader did something that no reader may do."""


@contextmanager
def watched(folder: Path, allowed: tuple[str, ...] = ()):
    """Raise Misbehaviour if the block starts a process, runs code from a text, or writes outside ``folder``."""
    _now.update(folder=os.path.realpath(folder), allowed=allowed, seen=[])
    try:
        yield
    finally:
        _now["folder"] = None
    if _now["seen"]:
        raise Misbehaviour(f"it did {_now['seen'][:3]}")


def outcome(
    read: Callable,
    data: bytes,
    folder: Path,
    megabytes: int = MEGABYTES,
    allowed: tuple[str, ...] = (),
    seconds: float = SECONDS,
) -> StudioError | SelfscanError | None:
    """Call a reader; returns None if it accepted the file, else its error.

    Raises: Misbehaviour: another exception, a message of several sentences, too much time or memory, a file written
        elsewhere, or a process started.
    """
    before, start = _clear_peak(), _used()
    refusal = None
    try:
        with watched(folder, allowed):
            read(data, folder)
    except (StudioError, SelfscanError) as error:
        refusal = error
        text = str(error)
        if "\n" in text or not 10 < len(text) < 1200 or not text.isprintable():
            raise Misbehaviour(f"not one sentence: {text[:300]!r}") from error
    except Misbehaviour:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Misbehaviour(f"{type(error).__name__}: {str(error)[:300]}") from error
    if (took := _used() - start) > seconds:
        raise Misbehaviour(f"it took {took:.1f} s of processor time")
    if (grown := _peak() - before) > megabytes + 3 * len(data) / 2**20:
        raise Misbehaviour(f"it took {grown:.0f} MB")
    return refusal


def _used() -> float:
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def _clear_peak() -> float:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _peak()


def _peak() -> float:
    """Return the peak resident memory since ``_clear_peak`` in MB; without /proc, since the start."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
