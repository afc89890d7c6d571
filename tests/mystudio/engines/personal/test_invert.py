"""Anchors from images: the encoder, its training, and optimisation."""

from dataclasses import replace

import actor_avatar
import pytest
import torch
import torch.nn.functional as F
from memory_checkpoints import MemoryCheckpoints

from mystudio.base.encoder import Encoder, encode, load_encoder
from mystudio.base.train_encoder import (
    EncoderSettings,
    Pairs,
    sample_pairs,
    save_encoder,
    train_and_save,
    train_encoder,
)
from mystudio.bases import Base, find_base
from mystudio.engines.personal.anchors import InvertSettings, equalise, invert
from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion.retarget import relative_motion
from mystudio.stylegan2.checkpoint import save_generator
from mystudio.stylegan2.generator import Generator
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.pixels import dequantize, to_tensor
from selfscan.perceptual.metric import load_perceptual


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def task():
    """Return a tiny base, and its images at known w."""
    torch.manual_seed(0)
    base = Generator(32, z_dim=16, w_dim=16, mapping_layers=2, channel_base=512, channel_max=32).eval()
    base.requires_grad_(False)
    images = base(base.broadcast(base.mapping(draw(5, 16, seed=1))))
    marks = torch.rand(5, 478, 3, generator=torch.Generator().manual_seed(2))
    return base, images, marks, load_perceptual("face")


def with_encoder(base) -> Encoder:
    torch.manual_seed(3)
    encoder = Encoder(base.w_dim, width=16).eval().requires_grad_(False)
    samples = base.mapping(draw(100, 16))
    encoder.mean.copy_(samples.mean(0))
    encoder.spread.copy_(samples.std(0))
    return encoder


@pytest.mark.parametrize("encoded", [False, True])
def test_optimisation_brings_the_anchors_images_nearer(task, encoded):
    base, images, marks, perceptual = task
    encoder = with_encoder(base) if encoded else None
    settings = InvertSettings(steps=25, blind_steps=25, rate=0.1, batch=5)

    def away(steps):
        some = replace(settings, steps=steps, blind_steps=max(steps, 1), rate=settings.rate if steps else 0.0)
        anchors = invert(base, encoder, perceptual, images, marks, marks[0], some)
        assert anchors.shape == (5, 16) and anchors.isfinite().all() and not anchors.requires_grad
        made = base(base.broadcast(anchors))
        return float((perceptual.distance(made, images) + (made - images).square().mean((1, 2, 3))).sum())

    assert away(25) < 0.8 * away(0)


def test_images_are_inverted_one_by_one(task):
    base, images, marks, perceptual = task
    settings = InvertSettings(blind_steps=4, batch=5)
    whole = invert(base, None, perceptual, images, marks, marks[0], settings)
    said: list[tuple] = []
    parts = invert(base, None, perceptual, images, marks, marks[0], replace(settings, batch=2),
                   lambda *event: said.append(event))  # fmt: skip
    assert torch.allclose(whole, parts, atol=1e-3)
    assert said == [("invert", k, 12) for k in range(1, 13)]


def test_batches_that_were_kept_are_not_inverted_again(task):
    base, images, marks, perceptual = task
    settings, kept = InvertSettings(blind_steps=3, batch=2), MemoryCheckpoints()
    whole = invert(base, None, perceptual, images, marks, marks[0], settings, checkpoints=kept)
    assert list(kept) == ["invert00000", "invert00002", "invert00004"]
    del kept["invert00002"]
    said: list[int] = []
    again = invert(base, None, perceptual, images, marks, marks[0], settings,
                   lambda stage, done, total: said.append(done), kept)  # fmt: skip
    assert said == [3, 4, 5, 6, 9]
    assert torch.equal(again, whole)


def test_encoder_alone_needs_no_step(task):
    base, images, marks, perceptual = task
    encoder = with_encoder(base)
    settings = InvertSettings(steps=0, equalise=0.3, axes=3)
    anchors = invert(None, encoder, None, images, marks, marks[0], settings)
    assert torch.equal(anchors, equalise(encode(encoder, images, marks, marks[0]), 0.3, 3))


def test_equalise_lengthens_the_short_axes():
    anchors = draw(20, 6) * torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])
    before = AnchorSpace.of(anchors, 0).axes.norm(dim=1)
    for share in (0.0, 0.4, 1.0):
        after = AnchorSpace.of(equalise(anchors, share, 6), 0).axes.norm(dim=1)
        assert torch.allclose(after, before ** (1 - share) * before[0] ** share, rtol=1e-3)
    assert torch.allclose(equalise(anchors, 0.0, 6), anchors, atol=1e-5)
    assert torch.allclose(equalise(anchors, 0.7, 6).mean(0), anchors.mean(0), atol=1e-5)
    assert AnchorSpace.of(equalise(anchors, 0.4, 2), 0).rank == 2


def test_one_identity_for_all_and_motion_for_each(task):
    base, images, marks, _ = task
    encoder = with_encoder(base)
    anchors = encode(encoder, images, marks, marks[0])
    order = torch.tensor([3, 0, 4, 2, 1])
    assert torch.allclose(encode(encoder, images[order], marks, marks[0]), anchors, atol=1e-5)  # looks are averaged
    assert torch.allclose(encode(encoder, images, marks[order], marks[0]), anchors[order], atol=1e-5)


