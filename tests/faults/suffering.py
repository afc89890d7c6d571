"""Fault injection inside a command's own process: kill at a file operation, full disk, out of memory, NaN, ..."""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from mystudio.errors import BadArtifact

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")
CAPABILITIES_3 = 0x20080522  # version of the system call's structures


def load_everything() -> None:
    """Import the modules that the commands need, so that a forked child starts at once."""
    import cv2
    import torch
    import work

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in (
        "c2pa",
        "jinja2",
        "matplotlib.figure",
        "mediapipe",
        "numpy.testing",
        "av.subtitles.stream",
        "encodings.cp437",
        "cryptography.x509",
        "safetensors.torch",
        "torch._dynamo",
        "mystudio.base.train",
        "mystudio.base.runs",
        "mystudio.cli",
        "mystudio.pipeline",
        "mystudio.storage.archive",
        "mystudio.storage.removal",
        "mystudio.provenance.watermark",
        "mystudio.provenance.verify",
        "mystudio.engines.personal.regress",
        "mystudio.engines.personal.gauss_newton",
        "mystudio.engines.personal.solve",
        "mystudio.engines.personal.tune",
    ):
        importlib.import_module(name)
    from mystudio.bases import find_base
    from mystudio.provenance.signing import make
    from mystudio.recipe import resolve
    from mystudio.storage.manifest import parse
    from selfscan import checkpoints as keep
    from selfscan.face.facemesh import load_facemesh

    keep.CHUNK = work.CHUNK
    resolve("default")
    make()
    find_base("people128")
    with suppress(BadArtifact):
        parse(b"{}", "nothing", "")
    load_facemesh()
    gc.collect()
    gc.freeze()  # forked children share these objects


def carry_out(words: list[str], place: Path, fault: dict) -> int:
    """Run a command line in this process; returns its exit code."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False, errors="surrogateescape") for n in (1, 2))
    notes = {name: os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("steps", "files")}
    _tell_steps(notes["steps"])
    suffer(notes["files"], **fault)
    from mystudio.cli import cli

    try:
        cli.main(args=words, prog_name="mystudio")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _tell_steps(handle: int) -> None:
    from mystudio.commands import terminal

    class Told(terminal._Lines):
        def __call__(self, stage: str, done: int, total: int) -> None:
            os.write(handle, (json.dumps([stage, done, total]) + "\n").encode())
            super().__call__(stage, done, total)

    terminal._Lines = Told


def suffer(
    notes: int,
    *,
    folder: str | None = None,
    kill_at: int = -1,
    stop_at: int = -1,
    file_bytes: int = 0,
    memory_mb: float = 0,
    unprivileged: bool = False,
    env: dict | None = None,
    clock: list[float] = (),
    **step,
) -> None:
    """Install the faults for the command that runs next in this process.

    Args:
        folder: its file operations are counted and recorded. kill_at, stop_at: SIGKILL or SIGSTOP before this one.
        file_bytes: largest size of a file. memory_mb: most memory by which the process can grow.
        unprivileged: file permissions apply, even to root. env: environment variables to set (null = removed).
        clock: jumps of the wall clock in seconds, one for each reading.
        step: arguments of ``_spoil``.
    """
    for name, value in (env or {}).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    if step:
        _spoil(**step)
    if clock:
        _jumping(clock)
    if folder:
        watch(folder, notes, kill_at, stop_at)
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if memory_mb:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + int(memory_mb * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if unprivileged and os.geteuid() == 0:
        _drop_rights()


def _drop_rights() -> None:
    """Drop all capabilities (capset(2)), so that file permissions apply to root as to any owner."""
    import ctypes

    header = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped here")


def watch(folder: str, notes: int, kill_at: int = -1, stop_at: int = -1) -> None:
    """Record every file operation in a folder from now on, and kill or stop this process before one of them."""
    count, folder, own = 0, os.path.realpath(folder), os.getpid()

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITES or not isinstance(path, (str, bytes)):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        within = name.startswith(folder) or (not os.path.isabs(name) and event in ("os.remove", "os.rmdir"))
        if not within or os.getpid() != own:
            return
        if count == kill_at:
            os.kill(own, signal.SIGKILL)
        if count == stop_at:
            os.kill(own, signal.SIGSTOP)
        count += 1
        os.write(notes, f"{event} {json.dumps(name.removeprefix(folder))}\n".encode())

    sys.addaudithook(hook)


def _spoil(target: str, call: int, how: str, times: int = 1) -> None:
    """Change the result of a real function, ``times`` times from its ``call``-th call on.

    Args:
        target: "module:name" or "module:Class.name". how: "nan" makes its numbers NaN; "memory" asks the allocator
            for more than there is, and lets its error pass; "thread", "disk" likewise of the system.
    """
    module, _, name = target.partition(":")
    holder = importlib.import_module(module)
    *outer, name = name.split(".")
    for part in outer:
        holder = getattr(holder, part)
    real, count = getattr(holder, name), 0

    def spoilt(*arguments, **named):
        nonlocal count
        count += 1
        if not call <= count < call + times:
            return real(*arguments, **named)
        if how == "memory":
            import torch

            torch.empty(1 << 50, dtype=torch.uint8)
        return _not_numbers(real(*arguments, **named))

    setattr(holder, name, spoilt)


def _not_numbers(value):
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value * float("nan")
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value * np.nan
    if isinstance(value, tuple):
        return tuple(map(_not_numbers, value))
    return value


def _jumping(jumps: list[float]) -> None:
    """Offset each reading of the wall clock by the next of ``jumps``; the last offset stays."""
    import mystudio.provenance.signing
    import mystudio.storage.workspace
    import selfscan.scan.scan

    left, real = list(jumps), time.time

    def offset() -> float:
        return left.pop(0) if len(left) > 1 else left[0]

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=offset())

    time.time = lambda: real() + offset()
    for module in (mystudio.storage.workspace, mystudio.provenance.signing, selfscan.scan.scan):
        module.datetime = Jumping
