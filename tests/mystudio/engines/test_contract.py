"""The engine contract, tested on a small avatar whose true result is known.

It runs for the engines of the package and for the frozen engine of the tests.
"""

from dataclasses import fields, is_dataclass, replace

import actor_avatar
import hyper_weights
import numpy as np
import pytest
import torch
from actor_avatar import MISSING

from mystudio import editing, engines, recipe
from mystudio.bases import Base, find_base
from mystudio.engines import protocol
from mystudio.errors import BadArtifact, BadEngine, ConsentRequired, NotOffered
from mystudio.live.follow import Live
from mystudio.motion.retarget import RetargetSettings, normalise
from mystudio.storage import archive, artifacts, workspace
from mystudio.types import TAKE_OUTCOMES, Avatar, Edit, Outcome, Take
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.types import Consent

FRAMES = 12
MOTION = actor_avatar.path(FRAMES, seed=3)
NAMES = [*engines.ENGINES, "frozen"]


@pytest.fixture(scope="module", params=NAMES)
def engine(request):
    return engines.named(request.param)


def settings_of(engine, stage: str):
    """Small settings: what the tests' own person needs for the personal engine, the default recipe for others."""
    found = recipe.resolve("default", ["retarget.smooth=0"]).of(engine.NAME, stage)
    small = {name: value for name, value in vars(actor_avatar.SETTINGS).items() if hasattr(found, name)}
    return replace(found, **small)


@pytest.fixture(scope="module")
def base(engine, tmp_path_factory) -> Base:
    """The packaged base; for hyper a copy of it with tiny networks, trained for some steps."""
    if engine.NAME != "hyper":
        return find_base("people128")
    return hyper_weights.base_with(tmp_path_factory.mktemp("hyper"))


@pytest.fixture(scope="module")
def avatar(engine, base) -> Avatar:
    if engine.NAME == "personal":
        return actor_avatar.avatar()  # made once for many tests
    return engine.personalize(actor_avatar.scan(), base, settings_of(engine, "personalize"))


@pytest.fixture(scope="module")
def driver():
    return actor_avatar.performance(MOTION, missing=MISSING)


@pytest.fixture(scope="module")
def take(engine, avatar, driver) -> Take:
    return engine.reenact(avatar, driver, settings_of(engine, "reenact"))


@torch.no_grad()
def images_of(engine, avatar, take, frames=slice(None)) -> torch.Tensor:
    return avatar.generator.synthesize(engine.decode(avatar, take, frames)).clamp(-1, 1)


