"""How long training takes is measured before the first one, by a trial in a process beside the server."""

from __future__ import annotations

import time

import pytest
from furnished import furnish

from mystudio.jobs import Queue, Work, estimate
from mystudio.web import trials
from mystudio.web.rooms.train import CHOICES
from mystudio.web.studio import Studio


@pytest.fixture
def studio(tmp_path):
    """As the server with a worker makes it."""
    made = Studio(tmp_path / "studio", trials=True)
    yield made
    made.close()


@pytest.fixture
def ada(studio, tiny_avatar, performance, take):
    return furnish(studio.folder, tiny_avatar, performance, take)


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """Words of the processes that would be started."""
    found: list[list[str]] = []

    class Child:
        def __init__(self, words, **_):
            found.append(words[4:])

        def poll(self):
            return 0

    monkeypatch.setattr(trials.subprocess, "Popen", Child)
    return found


def test_the_room_measures_once_and_says_that_it_is_an_estimate(studio, client, ada, started):
    page = client.get(f"/p/{ada.id}/train").text
    assert page.count("A trial of some seconds measures how long it takes here") == 3
    words = ["jobs", "estimate", str(ada.scan), "--studio", str(studio.folder)]
    assert started == [[*words, "--recipe", "default", "--recipe", "quick"]]
    assert "is not known yet" in client.get(f"/p/{ada.id}/train").text and len(started) == 1  # it failed
    before = studio.queue.changes().number
    studio.queue.keep_forecast(Work("personalize", {}, "", {}), 64, 1500.0)
    studio.queue.keep_forecast(Work("personalize", {}, "", {"recipe": "quick"}), 64, 240.0)
    assert studio.queue.changes(before).number > before  # open pages look again
    page = client.get(f"/p/{ada.id}/train").text
    assert "About 4 min: an estimate, until the first one has run here" in page
    assert "At most about 25 min: an estimate" in page and "About 25 min: an estimate" in page
    assert len(started) == 1


def test_a_past_job_counts_instead_of_the_trial(studio, client, ada, started):
    studio.queue.keep_forecast(Work("personalize", {}, "", {"recipe": "quick"}), 64, 240.0)
    job = studio.queue.add(Work("personalize", {"scan": ada.scan}, ada.folder / "x.avatar", CHOICES["look"][2]))
    with studio.queue._store.writing() as db:
        estimate.record(db, job.id, job.work, {"tune": (300, 130.0)})
        estimate.close(db, job.id, job.work)
    studio.queue.cancel(job.id)
    page = client.get(f"/p/{ada.id}/train").text
    assert "About 2 min, as measured here" in page and "About 4 min" not in page


def test_the_trial_is_of_this_size_and_this_machine(studio, monkeypatch):
    work = Work("personalize", {}, "", {})
    studio.queue.keep_forecast(work, 256, 1500.0)
    studio.queue.keep_forecast(work, 256, 1200.0)
    with Queue(studio.folder) as again:
        assert again.forecast(work, 256) == 1200.0 and again.forecast(work, 512) is None
        assert again.forecast(Work("personalize", {}, "", {"recipe": "quick"}), 256) is None
        monkeypatch.setattr("mystudio.jobs.estimate.machine", lambda: "another")
        assert again.forecast(work, 256) is None


def test_nothing_is_measured_beside_a_job_that_runs(studio, client, ada, started):
    job = studio.queue.add(Work("render", {"take": ada.takes / "hello.take"}, ada.renders / "x.mp4"))
    with studio.queue._store.writing() as db:
        db.execute("UPDATE job SET state = 'running' WHERE id = ?", (job.id,))
    client.get(f"/p/{ada.id}/train")
    assert started == []
    with studio.queue._store.writing() as db:
        db.execute("UPDATE job SET state = 'done' WHERE id = ?", (job.id,))
    client.get(f"/p/{ada.id}/train")
    assert len(started) == 1


def test_training_itself_ends_a_trial(studio, client, ada, monkeypatch):
    monkeypatch.setattr(trials, "PROGRAM", "import time; time.sleep(600)")
    assert "A trial of some seconds" in client.get(f"/p/{ada.id}/train").text
    child = studio.trials._child
    assert child.poll() is None
    assert client.post(f"/p/{ada.id}/train", json={"choice": "look"}).status_code == 200
    assert child.poll() is not None
    assert "A trial of some seconds" not in client.get(f"/p/{ada.id}/train").text
    assert studio.trials._child is child  # none starts while training waits for its turn
    studio.queue.cancel(studio.queue.jobs()[-1].id)
    assert "A trial of some seconds" in client.get(f"/p/{ada.id}/train").text  # it is measured after all


@pytest.mark.slow
def test_a_real_trial_reaches_the_page(studio, client, person):
    import actor_avatar

    from mystudio.storage import artifacts, workspace

    with workspace.stage(person.scan, "scan", {}, {}) as run:
        artifacts.save(actor_avatar.scan(12), run)
    page, end = client.get(f"/p/{person.id}/train").text, time.monotonic() + 300
    assert "A trial of some seconds" in page
    while page.count("an estimate, until the first one has run here") < len(CHOICES):
        assert time.monotonic() < end
        time.sleep(0.5)
        page = client.get(f"/p/{person.id}/train").text
    assert "A trial of some seconds" not in page
