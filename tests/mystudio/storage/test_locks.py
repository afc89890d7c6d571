"""Locks on drives without ``flock``: an owner file keeps others out, and a stale one is taken over."""

import dataclasses
import errno
import fcntl
import json
import logging
import multiprocessing
import os
import signal

import pytest

from mystudio.errors import ArtifactBusy
from mystudio.storage import locks, workspace
from mystudio.storage.manifest import beside
from tests.mystudio.killing import hold

REFUSALS = ("ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EINVAL", "EBADF", "ENOTTY", "EIO")


@pytest.fixture
def no_flock(monkeypatch):
    """The drive answers every request for a lock with an error, as network drives do."""

    def refuse_with(name):
        def flock(*_):
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

        monkeypatch.setattr(fcntl, "flock", flock)
        monkeypatch.setattr(locks, "_told", set())

    return refuse_with


@pytest.mark.parametrize("name", REFUSALS)
def test_a_drive_without_locks_is_named_and_an_owner_file_serves(name, no_flock, tmp_path, caplog):
    no_flock(name)
    with caplog.at_level(logging.WARNING), locks.lock(tmp_path / "me.take"):
        assert os.listdir(tmp_path) == [".me.take.owner"]
        with pytest.raises(ArtifactBusy, match=f"me.take is being written by process {os.getpid()} on "):
            with locks.lock(tmp_path / "me.take"):
                pass
        with locks.lock(tmp_path / "other.take"):
            pass
    assert os.listdir(tmp_path) == []
    (told,) = [record.getMessage() for record in caplog.records]  # once a drive, not once a result
    assert locks.drive_of(tmp_path) in told and os.strerror(getattr(errno, name)) in told


@pytest.mark.parametrize("name", ["EAGAIN", "EACCES"])
def test_a_lock_that_others_hold_is_busy_and_not_a_drive_without_locks(name, no_flock, tmp_path):
    no_flock(name)
    with pytest.raises(ArtifactBusy, match="by another process"), locks.lock(tmp_path / "me.take"):
        pass
    assert not beside(tmp_path / "me.take", "owner").exists()


def test_the_owner_file_of_a_killed_process_is_taken_over(no_flock, tmp_path):
    no_flock("ENOLCK")
    fork = multiprocessing.get_context("fork")
    held, release = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(tmp_path / "me.take", held, release))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(ArtifactBusy, match=f"process {other.pid} "), locks.lock(tmp_path / "me.take"):
            pass
        os.kill(other.pid, signal.SIGKILL)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie: its number is still taken
        with locks.lock(tmp_path / "me.take"):
            owner = json.loads(beside(tmp_path / "me.take", "owner").read_text())
            assert owner["process"] == os.getpid()
    finally:
        other.kill()
        other.join()
    assert os.listdir(tmp_path) == []


def owner_file(place, age=0.0, **changes):
    file = beside(place, "owner")
    file.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(locks._this_process(), **changes))))
    now = file.stat().st_mtime
    os.utime(file, (now - age, now - age))
    return file


def test_a_number_that_another_process_got_is_no_owner(no_flock, tmp_path):
    no_flock("ENOLCK")
    owner_file(tmp_path / "me.take", started="1")
    with locks.lock(tmp_path / "me.take"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("working", [True, False])
def test_an_owner_on_another_computer_counts_until_it_is_silent(working, no_flock, tmp_path):
    """Also where this computer has locks: the other one has none, or it would not have written an owner file."""
    if not working:
        no_flock("EOPNOTSUPP")
    file = owner_file(tmp_path / "me.take", locks.SILENT - 60, computer="elsewhere", host="render7")
    with pytest.raises(ArtifactBusy, match="on render7.*10 minutes later"), locks.lock(tmp_path / "me.take"):
        pass
    assert os.listdir(tmp_path) == [file.name]
    owner_file(tmp_path / "me.take", locks.SILENT + 60, computer="elsewhere", host="render7")
    with locks.lock(tmp_path / "me.take"):
        pass
    assert os.listdir(tmp_path) == []


def test_an_owner_file_without_an_owner_counts_until_it_is_silent(no_flock, tmp_path):
    no_flock("ENOSYS")
    file = beside(tmp_path / "me.take", "owner")
    file.write_bytes(b"")
    with pytest.raises(ArtifactBusy), locks.lock(tmp_path / "me.take"):
        pass
    os.utime(file, (1, 1))
    with locks.lock(tmp_path / "me.take"):
        pass


def test_a_working_process_renews_its_owner_file(no_flock, tmp_path, monkeypatch):
    no_flock("ENOLCK")
    monkeypatch.setattr(locks, "RENEW", 0.01)
    file = beside(tmp_path / "me.take", "owner")
    with locks.lock(tmp_path / "me.take"):
        os.utime(file, (1, 1))
        for _ in range(500):
            if file.stat().st_mtime > 1:
                break
            locks.threading.Event().wait(0.01)
        assert file.stat().st_mtime > 1


def test_who_lost_its_owner_file_leaves_the_next_owners_alone(no_flock, tmp_path):
    no_flock("ENOLCK")
    with locks.lock(tmp_path / "me.take"):
        owner_file(tmp_path / "me.take", computer="elsewhere")
    assert os.listdir(tmp_path) == [".me.take.owner"]


def test_a_stage_runs_on_a_drive_without_locks_and_folders_that_cannot_be_flushed(no_flock, tmp_path, monkeypatch):
    no_flock("EOPNOTSUPP")
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    for done in (False, True):
        with workspace.stage(tmp_path / "it", "report", {}, {"steps": 3}) as run:
            assert run.done is done
            if not done:
                with run.writing() as folder:
                    (folder / "a").write_text("b")
    assert os.listdir(tmp_path) == ["it"]
