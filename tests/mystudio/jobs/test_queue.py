"""The queue: adding, order, states, dependencies, changes, several processes, older and damaged files."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mystudio.errors import BadJob, BadQueue, OutputFailed
from mystudio.jobs import ENDED, Queue, State, Work, schema, studio_folder
from mystudio.jobs.place import queue_file, stored

SCAN = Work("scan", {"video": "me.mp4"}, "me.scan", {"consent": "Ada Example"})
AVATAR = Work("personalize", {"scan": "me.scan"}, "me.avatar", {"recipe": "quick"})
TAKE = Work("reenact", {"avatar": "me.avatar", "video": "me.mp4"}, "hello.take")


@pytest.fixture
def studio(tmp_path):
    (tmp_path / "me.mp4").write_bytes(b"a clip")
    return tmp_path


@pytest.fixture
def queue(studio):
    with Queue(studio) as opened:
        yield opened


def test_jobs_outlive_the_process_and_wait_for_the_jobs_that_make_their_inputs(studio):
    with Queue(studio) as queue:
        added = [queue.add(work, title=work.kind) for work in (SCAN, AVATAR, TAKE)]
    with Queue(studio) as queue:
        assert queue.jobs() == added
        assert [job.after for job in added] == [(), (1,), (2,)]
        assert [job.waits_for for job in added] == ["", "waits for job 1", "waits for job 2"]
        assert queue.job(2).work.inputs == {"scan": str(studio / "me.scan")}
        assert queue.job(2).work.options == {"recipe": "quick"}
        assert queue.job(1).left is None  # no job has ended on this machine


def test_a_moved_studio_keeps_its_jobs(studio, queue):
    outside = studio.parent / "clip.mp4"
    outside.write_bytes(b"")
    queue.add(SCAN)
    queue.add(Work("scan", {"video": outside}, "other.scan", {"consent": "Ada"}))
    queue.close()
    moved = studio.rename(studio.with_name("moved"))
    with Queue(moved) as again:
        assert [job.work.inputs["video"] for job in again.jobs()] == [str(moved / "me.mp4"), str(outside)]
        assert again.job(1).out == moved / "me.scan"


def test_a_slash_at_the_end_of_a_result_stays(studio, queue):
    (studio / "hello.take").mkdir()
    assert queue.add(Work("render", {"take": "hello.take"}, "pictures/")).work.out == f"{studio}/pictures/"
    assert stored(studio, studio / "a" / "..") == "."


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (Work("dance", {}, "x"), "kind of a job: expected one of scan, personalize"),
        (Work("scan", {}, "x", {"consent": "Ada"}), "input of scan: expected video, got none"),
        (Work("scan", {"video": "me.mp4"}, "x"), "option of scan: expected consent, got none"),
        (Work("scan", {"video": "gone.mp4"}, "x", {"consent": "Ada"}), "gone.mp4: expected the video of scan, found"),
        (Work("scan", {"video": "me.mp4", "take": "x"}, "x", {"consent": "Ada"}), "input of scan: expected video, con"),
        (Work("scan", {"video": "me.mp4"}, "x", {"consent": "Ada", "depth": 3}), "got 'depth'"),
        (Work("scan", {"video": "me.mp4"}, "x", {"consent": 3}), "option consent of scan: expected str, got 3"),
        (Work("scan", {"video": "me.mp4"}, "x", {"consent": "Ada", "start": True}), "expected int or float, got True"),
        (Work("scan", {"video": "me.mp4"}, "x", {"consent": "Ada", "start": float("nan")}), "expected JSON values"),
    ],
)
def test_a_job_that_cannot_run_is_refused_in_one_sentence(work, words, queue):
    with pytest.raises(BadJob) as told:
        queue.add(work)
    assert words in str(told.value) and "\n" not in str(told.value)
    assert queue.jobs() == [] and queue.changes(0).number == 0


def test_an_unknown_job_is_told(queue):
    for call in (queue.job, queue.cancel, queue.pause, queue.resume, queue.retry, queue.move, queue.remove, queue.log):
        with pytest.raises(BadJob, match="there is no job 7"):
            call(7)
    with pytest.raises(BadJob, match="there is no job 7"):
        queue.add(SCAN, after=[7])
    assert queue.jobs() == []


def test_states_of_a_job_that_does_not_run(queue):
    queue.add(SCAN)
    assert queue.pause(1).state == queue.pause(1).state == State.PAUSED
    assert queue.resume(1).state == queue.resume(1).state == State.WAITING
    ended = queue.cancel(1)
    assert ended.state == queue.cancel(1).state == State.CANCELLED and ended.ended is not None
    for call in (queue.pause, queue.resume):
        with pytest.raises(BadJob, match="job 1 is cancelled, expected one that is"):
            call(1)
    assert queue.retry(1).state == State.WAITING and queue.job(1).ended is None


def test_a_running_job_is_asked_and_cancelling_wins(queue):
    queue.add(SCAN)
    edit(queue, "UPDATE job SET state = 'running'")
    assert queue.pause(1).asked == State.PAUSED
    assert queue.resume(1).asked is None
    assert [queue.pause(1).asked, queue.cancel(1).asked] == [State.PAUSED, State.CANCELLED]
    with pytest.raises(BadJob, match="job 1 is running"):
        queue.pause(1)
    assert queue.retry(1).asked is None and queue.job(1).state == State.RUNNING


def edit(queue, statement):
    with queue._store.writing() as db:
        db.execute(statement)


@pytest.mark.parametrize("state", ["failed", "cancelled", "paused"])
def test_what_a_follower_waits_for_is_said_and_announced(queue, state):
    queue.add(SCAN)
    queue.add(AVATAR)
    edit(queue, f"UPDATE job SET state = '{'failed' if state == 'failed' else 'waiting'}' WHERE id = 1")
    number = queue.changes(0).number
    if state == "failed":
        assert "which failed; retry that one, and this one follows" in queue.job(2).waits_for
        queue.retry(1)
    else:
        (queue.cancel if state == "cancelled" else queue.pause)(1)
        assert state in queue.job(2).waits_for and "this one follows" in queue.job(2).waits_for
    assert [job.id for job in queue.changes(number).jobs] == [1, 2]


def test_order(queue):
    for _ in range(4):
        queue.add(SCAN)
    assert ids(queue) == [1, 2, 3, 4]
    queue.move(4, before=1)
    queue.move(1)
    queue.move(2, before=2)
    assert ids(queue) == [4, 2, 3, 1]
    for _ in range(60):  # until places would no longer differ
        queue.move(3, before=2)
        queue.move(2, before=3)
    assert ids(queue) == [4, 2, 3, 1]
    queue.add(SCAN, first=True)
    assert ids(queue) == [5, 4, 2, 3, 1]


def ids(queue):
    return [job.id for job in queue.jobs()]


def test_only_ended_jobs_that_nobody_needs_are_removed(studio, queue):
    queue.add(SCAN)
    queue.add(AVATAR)
    with pytest.raises(BadJob, match="job 1 is waiting, expected one that has ended; cancel it first"):
        queue.remove(1)
    log = queue.cancel(1).log
    with pytest.raises(BadJob, match="job 2 waits for job 1"):
        queue.remove(1)
    queue.cancel(2)
    log.parent.mkdir()
    log.write_text("words about Ada")
    number = queue.changes(0).number
    queue.remove(1)
    changes = queue.changes(number)
    assert changes.removed == (1,) and ids(queue) == [2] and not log.exists()
    assert queue.add(SCAN).id == 3  # numbers are not used again


def test_changes_tell_each_change_once(queue):
    assert queue.changes(0).number == 0
    queue.add(SCAN)
    first = queue.changes(0)
    assert [job.id for job in first.jobs] == [1]
    assert queue.changes(first.number) == type(first)(first.number, (), ())
    queue.add(SCAN)
    queue.pause(1)
    second = queue.changes(first.number)
    assert second.number > first.number and {job.id: job.state for job in second.jobs} == {1: "paused", 2: "waiting"}
    assert all(first.number < job.change <= second.number for job in second.jobs)


def test_a_log_is_read_in_pieces(queue):
    log = queue.add(SCAN).log
    assert queue.log(1).text == ""
    log.parent.mkdir()
    log.write_text("one\n")
    first = queue.log(1)
    log.write_text("one\ntwo ä\n")
    assert (first.text, queue.log(1, first.end).text) == ("one\n", "two ä\n")
    assert queue.log(1, -3).text == "ä\n" and queue.log(1, 999).text == ""


def test_two_threads_and_two_processes_add_at_once_and_nothing_is_lost(studio, queue):
    code = (
        "import sys; from mystudio.jobs import Queue, Work\n"
        "with Queue(sys.argv[1]) as queue:\n"
        "    for n in range(25):\n"
        "        queue.add(Work('scan', {'video': 'me.mp4'}, f'{sys.argv[2]}{n}.scan', {'consent': 'Ada'}))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, studio, name]) for name in "ab"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: queue.add(SCAN), range(20)))
    assert [process.wait(60) for process in running] == [0, 0]
    assert sorted(ids(queue)) == list(range(1, 71))
    assert len({job.change for job in queue.jobs()}) == 70 == queue.changes(0).number


def test_two_processes_make_the_file_at_once(studio):
    code = "import sys; from mystudio.jobs import Queue; Queue(sys.argv[1]).close()"
    running = [subprocess.Popen([sys.executable, "-c", code, studio]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4


# The file


def test_a_damaged_file_is_told_and_left_as_it_is(studio):
    with Queue(studio) as queue:
        for _ in range(20):
            queue.add(SCAN)
    file = queue_file(studio)
    whole = file.read_bytes()
    for damaged in (b"not SQLite at all" * 300, whole[:100] + bytes(20_000) + whole[20_100:], whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(BadQueue) as told, Queue(studio) as queue:
            queue.jobs()
        assert str(file) in str(told.value) and "nothing that was computed is lost" in str(told.value)
        assert file.read_bytes() == damaged
    file.rename(file.with_suffix(".damaged"))
    with Queue(studio) as queue:
        assert queue.jobs() == []


def test_another_program_s_file_and_a_newer_version_are_left_as_they_are(studio):
    file = queue_file(studio)
    file.parent.mkdir()
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE songs (name TEXT)")
    db.close()
    with pytest.raises(BadQueue, match="is no queue of mystudio"):
        Queue(studio)
    file.unlink()
    Queue(studio).close()
    with sqlite3.connect(file) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    with pytest.raises(BadQueue, match="update mystudio"):
        Queue(studio)


def test_a_queue_of_the_first_version_opens_with_everything(studio):
    file = queue_file(studio)
    file.parent.mkdir()
    with sqlite3.connect(file) as db:
        db.executescript(Path(__file__).with_name("schema1.sql").read_text())
    db.close()
    with Queue(studio) as queue:
        done, failed = queue.jobs()
        assert (done.state, done.spent, done.work.options) == (State.DONE, 29.5, {"consent": "Ada Example"})
        assert (failed.state, failed.after, failed.title, failed.done) == (State.FAILED, (1,), "for Bob", 300)
        assert failed.error.startswith("memory ran out") and queue.changes(7).removed == (3,)
        assert queue.retry(2).state == State.WAITING and queue.add(SCAN).id == 4
        with queue._store.reading() as db:
            assert db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
            upgraded = columns(db)
    with Queue(studio.parent / "new") as queue, queue._store.reading() as db:
        assert columns(db) == upgraded


def columns(db):
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    return {table: [tuple(row)[1:] for row in db.execute(f"PRAGMA table_info({table})")] for (table,) in tables}


def test_an_upgrade_that_fails_changes_nothing(studio, monkeypatch):
    with Queue(studio) as queue:
        queue.add(SCAN)
    steps = ("ALTER TABLE job ADD COLUMN colour TEXT", "INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, steps))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(BadQueue, match="nowhere"):
        Queue(studio)
    monkeypatch.undo()
    with Queue(studio) as queue:
        assert ids(queue) == [1]
        with queue._store.reading() as db:
            assert "colour" not in str(columns(db))


def test_a_folder_that_cannot_be_made_is_told(studio):
    (studio / "jobs").write_text("in the way")
    with pytest.raises(OutputFailed, match="choose another studio folder"):
        Queue(studio)


def test_the_studio_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MYSTUDIO_STUDIO", raising=False)
    assert studio_folder() == tmp_path / "mystudio"
    monkeypatch.setenv("MYSTUDIO_STUDIO", "~/studio")
    assert studio_folder() == tmp_path / "studio"
    assert studio_folder("~/other") == tmp_path / "other"
    assert set(ENDED) < set(State)
