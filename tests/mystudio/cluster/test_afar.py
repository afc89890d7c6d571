"""Jobs on other machines, with the real queue, worker and children: equal results, losses, poison, cancelling."""

import json
import re
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mystudio import api
from mystudio.cluster import parcel
from mystudio.cluster.afar import Lost
from mystudio.cluster.unit import Unit
from mystudio.errors import BadArtifact, BadJob
from mystudio.jobs import ENDED, State, Work
from mystudio.jobs.worker import Worker
from mystudio.recipe import resolve
from mystudio.storage.content import Content
from mystudio.storage.journal import journal_of
from mystudio.storage.products import sidecar_of
from selfscan.io import video
from tests.mystudio.cluster.conftest import Nodes
from tests.mystudio.jobs.conftest import FRAMES, render, wait_for


@contextmanager
def worker(queue, nodes, **how):
    """Run a worker in a thread; at the end it must have stopped by itself."""
    stop, errors = threading.Event(), []

    def work():
        try:
            Worker(queue.studio, lambda job, words: None, runner=nodes, **how).run(stop, idle=60)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(120)
    assert not thread.is_alive() and errors == []


def ended(queue, job: int, seconds: float = 300):
    return wait_for(lambda: (now := queue.job(job)).state in ENDED and now, seconds)


def pictures(path) -> bytes:
    return np.stack([frame for _, frame in video.read(path)]).tobytes()


def here(studio, work) -> bytes:
    """The pictures of the same render in this process."""
    recipe = resolve("default", [*work.options["options"], 'render.view="side-by-side"'])
    return pictures(api.render(studio / "hello.take", studio / work.out, recipe=recipe, device="cpu"))


def test_a_lost_node_costs_no_more_than_its_last_seconds_and_the_result_is_equal(queue, nodes, slow_jobs, monkeypatch):
    job = queue.add(render()).id
    with worker(queue, nodes):
        journal = journal_of(queue.job(job).out)
        wait_for(lambda: len(list(journal.glob("segment*.npz"))) >= 2 and queue.job(job).done > 24, 300)
        nodes.units[0].lose()
        wait_for(lambda: queue.job(job).tries == 2 or queue.job(job).state in ENDED, 60)
        monkeypatch.delenv("PYTHONPATH")  # the rest at full speed
        done = ended(queue, job)
    assert (done.state, done.tries) == (State.DONE, 2), queue.log(job).text
    begun = [int(number) for number in re.findall(rf"render (\d+)/{FRAMES}", queue.log(job).text)]
    assert begun[0] == 0 and begun[1] >= 24 and begun[1] % 12 == 0  # whole segments that came back count
    assert not journal.exists() and sidecar_of(done.out).exists()
    assert pictures(done.out) == here(queue.studio, render("here.mp4"))
    assert not list((nodes.content._cache.parent / "node").glob("unit-*"))  # mirrors are removed
    again = queue.add(render()).id
    with worker(queue, nodes):
        assert ended(queue, again).state == State.DONE
    assert "render 0" not in queue.log(again).text  # it was up to date


def test_a_render_in_shares_goes_through_the_queue_and_is_equal(queue, nodes):
    nodes.shares = 2
    job = queue.add(render()).id
    with worker(queue, nodes):
        done = ended(queue, job, 600)
    assert (done.state, done.tries, len(nodes.units)) == (State.DONE, 1, 3), queue.log(job).text
    begun = sorted(int(number) for number in re.findall(r"render (\d+)/", queue.log(job).text))
    assert len(begun) == 2 and begun[0] == 0 and 100 < begun[1] < 200  # two halves; the whole job only joins them
    assert pictures(done.out) == here(queue.studio, render("here.mp4"))


def test_poison_fails_alone_after_three_tries_and_says_why(queue, nodes, monkeypatch):
    monkeypatch.setattr("mystudio.jobs.runs.AGAIN", 0.1)
    place = nodes.place

    def poisoned(kind, request):
        if kind == "render":
            raise Lost("its node was lost (out of memory)")
        return place(kind, request)

    nodes.place = poisoned
    poison = queue.add(render()).id
    good = queue.add(
        Work("edit", {"take": "hello.take"}, "turned.take", {"edits": [{"name": "yaw", "strength": 1.0}]})
    ).id
    with worker(queue, nodes):
        failed, done = ended(queue, poison), ended(queue, good)
    assert (failed.state, failed.tries, done.state) == (State.FAILED, 3, State.DONE)
    assert failed.error.startswith("its node was lost (out of memory), 3 times at one place")


