"""Evaluation on the GPU gives the same figures as on the CPU."""

import numpy as np
import pytest

from mystudio.evaluation.evaluate import evaluate
from selfscan.scan.coverage import coverage
from selfscan.types import Consent, Scan


@pytest.fixture
def scan(performance) -> Scan:
    """Five made-up images as if they were a scan."""
    seen = performance.observation
    rng = np.random.default_rng(0)
    consent = Consent("Ada Nobody", "does not exist", "2024-01-01T00:00:00Z", seen.video_sha256, fictional=True)
    images, sharp = rng.integers(0, 256, (5, 64, 64, 3), np.uint8), np.ones(5, np.float32)
    return Scan(images, seen.landmarks[:5], np.arange(5), sharp, {}, coverage(seen), consent, "test metric")


@pytest.mark.parametrize("truth", [None, "same"])
def test_the_figures_are_those_of_the_cpu(tiny_avatar, take, performance, scan, tmp_path, avatar_there, truth):
    given = dict(truth=truth, scan=scan, unedited=take, edit_sheet=None)
    there = evaluate(avatar_there, take, performance, tmp_path / "there", **given)
    here = evaluate(tiny_avatar, take, performance, tmp_path / "here", **given)
    assert (tmp_path / "there" / "report.html").is_file()
    assert len(there["metrics"]) == len(here["metrics"]) > 5
    for mine, theirs in zip(there["metrics"], here["metrics"]):
        assert mine["name"] == theirs["name"]
        assert mine["value"] == pytest.approx(theirs["value"], rel=0.02, abs=0.02, nan_ok=True), mine["name"]
