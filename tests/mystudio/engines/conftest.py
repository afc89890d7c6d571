"""Registers the tests' frozen engine beside the package's engines: one folder and one line."""

import pytest

from mystudio import engines


@pytest.fixture(autouse=True, scope="module")
def frozen_engine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engines.ENGINES, "frozen", "frozen_engine")
        yield
