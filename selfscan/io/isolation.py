"""Read files from strangers in a child process with limits, so that a crash ends the child alone.

The child is a fresh interpreter. It imports from the same places as this process, never from the folder it was started
in, and only what its job needs. Limits that an operating system does not have are left out.
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

#: the child's program: where to import from, then its limits, then its job
CHILD = "import sys; sys.path[:] = sys.argv[4:]; from selfscan.io.isolation import serve; serve()"
#: glibc's: few arenas (each takes 128 MB of address space), and pictures' memory is kept for the next, not given back
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
SLICE = 1.0  # s between two looks at a silent child; a process that was paused meanwhile counts no more than this


@dataclass(frozen=True)
class Rations:
    """What a child may use."""

    memory: int = 4 << 30  # bytes of address space, libraries and the stacks of threads among them
    cpu: int = 600  # s of processor time
    files: int = 64  # open at a time
    written: int | None = 0  # bytes of a file that it may write; None = as many as we may


def start(
    task: str,
    request: dict,
    rations: Rations = Rations(),
    inherit: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child.

    Args:
        job: "module:function"; called with the request.
        request: JSON values.
        rations: what it may use.
        inherit: file descriptors that it shares with us.
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
    """The stdin and stdout of a child that ``start`` made."""
    assert child.stdin is not None and child.stdout is not None, "start makes both"
    return child.stdin, child.stdout


def ask(task: str, request: dict, rations: Rations, seconds: float, most: int, question: bytes = b"") -> bytes | None:
    """What a child writes to its stdout.

    Args:
        job, request, rations: see ``start``.
        seconds: after which it is killed. most: bytes of an answer.
        question: what it finds on its stdin.
    Returns: the answer; None where it crashed, ran out of its rations, or said too much.
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
    """Whether a pipe has something to read, or has ended, within so many seconds of our own running time."""
    look = select.poll()
    look.register(pipe, select.POLLIN)
    while seconds > 0:
        if look.poll(1000 * min(seconds, SLICE)):
            return True
        seconds -= SLICE
    return False


def stop(child: subprocess.Popen[bytes]) -> int:
    """End a child, whatever it does; return its exit code, -N where signal N ended it."""
    child.kill()
    for pipe in pipes(child):
        with suppress(OSError):
            pipe.close()
    return child.wait()


def ended(child: subprocess.Popen[bytes]) -> int:
    """Exit code of a child that closed its end and has a moment to go by itself; -N where signal N ended it."""
    with suppress(subprocess.TimeoutExpired):
        return child.wait(5)
    return stop(child)


def serve() -> None:
    """Be the child: take the limits, then do the job."""
    import importlib
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: who started us decides
    task, request, rations = sys.argv[1:4]
    _limit(Rations(**json.loads(rations)))
    module, _, function = task.partition(":")
    getattr(importlib.import_module(module), function)(json.loads(request))


def _limit(rations: Rations) -> None:
    try:
        import resource
    except ImportError:  # no such limits here
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
        with suppress(ValueError, OSError):  # macOS knows the name of RLIMIT_AS only
            resource.setrlimit(what, (value, value))
