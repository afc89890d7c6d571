"""The worker with real stages in real children: kills, pause, cancel, failures, two workers, a full disk."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mystudio import api
from mystudio.demo import FOLDER
from mystudio.jobs import ENDED, Queue, State, Work, start_worker
from mystudio.jobs.child import GRACE
from mystudio.jobs.worker import Worker
from mystudio.recipe import resolve
from mystudio.storage.journal import journal_of
from mystudio.storage.locks import lock
from mystudio.stylegan2.checkpoint import save_generator
from mystudio.stylegan2.generator import Generator
from selfscan.io import video
from tests.mystudio.jobs.conftest import FRAMES, render, wait_for

SEGMENT = 12  # frames that a killed render draws again at most
YAW = [{"name": "yaw", "strength": 1.0}]


@contextmanager
def worker(queue, **how):
    """Run a worker in a thread; at the end it must have stopped by itself."""
    stop, errors = threading.Event(), []
    told = []

    def work():
        try:
            Worker(queue.studio, lambda job, words: told.append((job.id, words)), **how).run(stop, idle=60)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive() and errors == []


@pytest.fixture
def start(studio):
    """Starts a worker as a process of its own; a test that fails leaves none behind."""
    made, words = [], ["jobs", "run", "--studio", studio, "--idle", "30"]

    def begin() -> subprocess.Popen:
        made.append(subprocess.Popen([sys.executable, "-m", "mystudio", *words], stderr=subprocess.DEVNULL))
        return made[-1]

    yield begin
    for process in made:
        process.kill()
        process.wait()


def children_of(parent: int) -> list[int]:
    """The processes of jobs: the tests' own process has other children, too."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
            words = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(ppid) == parent and state != "Z" and b"mystudio.jobs.child" in words:
            found.append(int(stat.parent.name))
    return found


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def pictures(path) -> bytes:
    return np.stack([frame for _, frame in video.read(path)]).tobytes()


def begun_at(job, queue) -> list[int]:
    """Frames that were done when each run began to draw."""
    return [int(number) for number in re.findall(rf"render (\d+)/{FRAMES}", queue.log(job).text)]


def drawing(queue, job: int, frames: int, tries: int):
    """Wait until a run, and none before it, has drawn so many frames."""

    def there():
        now = queue.job(job)
        assert now.tries <= tries and now.state not in ENDED, queue.log(job).text
        return now.state == State.RUNNING and now.tries == tries and now.done >= frames and now

    return wait_for(there)


@pytest.fixture(scope="session")
def expected(template, tmp_path_factory) -> bytes:
    """The pictures of an uninterrupted render."""
    out = tmp_path_factory.mktemp("expected") / "hello.mp4"
    recipe = resolve("default", [*render().options["options"], 'render.view="side-by-side"'])
    return pictures(api.render(template / "hello.take", out, recipe=recipe, device="cpu"))


proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the test finds processes in /proc")


@proc
def test_a_killed_child_and_a_killed_worker_lose_nothing(queue, studio, expected, start, slow_jobs):
    queue.add(render())
    first = start()
    drawing(queue, 1, 60, tries=1)
    (child,) = children_of(first.pid)
    os.kill(child, signal.SIGKILL)
    drawing(queue, 1, 120, tries=2)
    (child,) = children_of(first.pid)
    first.kill()
    first.wait()
    killed = time.monotonic()
    second = start()
    wait_for(lambda: gone(child))  # the child of a dead worker stops by itself
    assert time.monotonic() - killed < GRACE + 20
    done = wait_for(lambda: (now := queue.job(1)).state in (State.DONE, State.FAILED) and now)
    second.terminate()
    assert second.wait(30) == 0
    assert done.state == State.DONE, done.error
    assert pictures(studio / "hello.mp4") == expected
    starts = begun_at(1, queue)
    assert starts[0] == 0 and starts[1] > 60 - SEGMENT - 1 and starts[-1] > 120 - SEGMENT - 1, starts
    assert not journal_of(studio / "hello.mp4").exists() and queue.workers() == []


@proc
def test_a_paused_job_stops_within_seconds_and_goes_on_where_it_stopped(queue, studio, expected, slow_jobs):
    queue.add(render())
    with worker(queue):
        drawing(queue, 1, 40, tries=1)
        asked = time.monotonic()
        assert queue.pause(1).asked == State.PAUSED
        wait_for(lambda: queue.job(1).state == State.PAUSED)
        assert time.monotonic() - asked < GRACE + 20
        assert children_of(os.getpid()) == []
        time.sleep(0.5)
        assert queue.job(1).state == State.PAUSED  # nothing starts it
        queue.resume(1)
        drawing(queue, 1, 80, tries=2)
        queue.cancel(1)
        cancelled = wait_for(lambda: (now := queue.job(1)).state == State.CANCELLED and now)
        assert cancelled.ended and journal_of(studio / "hello.mp4").is_dir() and not (studio / "hello.mp4").exists()
        queue.retry(1)
        wait_for(lambda: queue.job(1).state == State.DONE)
    assert pictures(studio / "hello.mp4") == expected
    starts = begun_at(1, queue)
    assert starts[0] == 0 and starts[1] > 40 - SEGMENT - 1 and starts[2] > 80 - SEGMENT - 1, starts
    assert queue.expected(render("other.mp4")) == pytest.approx(queue.job(1).spent)


