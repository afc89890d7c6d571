"""Fixtures: a server process with all modules loaded, and a small studio in which every stage ran without faults."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "mystudio"))  # its tiny runs are used here too

import work
from children import Studio
from once import once
from work import STAGES, Stage


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """The folder for all files of these tests."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def studio(root) -> Iterator[Studio]:
    """The server process that starts commands."""
    if sys.platform != "linux":
        pytest.skip("these tests fork, stop and limit processes as Linux does")
    studio = Studio(root / "home")
    yield studio
    studio.close()


@pytest.fixture(scope="session")
def template(studio, run_folder) -> Path:
    """The small studio with the results of all stages, made once for all processes of this run."""

    def make(place: Path) -> None:
        work.prepare(place)
        work.make_all(studio, place)

    return once(run_folder / work.NAME, make)


@pytest.fixture
def place(template, root) -> Iterator[Path]:
    """The folder of one test, which does not exist yet."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir=root))
    yield folder / work.NAME
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def expected(template) -> Callable[[Stage], object]:
    """Return the result of a stage that ran without faults."""
    known = {}

    def of(stage: Stage):
        if stage.name not in known:
            known[stage.name] = stage.state(template / stage.makes)
        return known[stage.name]

    return of


@pytest.fixture
def begun(template, place) -> Callable[[Stage], Path]:
    """Return a function that copies the studio without the results of one stage."""
    return lambda stage: work.without(template, place, stage)


def pytest_generate_tests(metafunc):
    """Parametrise ``stage`` over all stages; stages that the mark ``quick`` does not name are marked slow."""
    if "stage" not in metafunc.fixturenames:
        return
    quick = next((mark.args for mark in metafunc.definition.iter_markers("quick")), tuple(STAGES))
    found = [
        pytest.param(stage, id=name, marks=[] if name in quick else [pytest.mark.slow])
        for name, stage in STAGES.items()
    ]
    metafunc.parametrize("stage", found)


def pytest_configure(config):
    """Register the mark ``quick``, which names the stages for the fast suite."""
    config.addinivalue_line("markers", "quick(*stages): stages that are not slow here")
