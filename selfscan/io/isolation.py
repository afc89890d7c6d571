"""Read untrusted files in a child process with limits, so that a crash ends only the child.

The child is a fresh interpreter. It imports from this process's import paths, never from the working folder, and only
what its task needs. Limits that the operating system does not support are not set.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

#: the child's program; its arguments: task, request, limits, then the import paths
CHILD = "import sys; sys.path[:] = sys.argv[4:]; from selfscan.io.isolation import serve; serve()"
#: glibc settings: one arena (each takes 128 MB of address space); freed pictures' memory is reused, not returned
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
SLICE = 1.0  # s of one wait for a child; a pause of the whole machine counts as at most this much waiting


@dataclass(frozen=True)
class Rations:
    """Limits on what a child may use."""

    memory: int = 4 << 30  # bytes of address space, including libraries and thread stacks
    cpu: int = 600  # s of processor time
    files: int = 64  # files open at the same time
    written: int | None = 0  # bytes of a file that it may write; None = this process's own limit


def start(
    task: str,
    request: dict,
    rations: Rations = Rations(),
    inherit: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child.

    Args:
        task: "module:function"; the child calls it with the request.
        request: JSON values.
        rations: limits on what it may use.
        inherit: file descriptors that it inherits.
    Returns: the process; its stdin and stdout are unbuffered pipes.
    """
    root = str(Path(__file__).resolve().parents[2])
    folders = [root, *(folder for folder in sys.path if os.path.isabs(folder) and folder != root)]
    arguments = [task, json.dumps(request), json.dumps(asdict(rations)), *folders]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", CHILD, *arguments],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=tuple(inherit),
        env=os.environ | MALLOC,
    )


def pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """The stdin and stdout of a child of ``start``."""
    assert child.stdin is not None and child.stdout is not None, "start makes both"
    return child.stdin, child.stdout


def ask(task: str, request: dict, rations: Rations, seconds: float, most: int, question: bytes = b"") -> bytes | None:
    """Run a task in a child and return what it writes to its stdout.

    Args:
        task, request, rations: see ``start``.
        seconds: time limit, after which the child is killed. most: bytes, the longest answer accepted.
        question: the bytes on the child's stdin.
    Returns: the answer; None if the child crashed, exceeded a limit, or answered too much.
    """
    child, answer, deadline = start(task, request, rations), bytearray(), time.monotonic() + seconds
    stdin, stdout = pipes(child)
    try:
        rest = memoryview(question)
        with suppress(BrokenPipeError):
            while rest:
                rest = rest[stdin.write(rest) :]
        stdin.close()
        while len(answer) <= most:
            if not wait_for(stdout.fileno(), deadline - time.monotonic()):
                return None
            block = os.read(stdout.fileno(), 1 << 20)
            if not block:
                return bytes(answer) if ended(child) == 0 else None
            answer += block
        return None
    finally:
        stop(child)


def wait_for(pipe: int, seconds: float) -> bool:
    """Wait until a pipe can be read or has ended; False after ``seconds`` of this process's running time."""
    look = select.poll()
    look.register(pipe, select.POLLIN)
    while seconds > 0:
        if look.poll(1000 * min(seconds, SLICE)):
            return True
        seconds -= SLICE
    return False


def stop(child: subprocess.Popen[bytes]) -> int:
    """Kill a child; return its exit code, -N if signal N ended it."""
    child.kill()
    for pipe in pipes(child):
        with suppress(OSError):
            pipe.close()
    return child.wait()


def ended(child: subprocess.Popen[bytes]) -> int:
    """Exit code of a child that closed its stdout; it is killed after 5 s; -N if signal N ended it."""
    with suppress(subprocess.TimeoutExpired):
        return child.wait(5)
    return stop(child)


def serve() -> None:
    """Entry point of the child: set the limits, then run the task."""
    import importlib
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent ends the child
    task, request, rations = sys.argv[1:4]
    _limit(Rations(**json.loads(rations)))
    module, _, function = task.partition(":")
    getattr(importlib.import_module(module), function)(json.loads(request))


def _limit(rations: Rations) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    most = {
        "RLIMIT_AS": rations.memory,
        "RLIMIT_CPU": rations.cpu,
        "RLIMIT_NOFILE": rations.files,
        "RLIMIT_FSIZE": rations.written,
        "RLIMIT_CORE": 0,
    }
    for name, value in most.items():
        if value is None or not hasattr(resource, name):
            continue
        what = getattr(resource, name)
        _, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):  # macOS defines RLIMIT_AS but rejects it
            resource.setrlimit(what, (value, value))
