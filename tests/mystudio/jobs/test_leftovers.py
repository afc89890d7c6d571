"""Checkpoints of jobs that did not finish: kept while the job can go on, gone with the job; and a disk that fills."""

import shutil
from itertools import islice

import numpy as np
import pytest
import torch
from test_worker import RECIPE, YAW, disk, drawing, worker  # noqa: F401

from mystudio.demo import FOLDER
from mystudio.jobs import Queue, State, Work
from mystudio.storage.journal import DiskCheckpoints, journal
from mystudio.storage.manifest import open_folder
from mystudio.stylegan2.checkpoint import save_generator
from mystudio.stylegan2.generator import Generator
from selfscan.io import video
from tests.mystudio.jobs.conftest import render, wait_for


def partials(studio) -> set[str]:
    return {path.name for path in studio.rglob("*.partial")}


def test_checkpoints_stay_for_a_retry_and_go_with_the_job(queue, studio, slow_jobs):
    queue.add(render())
    with worker(queue):
        drawing(queue, 1, 60, tries=1)
        queue.cancel(1)
        wait_for(lambda: queue.job(1).state == State.CANCELLED)
    assert partials(studio) == {"hello.mp4.partial"}  # `retry` continues it
    queue.add(render())
    queue.remove(1)
    assert partials(studio) == {"hello.mp4.partial"}  # the second job, which makes the same, continues it
    queue.cancel(2)
    queue.remove(2)
    assert partials(studio) == {"hello.mp4.partial"}  # it was never started, so these are not its own
    queue.add(render())
    with worker(queue):
        drawing(queue, 3, 80, tries=1)
        queue.cancel(3)
        wait_for(lambda: queue.job(3).state == State.CANCELLED)
    queue.remove(3)
    assert partials(studio) == set() and not (studio / "hello.mp4").exists()


def test_a_failed_job_that_stored_nothing_leaves_no_folder(queue, studio):
    queue.add(Work("edit", {"take": "hello.take"}, "winged.take", {"edits": [{"name": "wings"}]}))
    journal(studio / "winged.take", "of an earlier run")
    with worker(queue):
        wait_for(lambda: queue.job(1).state == State.FAILED)
        wait_for(lambda: not partials(studio))


def test_a_removed_take_forgets_the_measuring_of_its_clip_unless_another_needs_it(queue, studio):
    """The performance of a driving clip is made beside the take, under its own name."""
    for name in ("a.take", "b.take"):
        queue.add(Work("reenact", {"avatar": "me.avatar", "video": "driver.mp4"}, name))
    ours, foreign = (journal(studio / f"{name}.performance", "key") for name in ("driver-01234567", "driven-01234567"))
    for folder in (ours, foreign):
        DiskCheckpoints(folder).put("track", {"x": np.zeros(2)})
    with queue._store.writing() as db:
        db.execute("UPDATE job SET state = 'failed', tries = 1")
    queue.remove(1)
    assert ours.is_dir()
    queue.remove(2)
    assert not ours.exists() and foreign.is_dir()


@pytest.fixture
def trained(tmp_path_factory):
    """A folder in which an avatar can be trained in seconds: 16 frames of the demo person and a random base."""
    place = tmp_path_factory.mktemp("trained") / "studio"
    place.mkdir()
    timed = list(islice(video.read(FOLDER / "scan.mp4"), 0, 160, 10))
    video.write(place / "me.mp4", [frame for _, frame in timed], [second for second, _ in timed])
    (place / "tiny.toml").write_text(RECIPE.replace("steps = 12\n", "steps = 60\n"))
    torch.manual_seed(0)
    generator = Generator(32, z_dim=16, w_dim=16, mapping_layers=2, channel_base=512, channel_max=32)
    save_generator(generator.eval(), place / "tiny.safetensors")
    return place


@pytest.mark.slow
def test_a_disk_that_fills_while_an_avatar_is_trained_loses_nothing(disk, trained, slow_jobs):  # noqa: F811
    how = {"recipe": "tiny.toml"}
    scan = Work("scan", {"video": "me.mp4"}, "me.scan", {"consent": "Ada", "fictional": True, **how})
    train = Work("personalize", {"scan": "me.scan"}, "me.avatar", {"base": "tiny.safetensors", **how})
    with Queue(trained) as queue, worker(queue):
        queue.add(scan)
        wait_for(lambda: queue.job(1).state == State.DONE)
        undisturbed = queue.add(train)
        wait_for(lambda: queue.job(undisturbed.id).state == State.DONE)
    whole = open_folder(trained / "me.avatar", "avatar").manifest.digest
    studio = disk / "studio"
    shutil.copytree(trained, studio, ignore=shutil.ignore_patterns("jobs", "me.avatar"))
    with Queue(studio) as queue, worker(queue):
        job = queue.add(train).id
        wait_for(lambda: (now := queue.job(job)).stage == "tune" and now.done >= 8)
        with open(disk / "ballast", "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(bytes(4096))
        failed = wait_for(lambda: "disk is full" in queue.log(job).text and queue.job(job))
        (disk / "ballast").unlink()
        failed = wait_for(lambda: (now := queue.job(job)).state in (State.FAILED, State.DONE) and now)
        assert failed.state == State.FAILED and "\n" not in failed.error
        assert failed.error.endswith("the disk is full; free space and try again")
        assert partials(studio) == {"me.avatar.partial"} and not (studio / "me.avatar").exists()
        assert [path for path in studio.rglob("*") if path.name.endswith(".new")] == []
        queue.retry(job)
        wait_for(lambda: queue.job(job).state == State.DONE)
        assert "tune 1/" not in queue.log(job).text.split("try 2", 1)[1]  # it went on from a checkpoint
    assert open_folder(studio / "me.avatar", "avatar").manifest.digest == whole
    assert partials(studio) == set()
