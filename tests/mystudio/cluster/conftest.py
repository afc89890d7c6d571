"""A small studio, and nodes: units in this process, each with a folder of its own."""

import pytest

from mystudio.cluster.afar import Afar, Lost
from mystudio.cluster.unit import Unit
from mystudio.storage.content import Content
from tests.mystudio.jobs.conftest import queue, slow_jobs, studio, template

__all__ = ["Node", "Nodes", "nodes", "queue", "slow_jobs", "studio", "template"]


class Node:
    """A unit in this process (``afar.Handle``); a lost one ends as the process of a killed node does."""

    def __init__(self, request: str):
        self.unit, self.lost = Unit(request), False

    def poll(self):
        if self.lost:
            raise Lost("its node was lost")
        return self.unit.poll()

    def stop(self):
        self.unit.stop()

    def kill(self):
        self.unit.kill()

    def lose(self):
        self.lost = True
        self.unit.kill()


class Nodes:
    """A runner whose units run in this process."""

    def __init__(self, store: str, cache):
        self.store, self.content, self.units, self.shares = store, Content(store, cache), [], 1

    def __call__(self, job, studio):
        return Afar(job, self.place, self.content, self.store, self.shares)

    def place(self, kind, request):
        self.units.append(Node(request))
        return self.units[-1]


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_NODE", str(tmp_path / "node"))
    return Nodes(str(tmp_path / "store"), tmp_path / "cache")
