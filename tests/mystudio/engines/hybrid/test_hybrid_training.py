"""Training of the hybrid engine: exact samples, each stage, resuming, and weights beside the base."""

from dataclasses import replace

import pytest
import torch

from mystudio.bases import Base
from mystudio.engines.hybrid import samples, stages, teach
from mystudio.engines.hybrid.network import ModelSettings
from mystudio.engines.hybrid.pyramid import PyramidShape
from mystudio.engines.hybrid.settings import LossSettings, StagesSettings, TrainSettings
from mystudio.engines.hybrid.signals import SIZE
from mystudio.engines.hybrid.stages import Judges, Rows, frame_terms
from mystudio.engines.hybrid.training import HybridTraining
from mystudio.errors import BadCheckpoint, BadData
from mystudio.motion import losses as pictures
from mystudio.oneshot.loop import LoopSettings
from mystudio.stylegan2.checkpoint import save_generator
from mystudio.stylegan2.generator import Generator
from selfscan.face.facemesh import crop_landmarks, load_facemesh

MODEL = ModelSettings(32, PyramidShape((1, 1, 1, 1), (8, 8, 16, 16), 16), 8, 16, 16, 2, until=16)
OFTEN = LoopSettings(tick_kimg=0.008, sheet_every=0, save_every=1)
LATENTS = TrainSettings(MODEL, StagesSettings(latents=0.048, frames=0.0, portraits=0.0, batch=8, rate=3e-3), run=OFTEN)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random base of 32 px that says which numbers of z are motion."""
    torch.manual_seed(0)
    generator = Generator(32, 16, 16, 2, 256, 16).eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("base") / "tiny.safetensors"
    save_generator(generator, path, {"code": "z = 8 look factors, 4 motion factors, 4 more of the look"})
    return Base("tiny", path)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """The base with weights of the first stage, and their run."""
    run = tmp_path_factory.mktemp("runs") / "hybrid.run"
    told = teach.train(run, base, (), LATENTS)
    assert told["done"] and told["steps"] == 6
    teach.install(run, base)
    return run


def test_samples_are_exact(base):
    factors = samples.factors_of(base.info)
    assert factors == samples.Factors(8, 4) and samples.factors_of({}) is None
    generator, mesh = base.generator, load_facemesh()
    rows = samples.draw(generator, mesh, factors, 4, seed=3)
    z = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(3))
    person, driver = z[0, 0].clone(), z[1, 1]  # the first row: person 0 in the first motion of person 1
    person[8:12] = 0
    assert torch.allclose(rows.w[0], generator.mapping(person[None])[0], atol=1e-6)
    person[8:12] = driver[8:12]
    assert torch.allclose(rows.driven[0], generator.mapping(person[None])[0], atol=1e-6)
    person[8:12] = z[0, 1, 8:12]
    own = generator(generator.broadcast(generator.mapping(person[None]))).clamp(-1, 1)
    assert torch.allclose(rows.images[0], own[0], atol=1e-5)
    assert torch.equal(rows.w[0], rows.w[1])  # both pictures of a person have one identity code
    assert rows.signals.shape == (4, SIZE) and torch.equal(rows.signals[0], rows.own[2])


def test_the_first_stage_learns_that_deformation_zero_draws_the_neutral_frame(base):
    """Trained on fixed rows of 6 people: code 0 draws their neutral frames, though they move in their pictures."""
    training, generator = HybridTraining(base, None, LATENTS), base.generator
    net, rows = training.net, samples.draw(generator, load_facemesh(), samples.Factors(8, 4), 12, seed=10_000)

    @torch.no_grad()
    def apart() -> float:
        net.eval()
        still = net.styles(generator, net.identify(rows.images), torch.zeros(12, 8))
        true = generator(generator.broadcast(rows.w))
        return float(pictures.pixel(generator.synthesize(still), true).mean())

    before, adam = apart(), torch.optim.Adam(net.parameters(), lr=3e-3)
    net.train()
    first = last = None
    for _ in range(80):
        terms = stages.latent_terms(net, generator, rows, rows.signals)
        adam.zero_grad()
        stages.weighted(terms, LossSettings()).backward()
        adam.step()
        last = {name: float(value.detach().mean()) for name, value in terms.items()}
        first = first or last
    assert apart() < 0.3 * before
    assert last["code"] < 0.3 * first["code"] and last["deformation"] < 0.7 * first["deformation"]


def test_a_stopped_run_ends_in_the_same_weights(base, trained, tmp_path):
    from mystudio.base import checkpoint
    from mystudio.oneshot import loop

    class Stopped(HybridTraining):
        def step(self, phase, number, rate):
            if number == 4:
                raise KeyboardInterrupt
            return super().step(phase, number, rate)

    with pytest.raises(KeyboardInterrupt):
        loop.train(tmp_path / "run", Stopped(base, None, LATENTS), OFTEN)
    assert teach.train(tmp_path / "run", base, (), LATENTS)["steps"] == 6
    one, other = (checkpoint.load(run, loop.KIND)[0] for run in (trained, tmp_path / "run"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def rows_of(base, exact):
    found = samples.draw(base.generator, load_facemesh(), samples.Factors(8, 4), 2, seed=5)
    with torch.no_grad():
        truth = base.generator(base.generator.broadcast(found.driven)).clamp(-1, 1)
        marks, _ = crop_landmarks(load_facemesh(), truth)
    return Rows(found.images, found.own, found.signals, truth, marks, torch.tensor(exact))


def test_terms_of_true_frames_and_of_photos_without_one(base):
    training = HybridTraining(base, None, LATENTS)
    judges = Judges(LossSettings(eyes=0.0), load_facemesh(), torch.device("cpu"))
    training.net.eval()
    rows = rows_of(base, [True, False])
    terms, source = frame_terms(training.net, training.generator, training.critic, judges, rows, None)
    assert {*terms} == {
        "pixel", "perceptual", "landmarks", "identity", "cycle_w", "cycle_s", "norm", "deltas", "critic", "back",
    }  # fmt: skip
    assert all(value.shape == (2,) and value.isfinite().all() for value in terms.values())
    for name in ("pixel", "perceptual", "landmarks"):  # they need a true frame
        assert terms[name][0] > 0 and terms[name][1] == 0
    assert terms["back"][0] == 0 and terms["back"][1] > 0  # it stands in where there is none
    with torch.no_grad():
        code = training.net.deformation.read(rows.drive)
        made = base.generator.synthesize(training.net.styles(base.generator, source, code))
    assert torch.allclose(terms["pixel"][0], (made - rows.truth).square().mean((1, 2, 3))[0], atol=1e-5)
    stages.weighted(terms, LossSettings()).backward()
    frozen = [p for p in training.generator.parameters() if p.requires_grad]
    grads = [p.grad for p in training.net.parameters()]
    assert not frozen and all(g is None or g.isfinite().all() for g in grads) and sum(g is not None for g in grads) > 50


def test_stages_without_what_they_need_are_refused(base, tmp_path):
    with pytest.raises(BadData, match="got none; draw groups"):
        teach.train(tmp_path / "a", base, (), replace(LATENTS, stages=replace(LATENTS.stages, frames=1.0)))
    mute = Base("mute", tmp_path / "mute.safetensors")
    save_generator(base.generator, mute.path)
    with pytest.raises(BadData, match="set stages.latents to 0"):
        teach.train(tmp_path / "b", mute, (), LATENTS)


def test_weights_of_another_run_or_base_are_not_installed(base, trained, tmp_path):
    other = Base("other", tmp_path / "other.safetensors")
    save_generator(base.generator, other.path, {"code": "z = 8 look factors, 4 motion factors"})
    with pytest.raises(Exception, match="for another base"):
        teach.install(trained, other)
    with pytest.raises(BadCheckpoint, match="another base's"):
        teach.install(base.companion_path("hybrid"), other)
    with pytest.raises(BadCheckpoint, match="expected a training run"):
        teach.install(tmp_path, base)
    assert other.companion("hybrid") is None
    same = teach.install(base.companion_path("hybrid"), base)
    assert same == base.companion("hybrid")
