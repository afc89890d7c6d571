"""The contract of every engine: personalize, reenact, decode, on a small avatar whose truth is known."""

from dataclasses import replace
from types import SimpleNamespace

import actor_avatar
import numpy as np
import pytest
import torch
from actor_avatar import MISSING, SETTINGS

from mystudio import engines
from mystudio.bases import find_base
from mystudio.editing import POLICIES, apply
from mystudio.engines.personal.state import AXES
from mystudio.errors import BadArtifact, ConsentRequired
from mystudio.motion.retarget import RetargetSettings, normalise
from mystudio.types import TAKE_OUTCOMES, Avatar, Edit, Outcome, Take
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.types import Consent

FRAMES = 12
MOTION = actor_avatar.path(FRAMES, seed=3)


@pytest.fixture(scope="module", params=sorted(engines.ENGINES))
def engine(request):
    return engines.named(request.param)


@pytest.fixture(scope="module")
def avatar(engine) -> Avatar:
    return actor_avatar.avatar()


@pytest.fixture(scope="module")
def driver():
    return actor_avatar.performance(MOTION, missing=MISSING)


@pytest.fixture(scope="module")
def take(engine, avatar, driver) -> Take:
    return engine.reenact(avatar, driver, SETTINGS)


@torch.no_grad()
def images_of(engine, avatar, take, frames=slice(None)) -> torch.Tensor:
    return avatar.generator.synthesize(engine.decode(avatar, take, frames)).clamp(-1, 1)


