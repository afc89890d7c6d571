"""What workers do with the queue, without children: claims, ends, taking over, time left."""

import multiprocessing
import os
import signal
import time

import pytest

from mystudio.jobs import Queue, State, Work, estimate
from mystudio.jobs.estimate import Speed
from mystudio.jobs.launch import lives
from mystudio.jobs.place import worker_file
from mystudio.jobs.running import newest_picture
from mystudio.jobs.runs import CRASHES, NotOurs, Runs
from mystudio.jobs.store import Store


@pytest.fixture
def queue(tmp_path):
    (tmp_path / "me.mp4").write_bytes(b"a clip")
    with Queue(tmp_path) as opened:
        yield opened


@pytest.fixture
def runs(queue):
    store = Store(queue.studio)
    yield Runs(store)
    store.close()


def scan(out="me.scan", **options):
    return Work("scan", {"video": "me.mp4"}, out, {"consent": "Ada", **options})


def report(stage, done, total, left=None):
    return {"stage": stage, "done": done, "total": total, "left": left}


def test_one_heavy_job_at_a_time_and_light_ones_beside_it(queue, runs):
    for out, light in (("a", False), ("b", False), ("c", True)):
        queue.add(scan(out), light=light)
    assert [runs.claim(False, 1).id, runs.claim(False, 1), runs.claim(True, 1).id] == [1, None, 3]
    assert runs.claim(False, 2).id == 2


def test_two_jobs_never_write_one_result_at_once_and_followers_wait(queue, runs):
    queue.add(scan())
    queue.add(scan())
    queue.add(Work("personalize", {"scan": "me.scan"}, "me.avatar"))
    first = runs.claim(False, 9)
    assert first.id == 1 and runs.claim(False, 9) is None
    assert runs.end(first, "done", "", {}) == State.DONE
    second = runs.claim(False, 9)
    assert second.id == 2 and runs.claim(False, 9) is None
    runs.end(second, "same", "", {})
    assert runs.claim(False, 9).id == 3


