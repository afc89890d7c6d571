"""The hybrid engine behind the protocol, with a small base and small weights: photo, take, styles, storage."""

from dataclasses import replace

import actor_avatar
import numpy as np
import pytest
import torch

from mystudio import engines
from mystudio.bases import Base
from mystudio.engines import hybrid, protocol
from mystudio.engines.hybrid.network import Hybrid, ModelSettings
from mystudio.engines.hybrid.pyramid import PyramidShape
from mystudio.engines.hybrid.settings import PersonalizeSettings, ReenactSettings, SourceSettings
from mystudio.engines.hybrid.weights import to_bytes
from mystudio.errors import ConsentRequired
from mystudio.motion.retarget import RetargetSettings
from mystudio.oneshot.adjust import AdjustSettings
from mystudio.storage import artifacts, workspace
from mystudio.stylegan2.checkpoint import save_generator
from mystudio.stylegan2.generator import Generator
from mystudio.types import Avatar, Outcome, Take
from selfscan.types import Consent

MODEL = ModelSettings(32, PyramidShape((1, 1, 1, 1), (8, 8, 16, 16), 16), 8, 16, 16, 2, until=16)
SETTINGS = PersonalizeSettings(SourceSettings(3), AdjustSettings(steps=2, view=32, perceptual=0.0, face=0.0))
STILL = ReenactSettings(RetargetSettings(smooth=0.0))
MISSING = (0, 3)


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engines.ENGINES, "hybrid", "mystudio.engines.hybrid")
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.manual_seed(0)
    generator = Generator(32, 16, 16, 2, 256, 16).eval().requires_grad_(False)
    base = Base("tiny", tmp_path_factory.mktemp("base") / "tiny.safetensors")
    save_generator(generator, base.path)
    net = Hybrid(generator, MODEL)
    net.measure(generator, 64)
    net.deformation.bank.normal_(0, 0.1)
    base.companion_path("hybrid").write_bytes(to_bytes(net, base.digest))
    return base


@pytest.fixture(scope="module")
def avatar(base):
    return hybrid.personalize(actor_avatar.scan(4), base, SETTINGS)


@pytest.fixture(scope="module")
def driver():
    return actor_avatar.performance(actor_avatar.path(6, seed=3), missing=MISSING)


@pytest.fixture(scope="module")
def take(avatar, driver):
    return hybrid.reenact(avatar, driver, STILL)


def test_the_module_is_an_engine_that_trains(avatar, base):
    assert isinstance(hybrid, protocol.Engine) and isinstance(hybrid, protocol.Companions)
    assert engines.of(avatar) is hybrid and hybrid.describe(avatar) == {"photos": 3}
    assert avatar.base_digest == base.digest and avatar.info["steps"] == 2
    assert not isinstance(hybrid, protocol.Edits) and not isinstance(hybrid, protocol.Follows)


def test_one_photo_is_enough_and_no_consent_is_not(base):
    scan = actor_avatar.scan(4)
    one = hybrid.personalize(replace_rows(scan, 1), base, SETTINGS)
    assert one.state.photos == 1
    nobody = replace(scan, consent=Consent("", "", "2024-01-01T00:00:00Z", "0" * 64))
    with pytest.raises(ConsentRequired, match="consent"):
        hybrid.personalize(nobody, base, SETTINGS)


def replace_rows(scan, count):
    rows = slice(count)
    return replace(
        scan,
        images=scan.images[rows],
        landmarks=scan.landmarks[rows],
        frame_index=scan.frame_index[rows],
        quality=scan.quality[rows],
    )


def test_a_take_has_a_code_for_every_frame(take, driver):
    assert take.codes["deformation"].shape == (6, 8) and take.codes["deformation"].dtype == torch.float32
    assert np.flatnonzero(take.outcome == Outcome.NO_FACE).tolist() == [*MISSING]
    codes = take.codes["deformation"]
    assert torch.equal(codes[0], codes[1]) and torch.equal(codes[3], codes[2])  # of the nearest frame with a face
    assert not torch.equal(codes[1], codes[2])


def test_a_clip_without_any_face_shows_the_neutral_one(avatar):
    empty = actor_avatar.performance(actor_avatar.path(2, seed=3), missing=(0, 1))
    codes = hybrid.reenact(avatar, empty, STILL).codes["deformation"]
    assert torch.equal(codes, torch.zeros(2, 8))


def test_frames_are_decoded_alone_or_together(avatar, take):
    whole = hybrid.decode(avatar, take).vectors
    layers = avatar.generator.layers()
    assert [v.shape for v in whole] == [(6, layer.affine.weight.shape[0]) for layer in layers]
    parts = [hybrid.decode(avatar, take, slice(k, k + 2)).vectors for k in (0, 2, 4)]
    assert all(torch.allclose(torch.cat([p[k] for p in parts]), v, atol=1e-5) for k, v in enumerate(whole))
    images = avatar.generator.synthesize(hybrid.decode(avatar, take))
    assert images.shape == (6, 3, 32, 32) and images.isfinite().all()


def test_avatar_and_take_come_back_from_disk(avatar, take, tmp_path):
    for name, kind, artifact in (("me.avatar", "avatar", avatar), ("hello.take", "take", take)):
        with workspace.stage(tmp_path / name, kind, {}, {}) as run:
            artifacts.save(artifact, run)
    again, read = artifacts.load(tmp_path / "me.avatar", Avatar), artifacts.load(tmp_path / "hello.take", Take)
    pairs = zip(hybrid.decode(again, read).vectors, hybrid.decode(avatar, take).vectors)
    assert again.engine == "hybrid" and all(torch.equal(a, b) for a, b in pairs)
