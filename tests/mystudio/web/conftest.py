"""A studio behind its guard, with a client that carries the cookie."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from studio_page import ADDRESS, OWN, PORT

from mystudio.web.guard import Guard
from mystudio.web.server import guarded
from mystudio.web.studio import Studio


@pytest.fixture
def studio(tmp_path) -> Iterator[Studio]:
    made = Studio(tmp_path / "studio")
    yield made
    made.close()


@pytest.fixture
def guard(studio) -> Guard:
    return guarded(studio, PORT)


@pytest.fixture
def stranger(guard) -> TestClient:
    """A client without the cookie."""
    return TestClient(guard, base_url=ADDRESS, follow_redirects=False)


@pytest.fixture
def visitor(guard) -> TestClient:
    """A browser that was opened with the printed address; its requests name no Origin."""
    made = TestClient(guard, base_url=ADDRESS, follow_redirects=False)
    assert made.get("/", params={"token": guard.token}).status_code == 303
    return made


@pytest.fixture
def client(visitor) -> TestClient:
    """The studio's own page in that browser."""
    visitor.headers.update(OWN)
    return visitor


@pytest.fixture
def person(studio):
    return studio.people.add("Ada Example", True)