def test_many_claims_at_once_give_every_job_once(queue):
    for n in range(12):
        queue.add(scan(f"{n}.scan"))
    running = [multiprocessing.get_context("fork").Process(target=claim_all, args=(queue.studio,)) for _ in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    assert [job.tries for job in queue.jobs()] == [1] * 12


def claim_all(studio):
    runs = Runs(Store(studio))
    while runs.claim(False, 12):
        pass


@pytest.mark.parametrize(
    ("asked", "how", "state"),
    [
        (None, "done", State.DONE),
        ("pause", "done", State.DONE),  # it was faster
        (None, "stopped", State.WAITING),
        ("pause", "stopped", State.PAUSED),
        ("cancel", "stopped", State.CANCELLED),
        ("cancel", "crashed", State.CANCELLED),
        ("pause", "busy", State.PAUSED),
        ("cancel", "failed", State.FAILED),
        (None, "busy", State.WAITING),
    ],
)
def test_the_state_after_a_run(queue, runs, asked, how, state):
    queue.add(scan())
    job = runs.claim(False, 1)
    if asked:
        getattr(queue, asked)(1)
    assert runs.end(job, how, "words", {}) == state
    now = queue.job(1)
    assert (now.state, now.asked, now.worker) == (state, None, "")
    assert now.error == ("words" if how == "failed" else "")
    assert now.waits_for == ("words" if how == "busy" and state == State.WAITING else "")
    assert (now.ended is not None) == (state in (State.DONE, State.FAILED, State.CANCELLED))


def test_a_result_that_another_process_writes_is_tried_again_later(queue, runs, monkeypatch):
    queue.add(scan())
    runs.end(runs.claim(False, 1), "busy", "me.scan is being written by another process", {})
    assert runs.claim(False, 1) is None and runs.left_to_do()
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert runs.claim(False, 1).id == 1 and queue.job(1).waits_for == ""


def test_a_job_that_crashes_again_and_again_fails_and_a_retry_starts_anew(queue, runs, monkeypatch):
    queue.add(scan())
    now = time.time()
    for crash in range(1, CRASHES + 1):
        monkeypatch.setattr(time, "time", lambda: now + 60 * crash)  # noqa: B023
        state = runs.end(runs.claim(False, 1), "crashed", "its process ended unexpectedly (signal SIGKILL)", {})
        assert state == (State.FAILED if crash == CRASHES else State.WAITING)
    error = queue.job(1).error
    assert "signal SIGKILL" in error and "3 times at one place" in error and "\n" not in error
    queue.retry(1)
    assert runs.end(runs.claim(False, 1), "crashed", "", {}) == State.WAITING


def test_crashes_of_a_job_that_gets_further_do_not_add_up(queue, runs, monkeypatch):
    queue.add(scan())
    now = time.time()
    places = [("track", 40), ("track", 90), ("quality", 10), ("quality", 60), ("quality", 20), ("track", 99)]
    states = []
    for number, (stage, done) in enumerate(places):
        monkeypatch.setattr(time, "time", lambda: now + 60 * number)  # noqa: B023
        job = runs.claim(False, 1)
        runs.progress(job, report(stage, done, 100), {stage: (100, 1.0)})
        states.append(runs.end(job, "crashed", "its process ended unexpectedly (signal SIGKILL)", {}))
    assert states == [State.WAITING] * 5 + [State.FAILED]


def test_left_to_do_counts_nothing_behind_a_job_that_does_not_go_on(queue, runs):
    assert not runs.left_to_do()
    queue.add(scan())
    queue.add(Work("personalize", {"scan": "me.scan"}, "me.avatar"))
    queue.add(Work("reenact", {"avatar": "me.avatar", "video": "me.mp4"}, "hello.take"))
    assert runs.left_to_do()
    runs.end(runs.claim(False, 1), "failed", "no face", {})
    assert not runs.left_to_do()
    queue.retry(1)
    assert runs.left_to_do()


# Workers that die


def test_a_killed_worker_s_jobs_wait_again_and_do_what_they_were_asked(queue, runs):
    for out in "abc":
        queue.add(scan(out))
    started = multiprocessing.get_context("fork").Event()
    process = multiprocessing.get_context("fork").Process(target=work_and_hang, args=(queue.studio, started))
    process.start()
    assert started.wait(30)
    queue.pause(2)
    queue.cancel(3)
    assert runs.take_over() == []  # it lives
    assert [job.state for job in queue.jobs()] == ["running"] * 3 and len(queue.workers()) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not lives(queue.studio, queue.workers()[0].token)
    assert runs.take_over() == [1, 2, 3]
    assert [job.state for job in queue.jobs()] == [State.WAITING, State.PAUSED, State.CANCELLED]
    assert queue.job(1).waits_for == "its worker ended unexpectedly; it goes on"
    assert queue.workers() == [] and os.listdir(worker_file(queue.studio, "x").parent) == []
    assert runs.claim(False, 1).id == 1


def work_and_hang(studio, started):
    runs = Runs(Store(studio))
    with runs.working():
        while runs.claim(False, 3):
            pass
        started.set()
        time.sleep(60)


def test_a_worker_stores_nothing_about_a_job_that_was_taken_from_it(queue, runs):
    queue.add(scan())
    job = runs.claim(False, 1)
    with runs.store.writing() as db:
        db.execute("UPDATE job SET worker = 'another'")
    for call in (
        lambda: runs.progress(job, report("track", 1, 2), {}),
        lambda: runs.end(job, "done", "", {}),
        lambda: runs.asked(job),
        lambda: runs.previewed(job),
    ):
        with pytest.raises(NotOurs):
            call()
    assert (queue.job(1).state, queue.job(1).stage) == (State.RUNNING, "")


def test_a_file_that_was_moved_away_is_noticed_by_who_has_it_open(queue, runs):
    queue.add(scan())
    job = runs.claim(False, 1)
    for name in ("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"):
        (queue.studio / "jobs" / name).rename(queue.studio / name)
    assert queue.jobs() == [] and queue.add(scan()).id == 1
    with pytest.raises(NotOurs):
        runs.asked(job)


def test_a_worker_is_listed_while_it_lives(queue, runs):
    with runs.working():
        (worker,) = queue.workers()
        assert worker.process == os.getpid() and lives(queue.studio, worker.token)
        runs.beat()
        assert queue.workers()[0].beat >= worker.beat
    assert queue.workers() == []


# Time left


def test_time_left_is_not_known_before_a_job_has_ended_and_then_comes_from_its_parts(queue, runs):
    queue.add(scan("a"))
    assert queue.job(1).left is None and queue.expected(scan()) is None
    job = runs.claim(False, 1)
    runs.progress(job, report("track", 10, 100, 9.0), {"track": (100, 1.0)})
    assert (queue.job(1).left, queue.job(1).stage_left) == (None, 9.0)
    runs.progress(job, report("quality", 50, 50), {"track": (100, 9.0), "quality": (50, 5.0)})
    runs.end(job, "done", "", {"images": (50, 20.0)})
    assert queue.job(1).spent == 35.0 and queue.expected(scan("b")) == 35.0
    assert queue.expected(scan("b", recipe="quick")) is None  # settings that were never run

    queue.add(scan("b"))
    assert queue.job(2).left == 35.0
    job = runs.claim(False, 1)
    runs.progress(job, report("track", 100, 200), {})  # of a clip that is twice as long, before its own speed is known
    assert queue.job(2).stage_left == pytest.approx(10.0) and queue.job(2).left == pytest.approx(10.0 + 2 * 25)
    runs.progress(job, report("track", 100, 200, 30.0), {})
    assert queue.job(2).left == pytest.approx(30.0 + 2 * 25)
    runs.progress(job, report("images", 50, 100, 15.0), {})
    assert queue.job(2).left == 15.0


def test_a_result_that_was_up_to_date_does_not_count_and_times_outlive_their_jobs(queue, runs):
    for seconds, how in ((30.0, "done"), (0.1, "same"), (10.0, "done"), (20.0, "done")):
        queue.add(scan())
        runs.end(runs.claim(False, 1), how, "", {"track": (10, seconds)})
    assert queue.expected(scan()) == 20.0
    for job in queue.jobs():
        queue.remove(job.id)
    assert queue.expected(scan()) == 20.0


def test_only_the_newest_times_are_kept(queue, runs, monkeypatch):
    monkeypatch.setattr(estimate, "KEPT", 2)
    for seconds in (1.0, 2.0, 3.0):
        queue.add(scan())
        runs.end(runs.claim(False, 1), "done", "", {"track": (10, seconds)})
    with runs.store.reading() as db:
        assert [row["seconds"] for row in db.execute("SELECT seconds FROM pace")] == [2.0, 3.0]


def test_what_was_loaded_from_checkpoints_soon_does_not_count_as_speed():
    speed = Speed(0.0)
    assert speed.left(0.01, 32, 1000) is None
    assert speed.left(0.1, 500, 1000) is None  # loaded
    left = [speed.left(float(second), 500 + second, 1000) for second in range(1, 60)]
    assert left[0] is None and left[-1] == pytest.approx(1000 - 559, rel=0.01)
    assert speed.left(61.0, 1000, 1000) == 0.0


def test_a_steady_speed_gives_the_time_left():
    speed = Speed(0.0)
    left = [speed.left(0.5 * n, n, 100) for n in range(1, 51)]
    assert left[3] is None and left[10] == pytest.approx(89 * 0.5) and left[-1] == pytest.approx(25.0)
    assert Speed(0.0).left(5.0, 3, 0) is None  # no end is known


# Previews


def test_the_newest_picture_is_given_once(tmp_path):
    assert newest_picture(tmp_path / "gone", 0) == (None, 0)
    for name, when in (("old.png", 1), ("new.png", 3), ("tune.npz", 9)):
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, ns=(when, when))
    assert newest_picture(tmp_path, 0) == (b"new.png", 3)
    assert newest_picture(tmp_path, 3) == (None, 3)