def keypoint_error(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Root mean square distance [T] of keypoints as the solver compares them by default, in crops."""
    shape = RetargetSettings()
    found, true = (normalise(m, shape.part_offsets, shape.depth) for m in (found, true))
    return (found - true).square().sum(-1).mean(-1).sqrt()


def test_an_engine_is_named_in_its_avatars(engine, avatar):
    assert avatar.engine == engine.NAME and engines.named(avatar.engine) is engine
    with pytest.raises(BadArtifact, match="'telepathic'"):
        engines.named("telepathic")


def test_avatar_shapes(avatar):
    scan, base = actor_avatar.scan(), find_base("people128")
    assert avatar.state.anchors.shape == (len(scan), base.generator.w_dim) and avatar.state.anchors.isfinite().all()
    assert np.array_equal(avatar.state.anchor_ids, scan.frame_index)
    assert np.array_equal(avatar.state.anchor_keypoints, scan.landmarks)
    assert avatar.neutral.shape == (478, 3)
    assert avatar.generator.resolution == base.generator.resolution
    assert avatar.generator is not base.generator
    assert avatar.base_digest == base.digest and avatar.consent == scan.consent
    assert all(d.shape == (base.generator.w_dim,) and d.isfinite().all() for d in avatar.state.directions.values())


def test_an_avatar_is_grown_beyond_a_small_base_and_keeps_its_codes(avatar):
    base = find_base("people128")
    few = SimpleNamespace(
        **vars(SETTINGS)
        | {
            "personalize": replace(SETTINGS.personalize, steps=1, rate=1e-9, resolution=256, width=6144),
            "regress": replace(SETTINGS.regress, samples=16, steps=2),
        }
    )
    large = engines.named("personal").personalize(actor_avatar.scan(), base, few)
    assert large.generator.resolution == 256 and large.generator.config["channel_base"] == 6144
    assert torch.allclose(large.state.anchors, avatar.state.anchors, atol=0.02)  # the encoder reads 64 px
    w = large.generator.broadcast(large.state.anchors[:2])
    small = base.generator(base.generator.broadcast(large.state.anchors[:2]))
    assert torch.allclose(large.generator(w, resolution=128), small, atol=1e-3)


def test_take_shapes(avatar, driver, take):
    assert len(take) == len(driver) == FRAMES
    assert take.codes[AXES].shape[:2] == (FRAMES, avatar.generator.num_ws)
    assert take.codes[AXES].dtype == torch.float32 and take.codes[AXES].isfinite().all()
    assert take.outcome.dtype == np.uint8 and take.outcome.max() <= max(TAKE_OUTCOMES)
    assert np.array_equal(take.times, driver.observation.track.times)
    assert "total" in take.losses
    assert all(v.shape == (FRAMES,) and np.isfinite(v).all() for v in take.losses.values())


def test_styles_fit_the_generator(engine, avatar, take):
    styles = engine.decode(avatar, take, slice(2, 5))
    layers = [layer for block in avatar.generator.synthesis.blocks() for layer in block.layers()]
    assert [tuple(v.shape) for v in styles.vectors] == [(3, layer.affine.weight.shape[0]) for layer in layers]
    assert images_of(engine, avatar, take, slice(2, 5)).shape == (3, 3, 128, 128)


def test_same_seed_same_take(engine, avatar, driver, take):
    again = engine.reenact(avatar, driver, SETTINGS)
    assert torch.equal(again.codes[AXES], take.codes[AXES])
    assert np.array_equal(again.outcome, take.outcome)
    assert all(np.array_equal(again.losses[k], take.losses[k]) for k in take.losses)


@pytest.mark.slow
def test_same_seed_same_avatar(engine, avatar):
    torch.manual_seed(12345)  # the caller's own randomness plays no part
    again = engine.personalize(actor_avatar.scan(), find_base("people128"), SETTINGS)
    assert torch.equal(again.state.anchors, avatar.state.anchors)
    mine, theirs = again.generator.state_dict(), avatar.generator.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert all(torch.equal(again.state.regressor[k], avatar.state.regressor[k]) for k in avatar.state.regressor)


def test_chunked_decode_equals_whole_decode(engine, avatar, take):
    whole = engine.decode(avatar, take, slice(None)).vectors
    parts = [engine.decode(avatar, take, slice(k, k + 5)).vectors for k in range(0, FRAMES, 5)]
    for layer, vectors in enumerate(whole):
        chunked = torch.cat([part[layer] for part in parts])
        assert chunked.shape == vectors.shape
        assert torch.allclose(chunked, vectors, rtol=1e-5, atol=1e-5)


def test_a_frame_without_a_face_keeps_its_slot_and_says_why(engine, avatar, take):
    assert np.flatnonzero(take.outcome == Outcome.NO_FACE).tolist() == list(MISSING)
    assert images_of(engine, avatar, take, slice(MISSING[0], MISSING[0] + 1)).isfinite().all()


def test_what_the_network_saw_in_a_frame_without_a_face_is_of_no_account(engine, avatar, driver, take):
    landmarks = driver.observation.landmarks.copy()
    landmarks[list(MISSING)] = np.random.default_rng(0).random((len(MISSING), 478, 3))
    other = replace(driver, observation=replace(driver.observation, landmarks=landmarks))
    assert (engine.reenact(avatar, other, SETTINGS).codes[AXES] - take.codes[AXES]).abs().max() < 0.05


def test_a_clip_without_any_face_gives_a_whole_take(engine, avatar):
    empty = actor_avatar.performance(MOTION[:3], missing=(0, 1, 2))
    found = engine.reenact(avatar, empty, SETTINGS)
    assert found.outcome.tolist() == [Outcome.NO_FACE] * 3
    assert found.codes[AXES].isfinite().all()


@pytest.mark.parametrize("edge", POLICIES)
def test_a_zero_strength_edit_is_no_edit(engine, avatar, take, edge):
    assert avatar.state.directions
    edited = apply(avatar, take, [Edit(name, 0.0, edge=edge) for name in avatar.state.directions])
    assert torch.equal(edited.codes[AXES], take.codes[AXES])
    same = zip(engine.decode(avatar, edited, slice(None)).vectors, engine.decode(avatar, take, slice(None)).vectors)
    assert all(torch.equal(a, b) for a, b in same)


def test_self_reenactment_beats_the_neutral_pose(engine, avatar, driver, take):
    true = torch.as_tensor(driver.observation.landmarks)
    made = images_of(engine, avatar, take)
    driven = keypoint_error(crop_landmarks(load_facemesh(), made)[0], true)
    still = keypoint_error(avatar.neutral.expand_as(true), true)
    assert driven.mean() < 0.7 * still.mean()
    frames, _ = actor_avatar.person(MOTION)
    assert (made - frames).square().mean() < 0.7 * (made[:1] - frames).square().mean()


def test_cross_reenactment_shows_what_the_person_would_have_shown(engine, avatar):
    other = actor_avatar.performance(MOTION, look=9)
    made = images_of(engine, avatar, engine.reenact(avatar, other, SETTINGS))
    frames, true = actor_avatar.person(MOTION)  # the avatar's person in the other one's motion
    driven = keypoint_error(crop_landmarks(load_facemesh(), made)[0], true)
    assert driven.mean() < 0.7 * keypoint_error(avatar.neutral.expand_as(true), true).mean()
    others, _ = actor_avatar.person(MOTION, look=9)
    assert (made - frames).square().mean() < 0.5 * (made - others).square().mean()


def test_no_avatar_without_consent(engine):
    nobody = Consent("", "", "2024-01-01T00:00:00Z", "0" * 64)
    with pytest.raises(ConsentRequired, match="consent"):
        engine.personalize(replace(actor_avatar.scan(), consent=nobody), find_base("people128"), SETTINGS)
