"""A performance of an earlier version stays, because takes refer to it; the clip is measured anew, once."""

import numpy as np
import pytest
from live_person import frames

from mystudio.pipeline import MEASUREMENT, run_perform
from mystudio.storage.artifacts import load, save
from mystudio.storage.manifest import digest, open_folder
from mystudio.storage.workspace import stage
from mystudio.types import Performance
from selfscan.io import video


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    path = tmp_path_factory.mktemp("measured") / "driver.mp4"
    video.write(path, [frame for _, frame in frames(6)], np.arange(6) / 25)
    return path


def test_an_older_measurement_is_made_anew_beside_it(driver, performance, tmp_path):
    old = tmp_path / f"{driver.stem}-{digest(driver)[:8]}.performance"
    with stage(old, "performance", {"video": driver}, {}) as run:  # as earlier versions stored it
        save(performance, run)
    before = digest(old)
    new = run_perform(driver, tmp_path)
    assert new != old and digest(old) == before
    assert open_folder(new).manifest.settings["measurement"] == MEASUREMENT
    assert len(load(new, Performance)) == 6
    stored = (new / "manifest.json").stat().st_mtime_ns
    assert run_perform(driver, tmp_path) == new and (new / "manifest.json").stat().st_mtime_ns == stored


def test_without_an_older_measurement_the_name_is_as_before(driver, tmp_path):
    made = run_perform(driver, tmp_path)
    assert made.name == f"{driver.stem}-{digest(driver)[:8]}.performance"