@pytest.mark.slow
def test_a_failure_is_one_sentence_and_followers_go_on_after_a_retry(queue, studio):
    queue.add(Work("edit", {"take": "hello.take"}, "turned.take", {"edits": YAW}))
    queue.add(Work("edit", {"take": "turned.take"}, "again.take", {"edits": YAW}))
    (studio / "me.avatar").rename(studio / "away")
    with worker(queue) as told:
        failed = wait_for(lambda: (now := queue.job(1)).state == State.FAILED and now)
        assert "me.avatar" in failed.error and "\n" not in failed.error and "should not happen" not in failed.error
        assert "Traceback" in queue.log(1).text and failed.error in queue.log(1).text
        assert queue.job(2).waits_for.startswith("waits for job 1, which failed")
        (studio / "away").rename(studio / "me.avatar")
        queue.retry(1)
        wait_for(lambda: queue.job(2).state == State.RUNNING)
    assert (queue.job(1).state, queue.job(1).error, queue.job(2).state) == (State.DONE, "", State.WAITING)
    assert [words for job, words in told if job == 1] == ["running", f"failed: {failed.error}", "running", "done"]


@pytest.mark.slow
def test_two_workers_share_the_jobs_and_keep_to_one_at_a_time(queue, studio):
    for n in range(2):
        queue.add(Work("edit", {"take": "hello.take"}, f"{n}.take", {"edits": YAW}))
    most = 0
    with worker(queue), worker(queue):
        assert len(wait_for(lambda: len(found := queue.workers()) == 2 and found)) == 2
        while any(job.state != State.DONE for job in queue.jobs()):
            most = max(most, len(queue.jobs(State.RUNNING)))
            time.sleep(0.02)
    assert most == 1 and [job.tries for job in queue.jobs()] == [1, 1]


@pytest.mark.slow
def test_a_result_that_a_command_writes_at_this_moment_is_waited_for(queue, studio):
    queue.add(Work("edit", {"take": "hello.take"}, "turned.take", {"edits": YAW}))
    with worker(queue):
        with lock(studio / "turned.take"):
            waits = wait_for(lambda: queue.job(1).waits_for)
        assert "is being written by another process" in waits
        wait_for(lambda: queue.job(1).state == State.DONE)
    assert "Traceback" not in queue.log(1).text


def go_on(queue):
    """Retry the job if it was killed three times before it had begun."""
    if (now := queue.job(1)).state == State.FAILED:
        assert "3 times at one place" in now.error
        return queue.retry(1)
    return now


@proc
@pytest.mark.slow
def test_many_kills_at_random_moments_lose_nothing(queue, studio, expected, start, slow_jobs):
    queue.add(render())
    draw, process, kills = random.Random(1), start(), 0
    while queue.job(1).state != State.DONE and kills < 20:
        time.sleep(draw.uniform(0.1, 8.0))
        if draw.random() < 0.7:
            for child in children_of(process.pid):
                os.kill(child, signal.SIGKILL)
        else:
            process.kill()
            process.wait()
            process = start()
        kills += 1
        go_on(queue)
    wait_for(lambda: go_on(queue).state == State.DONE)
    process.kill()
    process.wait()
    assert kills >= 3, "too few to mean something"
    assert pictures(studio / "hello.mp4") == expected
    starts = begun_at(1, queue)
    assert starts == sorted(starts), starts  # every run began where the one before had stored


@proc
def test_a_job_whose_process_dies_at_once_fails_after_three_tries(queue, studio, slow_jobs):
    queue.add(render())
    with worker(queue):
        for number in range(1, 4):
            wait_for(lambda: queue.job(1).tries == number)  # noqa: B023
            (child,) = wait_for(lambda: children_of(os.getpid()))
            os.kill(child, signal.SIGKILL)
            wait_for(lambda: gone(child))  # noqa: B023
        failed = wait_for(lambda: (now := queue.job(1)).state == State.FAILED and now)
    assert failed.error.startswith("its process ended unexpectedly (signal SIGKILL), 3 times at one place")


