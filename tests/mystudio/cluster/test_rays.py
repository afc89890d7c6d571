"""A real Ray cluster of two nodes on this machine: a node and the driver are killed with -9, and results are equal."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mystudio.cluster.rays import ALONE, SAFE, address_of
from mystudio.errors import BadCluster
from mystudio.jobs import ENDED, State
from mystudio.storage.journal import journal_of
from tests.mystudio.cluster.test_afar import here, pictures
from tests.mystudio.jobs.conftest import FRAMES, render, wait_for

ROOT = Path(__file__).resolve().parents[3]


def test_addresses():
    assert (address_of("ray"), address_of("ray://10.0.0.1:6379")) == ("", "10.0.0.1:6379")
    for wrong in ("rays", "ray://", "ray://here", "http://x:1"):
        with pytest.raises(BadCluster, match="expected this-machine, ray or ray://HOST:PORT"):
            address_of(wrong)
    with pytest.raises(BadCluster, match="expected the address of one machine"):
        address_of("ray://0.0.0.0:6379")


def test_where_ray_is_missing_one_sentence_says_so(studio):
    hidden = "import sys; sys.modules['ray'] = None; from mystudio.cli import main; main()"
    words = ["jobs", "run", "--on", "ray", "--studio", str(studio)]
    done = subprocess.run([sys.executable, "-c", hidden, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == "error: expected Ray for --on ray, it is not installed; install mystudio[cluster]\n"
    words = ["jobs", "run", "--store", "x", "--studio", str(studio)]
    assert subprocess.run([sys.executable, "-m", "mystudio", *words], capture_output=True, cwd=ROOT).returncode == 2


def test_ray_is_imported_only_when_it_is_asked_for():
    code = "import sys, mystudio.jobs.worker, mystudio.cluster.afar, mystudio.cli; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two nodes on this machine, each with one processor and a folder of its own."""
    for name, value in (SAFE | ALONE | {"PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": "a" * 64}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/rays{os.getpid()}")
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    pytest.importorskip("ray")  # it reads its settings when it is imported
    from ray.cluster_utils import Cluster

    nodes, made = [], Cluster()
    monkeypatch.setenv("MYSTUDIO_NODE", str(tmp_path / "head"))
    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    made.add_node(num_cpus=0, **small)
    for name in ("one", "two"):
        monkeypatch.setenv("MYSTUDIO_NODE", str(tmp_path / name))
        nodes.append(made.add_node(num_cpus=1, object_store_memory=80 << 20))
    made.named = dict(zip(("one", "two"), nodes))
    made.folder = tmp_path
    yield made
    made.shutdown()


def kill_node(cluster, name: str) -> None:
    """End a node as a power cut does: its raylet and everything that it has started."""
    (raylet,) = (info.process for info in cluster.named[name].all_processes["raylet"])
    for process in [raylet.pid, *_below(raylet.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _below(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found += [int(stat.parent.name), *_below(int(stat.parent.name))]
    return found


@contextlib.contextmanager
def driver(cluster, studio, monkeypatch):
    """`mystudio jobs run --on ray://...` as a process of its own."""
    words = ["jobs", "run", "--on", f"ray://{cluster.address}", "--studio", str(studio), "--idle", "60"]
    words += ["--store", str(studio.parent / "store")]
    monkeypatch.setenv("MYSTUDIO_NODE", str(studio.parent / "head"))
    with open(studio.parent / "driver.log", "a") as log:
        process = subprocess.Popen([sys.executable, "-m", "mystudio", *words], stdout=log, stderr=log, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def busy(folder: Path) -> bool:
    return any(folder.glob("unit-*/tree/*"))


@pytest.mark.slow
def test_a_node_and_the_driver_are_killed_and_nothing_is_lost(cluster, queue, monkeypatch):
    long = [queue.add(render(f"{name}.mp4")).id for name in ("a", "b")]
    journals = [journal_of(queue.job(job).out) for job in long]

    def there(least):
        return all(len(list(journal.glob("segment*.npz"))) >= least for journal in journals)

    with driver(cluster, queue.studio, monkeypatch) as first:
        wait_for(lambda: there(2) or first.poll(), 900)
        assert first.poll() is None, (queue.studio.parent / "driver.log").read_text()
        assert busy(cluster.folder / "one") and busy(cluster.folder / "two")  # a job on each
        kill_node(cluster, "one")
        lost = wait_for(
            lambda: next((job for job in map(queue.job, long) if job.tries == 2 or job.waits_for), None), 200
        )
        assert "was lost" in lost.waits_for or lost.tries == 2
        first.kill()  # the driver, in the middle of the other job
        first.wait()
    assert {queue.job(job).state for job in long} <= {State.WAITING, State.RUNNING, State.DONE}
    with driver(cluster, queue.studio, monkeypatch) as second:
        wait_for(lambda: all(queue.job(job).state in ENDED for job in long) or second.poll(), 1200)
    assert [queue.job(job).state for job in long] == [State.DONE] * 2, (queue.studio.parent / "driver.log").read_text()
    expected = here(queue.studio, render("here.mp4"))
    for job in long:
        begun = [int(number) for number in re.findall(rf"render (\d+)/{FRAMES}", queue.log(job).text)]
        print(json.dumps({"job": job, "begun": begun, "tries": queue.job(job).tries}))
        assert begun[0] == 0 and (len(begun) == 1 or begun[-1] >= 12)  # it went on from what had come back
        assert pictures(queue.job(job).out) == expected


@pytest.mark.slow
def test_a_foreign_token_is_refused(cluster, studio, monkeypatch):
    began = time.monotonic()
    code = f"from mystudio.cluster.rays import Rays; Rays({cluster.address!r}, {str(studio)!r})"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode != 0 and "BadCluster" in done.stderr, (done.stderr, time.monotonic() - began)
