import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items):
    """Put files of few tests first: theirs are the long ones, and one that begins last leaves other processes idle."""
    count = Counter(item.path for item in items)
    items.sort(key=lambda item: count[item.path])


@pytest.fixture(scope="session", autouse=True)
def own_studio_home(tmp_path_factory) -> Iterator[Path]:
    """Give the tests their own folders, so that they use neither the user's key and bases nor downloaded backbones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYSTUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        patch.delenv("MYSTUDIO_LPIPS_BACKBONE", raising=False)
        yield Path(os.environ["MYSTUDIO_HOME"])


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """The folder of all processes of this run of the tests; see ``once``."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real clips and reference networks, which most machines lack."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real clips and reference networks is not here")
    return SHARED