def keypoint_error(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Root mean square distance [T] of keypoints as the solver compares them by default, in crops."""
    shape = RetargetSettings()
    found, true = (normalise(m, shape.part_offsets, shape.depth) for m in (found, true))
    return (found - true).square().sum(-1).mean(-1).sqrt()


def same(one: Take, other: Take) -> bool:
    codes = list(one.codes) == list(other.codes) and all(torch.equal(one.codes[k], other.codes[k]) for k in one.codes)
    return codes and np.array_equal(one.outcome, other.outcome) and np.array_equal(one.times, other.times)


def test_an_engine_is_named_in_its_avatars(engine, avatar):
    assert isinstance(engine, protocol.Engine)
    assert avatar.engine == engine.NAME and engines.of(avatar) is engine
    with pytest.raises(BadArtifact, match="'telepathic'"):
        engines.named("telepathic")


def test_a_module_that_is_no_engine_is_refused(monkeypatch):
    monkeypatch.setitem(engines.ENGINES, "json", "json")
    with pytest.raises(BadEngine, match="json is no engine"):
        engines.named("json")


def test_settings_are_frozen_dataclasses_with_defaults(engine):
    for cls in (engine.PersonalizeSettings, engine.ReenactSettings):
        assert cls.__dataclass_params__.frozen and cls() == cls()
        assert all(is_dataclass(getattr(cls(), table.name)) for table in fields(cls))
    shown = recipe.resolve("default").show()
    own = [f"[{name}]" for name in recipe.resolve("default").tables() if name.startswith(f"{engine.NAME}.")]
    assert all(name in shown for name in own)


def test_an_avatar_has_what_every_avatar_has(engine, avatar, base):
    scan = actor_avatar.scan()
    assert isinstance(avatar.state, engine.State)
    assert avatar.neutral.shape == (478, 3) and avatar.neutral.device.type == "cpu"
    assert avatar.generator is not base.generator  # bases are shared
    assert avatar.base_digest == base.digest and avatar.consent == scan.consent
    assert all(isinstance(value, (int, float, str)) for value in engines.describe(avatar).values())


def test_take_shapes(driver, take):
    assert len(take) == len(driver) == FRAMES
    assert take.codes and all(len(values) == FRAMES for values in take.codes.values())
    assert all(values.dtype == torch.float32 and values.isfinite().all() for values in take.codes.values())
    assert take.outcome.dtype == np.uint8 and take.outcome.max() <= max(TAKE_OUTCOMES)
    assert np.array_equal(take.times, driver.observation.track.times)
    assert all(v.shape == (FRAMES,) and np.isfinite(v).all() for v in take.losses.values())


def test_styles_fit_the_generator(engine, avatar, take):
    styles, layers = engine.decode(avatar, take, slice(2, 5)), avatar.generator.layers()
    assert [tuple(v.shape) for v in styles.vectors] == [(3, layer.affine.weight.shape[0]) for layer in layers]
    assert images_of(engine, avatar, take, slice(2, 5)).shape == (3, 3, 128, 128)


def test_same_input_same_take(engine, avatar, driver, take):
    torch.manual_seed(12345)  # independent of the caller's random state
    assert same(engine.reenact(avatar, driver, settings_of(engine, "reenact")), take)


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
    found = engine.reenact(avatar, other, settings_of(engine, "reenact"))
    assert all((found.codes[name] - values).abs().max() < 0.05 for name, values in take.codes.items())


def test_a_clip_without_any_face_gives_a_whole_take(engine, avatar):
    empty = actor_avatar.performance(MOTION[:3], missing=(0, 1, 2))
    found = engine.reenact(avatar, empty, settings_of(engine, "reenact"))
    assert found.outcome.tolist() == [Outcome.NO_FACE] * 3
    assert all(values.isfinite().all() for values in found.codes.values())


@pytest.mark.parametrize("edge", editing.POLICIES)
def test_a_zero_strength_edit_is_no_edit(engine, avatar, take, edge):
    if not isinstance(engine, protocol.Edits):
        with pytest.raises(NotOffered, match="has no edits"):
            editing.apply(avatar, take, [Edit("smile", 1.0, edge=edge)])
        return
    offered = engine.directions(avatar)
    assert offered and all(bool(direction.isfinite().all()) for direction in offered.values())
    edited = editing.apply(avatar, take, [Edit(name, 0.0, edge=edge) for name in offered])
    assert same(edited, take)
    decoded = zip(engine.decode(avatar, edited).vectors, engine.decode(avatar, take).vectors)
    assert all(torch.equal(a, b) for a, b in decoded)


def test_an_edit_changes_codes_and_nothing_else(engine, avatar, take):
    if not isinstance(engine, protocol.Edits):
        with pytest.raises(NotOffered, match="has no edits"):
            editing.sheet(avatar)
        return
    name = next(iter(engine.directions(avatar)))
    edited = editing.apply(avatar, take, [Edit(name, 1.0)])
    assert any(not torch.equal(edited.codes[key], values) for key, values in take.codes.items())
    assert np.array_equal(edited.outcome, take.outcome) and edited.edits == (Edit(name, 1.0),)
    assert editing.sheet(avatar).shape[1] == editing.LABEL + 5 * avatar.generator.resolution


def test_an_avatar_follows_live_or_says_that_it_cannot(engine, avatar):
    if not isinstance(engine, protocol.Follows):
        with pytest.raises(NotOffered, match="cannot follow live"):
            Live(avatar, settings_of(engine, "reenact"))
        return
    follower = engine.follow(avatar, settings_of(engine, "reenact"))
    codes = follower(avatar.neutral[None], avatar.neutral)
    assert all(len(values) == 1 and values.isfinite().all() for values in codes.values())
    still = Take(codes, np.zeros(1, np.uint8), np.zeros(1), {})
    seen, _ = crop_landmarks(load_facemesh(), images_of(engine, avatar, still))
    assert keypoint_error(seen, avatar.neutral[None])[0] < 0.02  # of the crop: it shows its neutral face


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
    made = images_of(engine, avatar, engine.reenact(avatar, other, settings_of(engine, "reenact")))
    frames, true = actor_avatar.person(MOTION)  # the avatar's person in the other one's motion
    driven = keypoint_error(crop_landmarks(load_facemesh(), made)[0], true)
    assert driven.mean() < 0.7 * keypoint_error(avatar.neutral.expand_as(true), true).mean()
    others, _ = actor_avatar.person(MOTION, look=9)
    assert (made - frames).square().mean() < 0.5 * (made - others).square().mean()


def test_no_avatar_without_consent(engine, base):
    nobody = replace(actor_avatar.scan(), consent=Consent("", "", "2024-01-01T00:00:00Z", "0" * 64))
    with pytest.raises(ConsentRequired, match="consent"):
        engine.personalize(nobody, base, settings_of(engine, "personalize"))


def test_avatars_and_takes_come_back_from_disk_and_from_an_archive(engine, avatar, take, tmp_path):
    for name, kind, artifact in (("me.avatar", "avatar", avatar), ("hello.take", "take", take)):
        with workspace.stage(tmp_path / name, kind, {}, {}) as run:
            artifacts.save(artifact, run)
    archive.pack(tmp_path / "me.avatar", tmp_path / "me.zip")
    archive.unpack(tmp_path / "me.zip", tmp_path / "again.avatar")
    read = artifacts.load(tmp_path / "hello.take", Take)
    assert same(read, take) and artifacts.engine_of(tmp_path / "again.avatar") == engine.NAME
    for place in ("me.avatar", "again.avatar"):
        styles = engine.decode(artifacts.load(tmp_path / place, Avatar), read)
        assert all(torch.equal(a, b) for a, b in zip(styles.vectors, engine.decode(avatar, take).vectors))
