import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_studio_home(tmp_path_factory) -> Iterator[Path]:
    """A home of mystudio of the tests' own: their signing key and bases are not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYSTUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        yield Path(os.environ["MYSTUDIO_HOME"])


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real clips and reference networks; a user's machine does not have it."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real clips and reference networks is not here")
    return SHARED
