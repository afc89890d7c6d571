"""Evaluation on the GPU gives the same figures as on the CPU.

The avatar draws faces of the packaged base: on the noise of an untrained generator, landmarks lie in one point, and
figures in units of the eye distance are rounding errors.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mystudio.bases import find_base
from mystudio.engines.personal.state import AXES
from mystudio.evaluation.evaluate import evaluate
from mystudio.types import Avatar, Take
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


@pytest.fixture(scope="module")
def avatar(tiny_avatar) -> Avatar:
    """The packaged base with 12 anchors of its own."""
    generator = find_base("people128").generator.eval()
    with torch.no_grad():
        anchors = generator.mapping(torch.randn(12, 128, generator=torch.Generator().manual_seed(2)))
    return replace(tiny_avatar, generator=generator, state=replace(tiny_avatar.state, anchors=anchors))


@pytest.fixture(scope="module")
def faces(avatar, take) -> Take:
    """Codes near the mean of the anchors, so that every frame shows a face."""
    shape = (len(take), avatar.generator.num_ws, avatar.state.space.rank)
    return replace(take, codes={AXES: 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(1))})


@pytest.mark.parametrize("truth", [pytest.param(None, marks=pytest.mark.slow), "same"])
def test_the_figures_are_those_of_the_cpu(avatar, faces, performance, scan, tmp_path, gpu, truth):
    given = dict(truth=truth, scan=scan, unedited=faces, edit_sheet=None)
    avatar_there = replace(avatar, generator=copy.deepcopy(avatar.generator).to(gpu))
    there = evaluate(avatar_there, faces, performance, tmp_path / "there", **given)
    here = evaluate(avatar, faces, performance, tmp_path / "here", **given)
    assert (tmp_path / "there" / "report.html").is_file()
    assert len(there["metrics"]) == len(here["metrics"]) > 5
    for mine, theirs in zip(there["metrics"], here["metrics"]):
        assert mine["name"] == theirs["name"]
        assert mine["value"] == pytest.approx(theirs["value"], rel=0.02, abs=0.02, nan_ok=True), mine["name"]
