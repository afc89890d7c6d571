"""The exclusive lock for writing an artifact: the operating system's, or an owner file where a drive has no locks.

Network and user-space file systems may reject ``flock`` (ENOLCK, EOPNOTSUPP, ENOSYS, EINVAL). There, a hidden file
``.NAME.owner`` keeps other processes out. It is created exclusively and names its owner: computer, process, and the
time when that process started. It is stale, and taken over, in two cases. On the same computer: the owner has ended.
On another computer: the owner has not renewed the file for ``SILENT`` seconds; a living owner does every ``RENEW``.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mystudio.errors import ArtifactBusy, OutputFailed
from mystudio.storage.manifest import beside, resolved

RENEW = 60.0  # s between two renewals of an owner file
SILENT = 600.0  # s without a renewal after which an owner on another computer counts as ended
MAX_OWNER = 4096  # bytes of an owner file
_BUSY = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)  # another process holds the lock; SMB answers EACCES
_told: set[str] = set()  # drives whose missing locks were reported by this process
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds an owner file; ``computer`` changes with each boot and with each container."""

    computer: str
    host: str
    process: int
    started: str
    token: str  # differs in every lock


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the exclusive lock for writing ``path``; it does not outlive its process.

    Raises:
        ArtifactBusy: another process holds it.
        OutputFailed: the drive has no locks, and an owner file cannot be written either.
    """
    place = resolved(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = _flock(path, place)
    if handle is None:
        with _owned(path, place):
            yield
        return
    try:
        _refuse_owned(path, beside(place, "owner"))  # a computer to which this drive offers no locks may write here
        yield
    finally:
        beside(place, "lock").unlink(missing_ok=True)
        os.close(handle)


def drive_of(place: Path) -> str:
    """Name the drive of a path: where it is mounted, and the type of its file system if the system tells it."""
    mount = next((p for p in (place, *place.parents) if os.path.ismount(p)), Path(place.anchor))
    try:
        rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        rows = []
    kinds = [row[2] for row in rows if len(row) > 2 and row[1].encode().decode("unicode_escape") == str(mount)]
    return f"{mount} ({kinds[-1]})" if kinds else str(mount)


def _flock(path: Path, place: Path) -> int | None:
    """Take the operating system's lock: an open file that holds it; None if the drive offers none."""
    name = beside(place, "lock")
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in _BUSY:
                raise ArtifactBusy(
                    f"{path} is being written by another process; wait for it or choose another name"
                ) from None
            name.unlink(missing_ok=True)
            _tell(place, error)
            return None
        if _is_still(name, handle):
            return handle
        os.close(handle)  # the previous holder removed the file between open and lock here


def _is_still(name: Path, handle: int) -> bool:
    try:
        return os.stat(name).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _tell(place: Path, error: OSError) -> None:
    drive = drive_of(place.parent)
    if drive not in _told:
        _told.add(drive)
        log.warning(
            "the drive %s has no file locks (%s); an owner file beside each result keeps other processes out",
            drive,
            error.strerror or error,
        )


@contextmanager
def _owned(path: Path, place: Path) -> Iterator[None]:
    name, ours = beside(place, "owner"), _this_process()
    while not _created(name, ours):
        _refuse_owned(path, name)
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(name, ours, ended), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        if _owner(name) == ours:  # false if this computer slept so long that another one took over
            name.unlink(missing_ok=True)


def _created(name: Path, ours: Owner) -> bool:
    try:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    try:
        with open(handle, "wb") as file:
            file.write(json.dumps(dataclasses.asdict(ours)).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        name.unlink(missing_ok=True)
        raise OutputFailed(
            f"{name} could not be written ({error.strerror or error}), and {drive_of(name.parent)} has no file "
            "locks; free space or choose another place"
        ) from error
    return True


def _refuse_owned(path: Path, name: Path) -> None:
    """Raise ArtifactBusy if an owner file has a living owner; remove a stale one."""
    content, owner = _content(name), _owner(name)
    if content is None:
        return
    if _lives(name, owner):
        who = f"process {owner.process} on {owner.host}" if owner else "another process"
        raise ArtifactBusy(
            f"{path} is being written by {who}; wait for it or choose another name (if it has crashed on another "
            f"computer, the same command works {SILENT / 60:.0f} minutes later)"
        )
    aside = _new_name(name)
    with suppress(FileNotFoundError):  # another process removed it first
        os.rename(name, aside)
        if _content(aside) != content and not name.exists():  # another process took it over in between: give it back
            os.rename(aside, name)
        aside.unlink(missing_ok=True)


def _lives(name: Path, owner: Owner | None) -> bool:
    us = _this_process()
    if owner and owner.computer == us.computer:
        return _start_of(owner.process) == owner.started
    probe = _new_name(name)
    try:
        probe.touch(exist_ok=False)  # the drive's clock may differ from this computer's
        return probe.stat().st_mtime - name.stat().st_mtime < SILENT
    except FileNotFoundError:  # the owner has just finished
        return False
    finally:
        probe.unlink(missing_ok=True)


def _new_name(name: Path) -> Path:
    return name.with_name(f".{secrets.token_hex(8)}.owner")  # short: the result's own name may be as long as possible


def _renew(name: Path, ours: Owner, ended: threading.Event) -> None:
    while not ended.wait(RENEW):
        with suppress(OSError):  # an interrupted connection: the next renewal counts
            if _owner(name) == ours:
                os.utime(name)


def _content(name: Path) -> bytes | None:
    try:
        with open(name, "rb") as file:
            return file.read(MAX_OWNER)
    except FileNotFoundError:
        return None


def _owner(name: Path) -> Owner | None:
    """The owner that a file names; None if it names none, because its writer was killed at once."""
    try:
        return Owner(**json.loads(_content(name) or b""))
    except (ValueError, TypeError):
        return None


def _this_process() -> Owner:
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # numbers of processes are unique within it
    return Owner("/".join(parts), parts[0], os.getpid(), _start_of(os.getpid()), secrets.token_hex(8))


def _start_of(process: int) -> str:
    """When a process of this computer started, in the kernel's ticks; empty if it has ended."""
    try:
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]  # killed, and not yet removed by its parent
    except FileNotFoundError:
        pass
    except (OSError, IndexError):
        return "?"
    if os.path.isdir("/proc/self"):
        return ""
    try:  # a system without /proc tells only whether the process exists
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "?"
