"""The frozen engine joins the package's own while engines are tested: one folder, and the line that names it."""

import pytest

from mystudio import engines


@pytest.fixture(autouse=True, scope="module")
def frozen_engine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engines.ENGINES, "frozen", "frozen_engine")
        yield