def test_a_cancelled_job_keeps_its_journal_and_goes_on_on_this_machine(queue, nodes, slow_jobs, monkeypatch):
    job = queue.add(render()).id
    journal = journal_of(queue.job(job).out)
    with worker(queue, nodes):
        wait_for(lambda: list(journal.glob("segment*.npz")), 300)
        queue.cancel(job)
        now = ended(queue, job, 60)
    assert now.state == State.CANCELLED and "stopped" in queue.log(job).text and list(journal.glob("segment*.npz"))
    monkeypatch.delenv("PYTHONPATH")
    queue.retry(job)
    Worker(queue.studio, lambda job, words: None).run(threading.Event())
    begun = [int(number) for number in re.findall(rf"render (\d+)/{FRAMES}", queue.log(job).text)]
    assert queue.job(job).state == State.DONE and begun[-1] > 0


def test_a_store_of_fsspec_and_a_node_without_space(queue, tmp_path, monkeypatch):
    monkeypatch.setattr("mystudio.jobs.runs.AGAIN", 0.1)
    (tmp_path / "full").write_bytes(b"")  # a file where the node's folder should be
    monkeypatch.setenv("MYSTUDIO_NODE", str(tmp_path / "full"))
    nodes = Nodes("memory://studio", tmp_path / "cache")
    edit = Work("edit", {"take": "hello.take"}, "turned.take", {"edits": [{"name": "yaw", "strength": 1.0}]})
    job = queue.add(edit).id
    with worker(queue, nodes):
        wait_for(lambda: queue.job(job).tries == 2, 60)
        monkeypatch.setenv("MYSTUDIO_NODE", str(tmp_path / "node"))  # another node takes it
        done = ended(queue, job)
    assert (done.state, done.error) == (State.DONE, "") and (done.out / "manifest.json").exists()


def test_requests_that_no_node_takes(studio, tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_NODE", str(tmp_path / "node"))
    store = Content(str(tmp_path / "store"), tmp_path / "cache")
    from mystudio import __version__

    def told(**changes):
        request = {"version": __version__, "store": str(tmp_path / "store"), "files": {}, "kind": "edit", "inputs": {},
                   "out": str(studio / "x.take"), "options": {}, "try": 1}  # fmt: skip
        unit = Unit(json.dumps(request | changes))
        unit._thread.join(60)
        return json.loads(unit.poll()[0])["end"]

    assert told(version="0.0") == ["failed", f"a node runs mystudio {__version__}, the queue's machine 0.0; install "
                                   "the same version on all of them"]  # fmt: skip
    (tmp_path / "file").write_bytes(b"content")
    sha, size = store.put(tmp_path / "file")
    how, error = told(files={"../../outside": [sha, size]})
    assert how == "failed" and "expected a path in the mirror" in error and not (tmp_path / "outside").exists()
    how, error = told(files={"a": ["../" * 5 + "etc", 3]})
    assert how == "failed" and "expected the sha256" in error


def test_what_stays_on_this_machine(studio, tmp_path):
    store = Content(str(tmp_path / "store"), tmp_path / "cache")
    work = render("out.mp4", 'provenance.sign_key="/home/ada/key.pem"')
    whole = Work(work.kind, {"take": studio / "hello.take"}, studio / "out.mp4", work.options)
    with pytest.raises(BadJob, match="a signing key does not leave this machine"):
        parcel.packed(whole, store)
    free = Work("render", whole.inputs, whole.out, render().options)
    names = {Path("/", name).relative_to(studio).parts[0] for name in parcel.packed(free, store)}
    assert names == {"hello.take", "me.avatar", "driver.performance", "driver.mp4"}
    (studio / "driver.mp4").write_bytes(b"another clip")
    with pytest.raises(BadArtifact, match="has changed since"):
        parcel.packed(free, store)