@pytest.fixture
def disk(tmp_path):
    """A small file system."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here ({done.stderr.strip()})")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
def test_a_full_disk_fails_a_job_in_one_sentence_and_a_retry_goes_on(disk, template, expected):
    studio = shutil.copytree(template, disk / "studio")
    with Queue(studio) as queue:
        queue.add(render())
        with worker(queue):
            drawing(queue, 1, 40, tries=1)
            with open(disk / "ballast", "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
                while True:
                    file.write(bytes(4096))
            time.sleep(3)
            (disk / "ballast").unlink()
            failed = wait_for(lambda: (now := queue.job(1)).state in (State.FAILED, State.DONE) and now)
            assert failed.state == State.FAILED and "space" in failed.error and "\n" not in failed.error
            queue.retry(1)
            wait_for(lambda: queue.job(1).state == State.DONE)
        assert begun_at(1, queue)[-1] > 40 - SEGMENT - 1
    assert pictures(studio / "hello.mp4") == expected


RECIPE = """
[scan]
frames = 12
size = 64
embed_size = 64
[invert]
blind_steps = 3
[personalize]
steps = 12
check_every = 2
patience = 0
batch = 2
resolution = 0
width = 0
[regress]
samples = 16
rank = 8
steps = 20
[reenact]
window = 4
steps = 1
batch = 4
"""


@pytest.mark.slow
def test_every_kind_of_job_in_one_chain(tmp_path):
    """Real stages on 16 frames of the demo, each waiting for the one before; then again, with nothing to do."""
    for source, name, every, count in (("scan", "me.mp4", 10, 16), ("driver", "driver.mp4", 3, 8)):
        timed = list(islice(video.read(FOLDER / f"{source}.mp4"), 0, every * count, every))
        video.write(tmp_path / name, [frame for _, frame in timed], [second for second, _ in timed])
    (tmp_path / "tiny.toml").write_text(RECIPE)
    torch.manual_seed(0)
    generator = Generator(32, z_dim=16, w_dim=16, mapping_layers=2, channel_base=512, channel_max=32)
    save_generator(generator.eval(), tmp_path / "tiny.safetensors")
    how = {"recipe": "tiny.toml"}  # relative to the studio folder
    works = [
        Work("scan", {"video": "me.mp4"}, "me.scan", {"consent": "Ada", "fictional": True, **how}),
        Work("personalize", {"scan": "me.scan"}, "me.avatar", {"base": "tiny.safetensors", **how}),
        Work(
            "reenact", {"avatar": "me.avatar", "video": "driver.mp4"}, "hello.take", {"start": 0.0, "end": 9.0, **how}
        ),
        Work("edit", {"take": "hello.take"}, "turned.take", {"edits": YAW}),
        Work("render", {"take": "turned.take"}, "clips/turned.mp4", {"view": "side-by-side"}),
        Work("evaluate", {"take": "turned.take"}, "report", {"same_person": True}),
    ]
    with Queue(tmp_path) as queue, worker(queue):
        for work in works:
            queue.add(work)
        wait_for(lambda: all(job.state in ENDED for job in queue.jobs()) or queue.jobs(State.FAILED), 500)
        assert [(job.state, job.error) for job in queue.jobs()] == [(State.DONE, "")] * len(works)
        assert queue.job(2).preview and queue.job(2).preview.read_bytes()[1:4] == b"PNG"
        assert (tmp_path / "report" / "report.html").exists() and len(pictures(tmp_path / "clips" / "turned.mp4"))
        assert all(queue.expected(work) == pytest.approx(queue.job(n + 1).spent) for n, work in enumerate(works))
        for work in works:
            again = queue.add(work)
        done = wait_for(lambda: (now := queue.job(again.id)).state in ENDED and now, 500)
        assert done.state == State.DONE and queue.expected(works[1]) == pytest.approx(queue.job(2).spent)


def test_a_worker_in_the_background_outlives_its_starter_and_is_started_once(queue, studio):
    queue.add(Work("edit", {"take": "hello.take"}, "turned.take", {"edits": YAW}))
    code = (
        "import sys; from pathlib import Path; from mystudio.jobs import start_worker\n"
        "start_worker(Path(sys.argv[1]), 2.0)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, studio], check=True, timeout=60)
    wait_for(lambda: queue.workers())
    assert start_worker(studio) is None
    wait_for(lambda: queue.job(1).state == State.DONE)
    wait_for(lambda: queue.workers() == [])
    assert "job 1 (edit) done" in (studio / "jobs" / "worker.log").read_text()


def test_jobs_run_ends_when_nothing_is_left_and_tells_what_is(queue, studio):
    queue.add(Work("edit", {"take": "hello.take"}, "turned.take", {"edits": [{"name": "wings"}]}))
    queue.add(Work("edit", {"take": "turned.take"}, "again.take", {"edits": YAW}))
    words = ["jobs", "run", "--studio", studio, "--json"]
    done = subprocess.run([sys.executable, "-m", "mystudio", *words], capture_output=True, text=True, timeout=120)
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and told["ran"] == [{"job": 1, "kind": "edit", "state": "failed"}]
    assert [job["state"] for job in told["left"]] == ["failed", "waiting"] and "wings" in told["left"][0]["error"]
