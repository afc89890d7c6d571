"""The personal engine as a whole: the parts of its avatars and takes that the engine contract does not cover."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import actor_avatar
import numpy as np
import pytest
import torch
from actor_avatar import SETTINGS

from mystudio.bases import find_base
from mystudio.engines import personal
from mystudio.engines.personal.state import AXES, state_of
from mystudio.engines.personal.tune import TuneSettings
from mystudio.errors import BadArtifact
from mystudio.stylegan2.checkpoint import load_generator


@pytest.fixture(scope="module")
def avatar():
    return actor_avatar.avatar()


def test_the_state_holds_an_anchor_for_each_scan_image(avatar):
    scan, base = actor_avatar.scan(), find_base("people128")
    state = state_of(avatar)
    assert state.anchors.shape == (len(scan), base.generator.w_dim) and state.anchors.isfinite().all()
    assert np.array_equal(state.anchor_ids, scan.frame_index)
    assert np.array_equal(state.anchor_keypoints, scan.landmarks)
    assert avatar.generator.resolution == base.generator.resolution
    assert all(d.shape == (base.generator.w_dim,) and d.isfinite().all() for d in state.directions.values())
    assert personal.describe(avatar) == {"anchors": len(scan)}


def test_the_state_of_another_engine_is_refused(avatar):
    with pytest.raises(BadArtifact, match="engine 'personal', got one of 'hyper'"):
        state_of(replace(avatar, state=object(), engine="hyper"))


def test_a_take_has_codes_for_each_layer_and_the_value_of_the_objective(avatar):
    driver = actor_avatar.performance(actor_avatar.path(3, seed=3))
    take = personal.reenact(avatar, driver, SETTINGS)
    assert take.codes[AXES].shape[:2] == (3, avatar.generator.num_ws) and "total" in take.losses


FEW = SimpleNamespace(
    **vars(SETTINGS)
    | {
        "personalize": replace(SETTINGS.personalize, steps=1, rate=1e-9, resolution=256, width=6144),
        "regress": replace(SETTINGS.regress, samples=16, steps=2),
    }
)


def test_an_avatar_is_grown_beyond_a_small_base_and_keeps_its_codes(avatar, tmp_path):
    for file in (find_base("people128").path, find_base("people128").companion("encoder")):
        shutil.copy(file, tmp_path / file.name)  # without the companion "start"
    base = find_base(tmp_path / "people128.safetensors")
    large = personal.personalize(actor_avatar.scan(), base, FEW)
    assert large.generator.resolution == 256 and large.generator.config["channel_base"] == 6144
    assert torch.allclose(large.state.anchors, avatar.state.anchors, atol=0.02)  # the encoder reads 64 px
    w = large.generator.broadcast(large.state.anchors[:2])
    small = base.generator(base.generator.broadcast(large.state.anchors[:2]))
    assert torch.allclose(large.generator(w, resolution=128), small, atol=1e-3)


def test_tuning_starts_from_the_companion_if_its_size_is_wanted():
    base = find_base("people128")
    start = load_generator(base.companion("start"))
    made = personal.personalize(actor_avatar.scan(6), base, FEW)
    assert made.generator.resolution == 256 <= start.resolution
    codes = made.state.anchors[:2]
    expected = start(start.broadcast(codes), resolution=256)  # its blocks above are left out
    assert torch.allclose(made.generator(made.generator.broadcast(codes)), expected, atol=1e-3)
    smaller = SimpleNamespace(**vars(FEW) | {"personalize": replace(FEW.personalize, resolution=0, width=0)})
    assert personal.personalize(actor_avatar.scan(6), base, smaller).generator.resolution == 128


@pytest.mark.slow
def test_same_seed_same_avatar(avatar):
    torch.manual_seed(12345)  # independent of the caller's random state
    again = personal.personalize(actor_avatar.scan(), find_base("people128"), SETTINGS)
    assert torch.equal(again.state.anchors, avatar.state.anchors)
    mine, theirs = again.generator.state_dict(), avatar.generator.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert all(torch.equal(again.state.regressor[k], avatar.state.regressor[k]) for k in avatar.state.regressor)


@pytest.mark.parametrize(
    "resolution, largest, side, made",
    [(256, 512, 512, 512), (256, 512, 700, 512), (256, 512, 256, 256), (256, 1024, 1024, 1024), (256, 256, 512, 256)]
    + [(512, 256, 300, 512), (0, 512, 512, 0), (256, 0, 512, 256), (256, 512, 128, 256)],
)
def test_an_avatar_is_as_large_as_its_scan(resolution, largest, side, made):
    assert personal.sized(replace(TuneSettings(), resolution=resolution, largest=largest), side).resolution == made
