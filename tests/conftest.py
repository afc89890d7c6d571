from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real clips and reference networks; a user's machine does not have it."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real clips and reference networks is not here")
    return SHARED
