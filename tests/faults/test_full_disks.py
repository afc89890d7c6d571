"""Full disk or file size limit: the earlier result is unchanged, the error is one sentence, and a rerun resumes."""

import os
import shutil
import subprocess

import pytest
from kills import leftovers, redone

FREE_KB = (8, 0, 24, 60, 150, 400)  # free bytes on the disk
FILE_BYTES = (2_000, 30_000, 300_000)


@pytest.fixture
def disk(place):
    """Mount a small file system, and unmount it afterwards."""
    place.parent.mkdir(exist_ok=True)
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here ({done.stderr.strip()})")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk, free: int) -> None:
    """Fill the disk until only so many bytes are free."""
    spare = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with open(disk / "ballast", "wb") as file:
        file.write(bytes(spare - free))


def assert_told(ended, place):
    """Check that the error is one sentence with advice and names a path in the folder."""
    told = ended.sentence
    assert any(words in told for words in ("free space", "free some space", "free it")), told
    assert str(place) in told or "ada's" in told.lower(), told


@pytest.mark.quick("reenact")
def test_a_full_disk_is_told_and_the_command_goes_on_when_there_is_space(stage, studio, template, disk, expected):
    for path in template.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, disk / path.name)
    made, earlier = disk / stage.makes, None
    failed = 0
    for free in FREE_KB[:1] if stage.name == "reenact" else FREE_KB:
        for path in (made, disk / f".{made.name}.made", *disk.glob(stage.also or "no such name")):
            (shutil.rmtree if path.is_dir() else os.unlink)(path) if path.exists() else None
        if stage.before is not None:
            assert studio.run(*stage.command(disk, earlier=True)).code == 0
            earlier = stage.state(made)
        fill(disk, free << 10)
        first = studio.run(*stage.command(disk))
        if first.code:
            failed += 1
            assert_told(first, disk)
            if earlier is not None:
                assert stage.state(made) == earlier
        (disk / "ballast").unlink()
        second = studio.run(*stage.command(disk))
        assert second.code == 0, second.stderr
        assert stage.state(made) == expected(stage)
        assert redone(stage, [first, second]) == ""
        assert leftovers(disk) == []
    assert failed


@pytest.mark.quick("edit")
def test_a_file_that_may_not_grow_is_like_a_full_disk(stage, studio, begun, place, expected):
    begun(stage)
    failed = 0
    for limit in FILE_BYTES:
        ended = studio.run(*stage.command(place), file_bytes=limit)
        if ended.code == 0:
            break
        failed += 1
        assert_told(ended, place)
        assert not (place / stage.makes).exists() or stage.name == "base train"
    again = studio.run(*stage.command(place))
    assert again.code == 0, again.stderr
    assert stage.state(place / stage.makes) == expected(stage) and failed
    assert leftovers(place) == []
