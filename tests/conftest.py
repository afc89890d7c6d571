import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_studio_home(tmp_path_factory) -> Iterator[Path]:
    """Give the tests their own folders, so that they use neither the user's key and bases nor downloaded backbones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYSTUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        patch.delenv("MYSTUDIO_LPIPS_BACKBONE", raising=False)
        yield Path(os.environ["MYSTUDIO_HOME"])


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real clips and reference networks, which most machines lack."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real clips and reference networks is not here")
    return SHARED
