"""Training, evaluating and inverting a base on the GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from base_runs import CODE, make_data, session, tiny
from simulated_gpu import OnGpu

from mystudio.base.data import Batch, Mixture
from mystudio.base.encoder import load_encoder
from mystudio.base.evaluate import controllability, evaluate_base
from mystudio.base.settings import SupervisedSettings
from mystudio.base.sheets import sheet_of_base
from mystudio.base.sources import open_source
from mystudio.base.train import train
from mystudio.base.train_encoder import EncoderSettings, save_encoder, train_encoder
from mystudio.base.trainer import Trainer
from mystudio.stylegan2.generator import Generator
from selfscan.face.facemesh import load_facemesh
from selfscan.perceptual.metric import load_perceptual

CPU = torch.device("cpu")


def batch(size: int = 8, side: int = 16) -> Batch:
    """Made-up images, every other one with a code."""
    rng = np.random.default_rng(0)
    coded = np.arange(size) % 2 == 0
    codes = rng.normal(size=(size, CODE)).astype(np.float32) * coded[:, None]
    return Batch(rng.integers(0, 256, (size, side, side, 3), np.uint8), codes, coded, int(coded.sum()))


def trained(settings, device, phase, steps=4, side=16, **networks):
    trainer = Trainer(settings, device, code_size=CODE, coded_share=0.5, **networks)
    trainer.enter(phase)
    losses = {}
    for _ in range(steps):
        losses |= trainer.step(batch(side=side))
    assert trainer.finite() and float(trainer.tensors["skipped"]) == 0
    return trainer, {name: float(value) for name, value in losses.items()}


ALL_OF_IT = tiny(wait_kimg=0.0, r1_every=2, path_every=2, noise="none")


def test_an_adversarial_step_is_the_cpus(gpu):
    """With augmentation, gradient penalty and path lengths; only noise is drawn on the device, and none is here."""
    settings = replace(ALL_OF_IT, adversarial=replace(ALL_OF_IT.adversarial, path=0.0))
    there, found = trained(settings, gpu, "adversarial")
    here, expected = trained(settings, CPU, "adversarial")
    assert found.keys() == expected.keys() >= {"generator", "discriminator", "r1", "likeness"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-2, abs=2e-3), name
    assert there.counters.probability == here.counters.probability > 0


@pytest.mark.parametrize(
    "noise, precision",
    [
        ("random", "bfloat16"),
        ("const", "float32"),
        *(
            pytest.param(noise, precision, marks=pytest.mark.slow)
            for noise, precision in (
                ("random", "float32"),
                ("const", "bfloat16"),
                ("none", "float32"),
                ("none", "bfloat16"),
            )
        ),
    ],
)
def test_adversarial_steps_of_all_kinds(gpu, noise, precision):
    settings = replace(
        ALL_OF_IT,
        train=replace(ALL_OF_IT.train, precision=precision),
        adversarial=replace(ALL_OF_IT.adversarial, noise=noise),
    )
    trainer, losses = trained(settings, gpu, "adversarial", steps=2)
    assert losses.keys() >= {"path", "path_length", "r1"} and all(np.isfinite(list(losses.values())))
    tensors, counters = trainer.state()
    assert all(isinstance(value, OnGpu) for name, value in tensors.items() if not name.endswith(".step"))
    again = Trainer(settings, gpu, code_size=CODE, coded_share=0.5)
    again.restore({name: value.cpu() for name, value in tensors.items()}, counters)
    assert all(np.isfinite(float(value)) for value in again.step(batch()).values())


@pytest.mark.parametrize("read", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_supervised_steps(gpu, read):
    settings = replace(
        ALL_OF_IT,
        supervised=SupervisedSettings(kimg=1, batch=8, levels=2, perceptual=1.0, eyes=0.5, landmarks=0.1, read=read),
    )
    settings = replace(settings, model=replace(settings.model, resolution=32))
    networks = [dict(perceptual=load_perceptual().to(d), mesh=load_facemesh(device=d)) for d in (gpu, CPU)]
    _, found = trained(settings, gpu, "supervised", steps=2, side=32, **networks[0])
    _, expected = trained(settings, CPU, "supervised", steps=2, side=32, **networks[1])
    assert found == pytest.approx(expected, rel=1e-2)


def test_a_whole_run_stops_and_goes_on(gpu, tmp_path):
    data = make_data(tmp_path)
    settings = tiny(supervised=0.032, adversarial=0.032)
    settings = replace(settings, train=replace(settings.train, sheet_every=1))
    half = replace(settings, adversarial=replace(settings.adversarial, kimg=0.016))
    assert train(tmp_path / "run", half, session(data), gpu)["done"]
    made = train(tmp_path / "run", settings, session(data), gpu)
    assert made["done"] and made["images"] == {"supervised": 32, "adversarial": 32}
    assert list((tmp_path / "run" / "sheets").glob("*.png"))


def test_evaluating_a_base(gpu, tmp_path):
    torch.manual_seed(0)
    generator = Generator(32, z_dim=8, w_dim=16, mapping_layers=2, channel_base=512, channel_max=32).eval()
    photos, coded = ([open_source(path, 32)] for path in make_data(tmp_path, 32))
    given = dict(samples=8, images=8)
    found, expected = (evaluate_base(generator, Mixture(photos), **given, device=d).figures for d in (gpu, CPU))
    assert found["frechet"] == pytest.approx(expected["frechet"], rel=1e-2)
    assert found["nearest"]["distances"] == pytest.approx(expected["nearest"]["distances"], rel=1e-2)
    controllability(generator.to(gpu), Mixture(coded), device=gpu, count=8)
    assert sheet_of_base(generator.to(gpu)).dtype == np.uint8


@pytest.mark.parametrize("look_factors", [pytest.param(None, marks=pytest.mark.slow), 4])
def test_training_an_encoder(gpu, tmp_path, look_factors):
    torch.manual_seed(0)
    generator = Generator(32, z_dim=8, w_dim=16, mapping_layers=2, channel_base=512, channel_max=32).eval()
    settings = EncoderSettings(people=20, poses=2, steps=3, batch=8)
    generator.requires_grad_(False)
    here, expected = train_encoder(generator, look_factors, settings)
    there, found = train_encoder(generator.to(gpu), look_factors, settings)
    assert next(there.parameters()).device == gpu and found == pytest.approx(expected, rel=1e-2, abs=1e-3)
    save_encoder(there, tmp_path / "e.safetensors", {})
    kept = load_encoder(tmp_path / "e.safetensors").state_dict()
    assert all(torch.allclose(value, kept[name], atol=2e-2) for name, value in here.state_dict().items())