def test_an_encoder_survives_its_file(task, tmp_path):
    encoder = with_encoder(task[0])
    save_encoder(encoder, tmp_path / "e.safetensors", {"explained": 0.5})
    again = load_encoder(tmp_path / "e.safetensors")
    images, motion = draw(2, 3, 64, 64), 0.1 * draw(2, 66, 3)
    exact, read = (e(e.appearance(images), motion) for e in (encoder, again))
    assert torch.allclose(exact, read, atol=0.02 * float(exact.std()))  # half precision in the file
    assert not any(p.requires_grad for p in again.parameters())


def test_the_packaged_encoder_finds_people_it_never_saw():
    base = find_base("people128")
    if base.companion("encoder") is None:
        pytest.skip("the packaged base has no encoder here")
    scan, generator, encoder = actor_avatar.scan(), base.generator, load_encoder(base.companion("encoder"))
    images = to_tensor(scan.images)
    marks = torch.as_tensor(scan.landmarks)
    with torch.no_grad():
        anchors = encode(encoder, images, marks, marks[0])
        made = generator(generator.broadcast(anchors)).clamp(-1, 1)
        mean = generator(generator.broadcast(encoder.mean[None])).clamp(-1, 1)
        assert (made - images).square().mean() < 0.4 * (mean - images).square().mean()
        found = relative_motion(crop_landmarks(load_facemesh(), made)[0], marks[0])
    true = relative_motion(marks, marks[0])
    assert (found - true).square().mean() < 0.4 * true.square().mean()


# Training of the encoder


def test_samples_of_a_base_are_what_they_say():
    generator, mesh = find_base("people128").generator, load_facemesh()
    pairs = sample_pairs(generator, 32, EncoderSettings(people=3, poses=2), block=2)
    assert pairs.images.shape == (3, 2, 3, 64, 64) and pairs.images.dtype == torch.uint8
    assert pairs.motion.shape == (3, 2, 66, 3) and pairs.presence.shape == (3, 2)
    with torch.no_grad():
        made = generator(generator.broadcast(pairs.w[1])).clamp(-1, 1)
    small = F.interpolate(made, (64, 64), mode="bilinear", antialias=True)
    assert (dequantize(pairs.images[1]) - small).abs().max() < 0.02
    again = sample_pairs(generator, 32, EncoderSettings(people=3, poses=2), block=2)
    assert torch.equal(again.w, pairs.w) and torch.equal(again.motion, pairs.motion)
    # both poses were measured against one neutral face: their difference is that of the landmarks
    marks, _ = crop_landmarks(mesh, made)
    size = pairs.motion[1, 0] - pairs.motion[1, 1]
    plain = relative_motion(marks[:1], marks[1])[0]
    assert F.cosine_similarity(size.flatten(), plain.flatten(), dim=0) > 0.99


def simple_pairs(people: int = 60, poses: int = 3) -> Pairs:
    """Pairs in which the first half of w is the picture's colour and the second half follows the motion."""
    look, motion = draw(people, 1, 3).expand(-1, poses, -1), 0.05 * draw(people, poses, 66, 3, seed=1)
    images = ((look.tanh() + 1) * 127.5).byte()[..., None, None].expand(-1, -1, -1, 64, 64)
    moved = 20 * motion.flatten(2) @ draw(198, 3, seed=2) / 198**0.5
    return Pairs(images, motion, torch.cat([look, moved], -1), torch.ones(people, poses))


def test_training_explains_look_and_motion():
    """Twenty people are held out, so that the explained share depends neither on the seed nor on rounding."""
    settings = EncoderSettings(steps=100, batch=16, rate=2e-3)
    generator, pairs = type("Base", (), {"w_dim": 6})(), simple_pairs(400)
    encoder, figures = train_encoder(generator, 32, settings, pairs=pairs)
    assert figures["explained"] > 0.6
    untrained = train_encoder(generator, 32, replace(settings, steps=1), pairs=pairs)[1]
    assert figures["explained"] > untrained["explained"] + 0.5


def test_training_depends_on_the_seed_alone():
    generator, settings = type("Base", (), {"w_dim": 6})(), EncoderSettings(steps=2, batch=4)
    states = []
    for k in range(2):
        torch.manual_seed(k)
        states.append(train_encoder(generator, 32, settings, pairs=simple_pairs(20))[0].state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_bases_encoder_lies_beside_it_and_replaces_an_older_one(task, tmp_path):
    base = Base("tiny", tmp_path / "tiny.safetensors")
    save_generator(task[0], base.path)
    assert base.companion("encoder") is None
    settings = EncoderSettings(people=4, poses=1, steps=2, batch=2)
    path, _ = train_and_save(base, None, settings)
    assert base.companion("encoder") == path
    first = load_encoder(path).state_dict()
    train_and_save(base, None, replace(settings, seed=1))
    assert not torch.equal(load_encoder(path).state_dict()["look.weight"], first["look.weight"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.encoder.safetensors", "tiny.safetensors"]
